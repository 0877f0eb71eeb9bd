"""What the chart's test pod runs, against a server that runs by the chart's own configuration, moved to loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.doubles import helm
from tests.doubles.authority import Authority
from tests.doubles.seaweedfs import free_ports

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"


@pytest.fixture
def rendered():
    """The config of one file server with certificates, and the pod that tries it."""
    done = helm.run("4", "template", "lake", CHART, "--namespace", "lake", "--set", "tls.internal.secret=certificates")
    assert done.returncode == 0, done.stderr
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each}
    script = found["ConfigMap", "lake-cropduster-test"]["data"]["spray.py"]
    (container,) = found["Pod", "lake-cropduster-test"]["spec"]["containers"]
    return found["ConfigMap", "lake-cropduster"]["data"]["config.yaml"], script, container


def test_the_test_of_the_chart_sprays_and_leaves_nothing_behind(machine, rendered, tmp_path):
    text, script, container = rendered
    (port,) = free_ports(1)
    issued = Authority(tmp_path / "issued").issue(
        "tls", names=["lake-cropduster-headless.lake.svc"], addresses=["127.0.0.1"]
    )
    places = {
        "/run/tls/internal/tls.crt": str(issued.certificate),
        "/run/tls/internal/tls.key": str(issued.key),
        "/run/tls/internal/ca.crt": str(issued.ca),
        "/var/lib/cropduster/state": str(machine.state),
        "0.0.0.0:7300": f"127.0.0.1:{port}",
        "0.0.0.0:7302": "127.0.0.1:0",
        "0.0.0.0:7303": "127.0.0.1:0",
        "lake-cropduster-internal.lake.svc:7300": f"127.0.0.1:{port}",
    }

    def moved(value: str) -> str:
        for there, here in places.items():
            value = value.replace(there, here)
        return value

    machine.configure(moved(text))
    server = machine.start("serve")
    assert "listening" in server.stdout.readline(), server.communicate()
    variables = {each["name"]: moved(each["value"]) for each in container["env"]}
    assert container["command"] == ["python", "/test/spray.py"]
    (tmp_path / "spray.py").write_text(script)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, tmp_path / "spray.py"],
        env=os.environ | variables | {"PATH": path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the same bytes came back" in done.stdout
    assert "4 parts" in done.stdout
    assert [name for name in machine.files() if name.endswith("csv")] == []
    server.terminate()
    server.communicate(timeout=60)
