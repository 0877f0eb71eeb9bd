"""Run the pod of the chart under `podman kube play`, and spray the first file as its notes say: `-m tests.image.play`.

What podman has no counterpart of is left out: Services, policies, accounts and the mapping of ports to the host. The
volume that stands for the claim of the state is removed again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import yaml

from tests.doubles import helm

_CHART: Final = Path(__file__).parents[2] / "helm"
_RELEASE: Final = "play"
_POD: Final = f"{_RELEASE}-cropduster"
_SERVER: Final = f"{_POD}-pod-0-server"
_KINDS: Final = frozenset({"ConfigMap", "Deployment", "PersistentVolumeClaim"})
_CSV: Final = "number,text\n" + "".join(f"{n},some text\n" for n in range(10_000))
_SECONDS: Final = 120


def main(image: str) -> int:
    """Play, spray, compare, end; 0 if all went well."""
    name, _, tag = image.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        played = Path(folder) / "play.yaml"
        played.write_text(yaml.safe_dump_all(_rendered(f"localhost/{name}", tag)))
        try:
            _podman("kube", "play", "--network=none", str(played))
            _until_it_answers()
            told = _exec("spray", "-", "demo::first", "--format", "csv", "--parts", "4", given=_CSV)
            print(told, end="")  # for people
            well = _exec("cat", "demo::first") == _CSV
            _podman("stop", "--time=60", _SERVER)
            code = _podman("inspect", "--format={{.State.ExitCode}}", _SERVER).strip()
        finally:
            _podman("kube", "down", str(played))
            _podman("volume", "rm", "--force", f"{_POD}-state", _POD)  # of the claim and of the config
    print(f"{'the same' if well else 'OTHER'} bytes came back; the server ended with {code}")  # for people
    return 0 if well and code == "0" else 1


def _rendered(repository: str, tag: str) -> list[dict[str, Any]]:
    done = helm.run("4", "template", _RELEASE, _CHART, "--set", f"image.repository={repository},image.tag={tag}")
    if done.returncode:
        sys.exit(done.stderr)
    found = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] in _KINDS]
    for each in found:
        if each["kind"] == "Deployment":
            for container in each["spec"]["template"]["spec"]["containers"]:
                del container["ports"]
    return found


def _until_it_answers() -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            _exec("planes", "list")
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)  # nothing tells when it is there
        else:
            return


def _exec(*words: str, given: str = "") -> str:
    return _podman("exec", "--interactive", _SERVER, "cropduster", *words, given=given)


def _podman(*words: str, given: str = "") -> str:
    command = ["podman", *words]
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
