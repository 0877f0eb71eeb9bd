"""What the chart's test pod runs, against a server that runs by the chart's own configuration, moved to loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.doubles import helm
from tests.doubles.authority import Authority
from tests.doubles.seaweedfs import free_ports, program, stop

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"


def watched(port: int) -> dict[str, str]:
    """Where probes ask, and a Prometheus."""
    return {"0.0.0.0:7302": "127.0.0.1:0", "0.0.0.0:7303": f"127.0.0.1:{port}"}


def render(*words: str | Path) -> dict[tuple[str, str], Any]:
    """What the chart makes of some options, by kind and name."""
    done = helm.run("4", "template", "lake", CHART, "--namespace", "lake", *words)
    assert done.returncode == 0, done.stderr
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each}


def move(text: str, places: Mapping[str, object]) -> str:
    """The text with other places; each of them must be there."""
    for there, here in places.items():
        assert there in text
        text = text.replace(there, str(here))
    return text


def test_the_test_of_the_chart_sprays_and_leaves_nothing_behind(machine, tmp_path):
    found = render("--set", "tls.internal.secret=certificates")
    port, numbers = free_ports(2)
    issued = Authority(tmp_path / "issued").issue(
        "tls", names=["lake-cropduster-headless.lake.svc"], addresses=["127.0.0.1"]
    )
    files = {
        "/run/tls/internal/tls.crt": issued.certificate,
        "/run/tls/internal/tls.key": issued.key,
        "/run/tls/internal/ca.crt": issued.ca,
    }
    here = {"/var/lib/cropduster/state": machine.state, "0.0.0.0:7300": f"127.0.0.1:{port}"} | watched(numbers)
    machine.configure(move(found["ConfigMap", "lake-cropduster"]["data"]["config.yaml"], files | here))
    (container,) = found["Pod", "lake-cropduster-test"]["spec"]["containers"]
    told = "\n".join(f"{each['name']}={each['value']}" for each in container["env"])
    told = move(told, files | {"lake-cropduster-internal.lake.svc:7300": f"127.0.0.1:{port}"})
    variables = dict(line.split("=", 1) for line in told.splitlines())
    server = machine.start("serve")
    assert "listening" in server.stdout.readline(), server.communicate()
    assert container["command"] == ["python", "/test/spray.py"]
    (tmp_path / "spray.py").write_text(found["ConfigMap", "lake-cropduster-test"]["data"]["spray.py"])
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
    with urllib.request.urlopen(f"http://127.0.0.1:{numbers}/metrics", timeout=60) as told:
        lines = told.read().decode().splitlines()
    assert 'cropduster_transfers{state="succeeded",verb="spray"} 1.0' in lines
    server.terminate()
    server.communicate(timeout=60)


def test_a_caller_with_a_token_gets_through_the_envoy_of_the_chart(machine, tmp_path):
    values = {
        "config": {"tokens": {"keys": {"k": "/run/secrets/tokens/k"}}},
        "files": {"tokens": {"secret": "keys"}},
        "tls": {"external": {"secret": "certificate"}},
        "envoy": {"enabled": True},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    found = render("-f", tmp_path / "values.yaml")
    key = machine("token", "key", str(tmp_path / "signing"), "--json").json
    token = machine("token", "create", str(tmp_path / "signing"), "--subject", "me").out
    (tmp_path / "token").write_text(token)
    tls = tmp_path / "tls"
    issued = Authority(tls).issue("tls", names=["lake-cropduster-external.lake.svc"], addresses=["127.0.0.1"])
    for file, name in ((issued.certificate, "tls.crt"), (issued.key, "tls.key"), (issued.ca, "ca.crt")):
        file.rename(tls / name)
    behind, port = free_ports(2)
    here = {
        "/var/lib/cropduster/state": machine.state,
        "127.0.0.1:7300": "127.0.0.1:0",
        "0.0.0.0:7301": f"127.0.0.1:{behind}",
        "/run/tls/external": tls,
        "k: /run/secrets/tokens/k": f"{key['id']}: {key['public']}",
    }
    machine.configure(move(found["ConfigMap", "lake-cropduster"]["data"]["config.yaml"], here | watched(0)))
    server = machine.start("serve")
    assert "listening" in server.stdout.readline(), server.communicate()
    maps = found["ConfigMap", "lake-cropduster-envoy"]["data"]
    places = {
        "/etc/envoy": tmp_path,
        "/run/tls/external": tls,
        "address: 0.0.0.0, port_value: 7301": f"address: 127.0.0.1, port_value: {port}",
        "address: lake-cropduster-headless.lake.svc, port_value: 7301": f"address: 127.0.0.1, port_value: {behind}",
    }
    (tmp_path / "envoy.yaml").write_text(move(maps["envoy.yaml"], places))
    (tmp_path / "certificate.yaml").write_text(move(maps["certificate.yaml"], {"/run/tls/external": tls}))
    (container,) = found["Deployment", "lake-cropduster-envoy"]["spec"]["template"]["spec"]["containers"]
    words = [word.replace("/etc/envoy", str(tmp_path)) for word in container["command"][1:]]
    envoy = subprocess.Popen([program("envoy"), *words, "--concurrency", "1"], stdin=subprocess.DEVNULL)
    try:
        with grpc.secure_channel(
            f"127.0.0.1:{port}", grpc.ssl_channel_credentials((tls / "ca.crt").read_bytes())
        ) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        route = ("--server", f"127.0.0.1:{port}", "--ca", str(tls / "ca.crt"))
        shown = machine("planes", "list", *route, "--token-file", str(tmp_path / "token"), "--json").json
        assert [each["name"] for each in shown["planes"]] == ["data"]
        assert machine("planes", "list", *route, "--json", code=3).error["reason"] == "CALLER_UNKNOWN"
    finally:
        stop(envoy)
    server.terminate()
    server.communicate(timeout=60)
