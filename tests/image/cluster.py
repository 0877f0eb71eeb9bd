"""Run what the chart makes of two replicas under podman: `python -m tests.image.cluster cropduster:latest`.

Containers stand for the pods, with users, rights, environment and arguments as they are rendered; a podman network with
its names for the Services, an authority of ours for cert-manager, a PostgreSQL of this machine for the other.
The migration runs, then both servers, then what `helm test` runs; a spray is dealt to both, and a copy outlives one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.doubles import helm, postgres
from tests.doubles.authority import Authority

_CHART: Final = Path(__file__).parents[2] / "helm"
_USER: Final = 10001
_NAME: Final = "play-cropduster"
_SERVERS: Final = ("play-1", "play-2")
_PODS: Final = (*_SERVERS, "play-test")
_NAMES: Final = [f"{_NAME}-{side}.default.svc" for side in ("headless", "internal")]
_VALUES: Final = {
    "replicas": 2,
    "database": {"secret": "database"},
    "tls": {"internal": {"secret": "certificates"}},
    "config": {"planes": {"data": {"type": "posix", "path": "/planes/data", "shared": True}}},
    "volumes": {"data": {"claim": "data"}},
}
_RECORD: Final = b"%09d,a record that is long enough to make something of\n"
_MOVED: Final = """
import urllib.request
lines = urllib.request.urlopen("http://127.0.0.1:7303/metrics").read().decode().splitlines()
copied = [line.split() for line in lines if line.startswith('cropduster_plane_bytes_total{direction="copied"')]
print(sum(float(value) for _, value in copied))
"""
_SECONDS: Final = 200


@dataclass(frozen=True, slots=True)
class Site:
    """What the containers have in common."""

    image: str
    folder: Path
    url: str
    """Of the database, as containers see it."""
    socket: Path
    rendered: dict[tuple[str, str], Any]

    def words(self, container: dict[str, Any]) -> list[str]:
        """How a container is run as the chart has it: arguments of podman and behind them its own."""
        told = [f"--env={each['name']}={each.get('value', self.url)}" for each in container["env"]]
        places = {"config": "/etc/cropduster", "tls": "/run/tls/internal", "data": "/planes/data", "test": "/test"}
        mounts = [f"--volume={self.folder / name}:{place}" for name, place in places.items()]
        command = container.get("command", [])
        entry = [f"--entrypoint={command[0]}"] if command else []
        confined = (
            *(f"--user={_USER}:{_USER}", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            *("--tmpfs=/tmp:mode=1777", "--tmpfs=/run/cropduster:mode=1777", f"--volume={self.socket}:/pg"),
        )
        return [*confined, *mounts, *told, *entry, self.image, *command[1:], *container.get("args", [])]

    def container(self, kind: str, name: str) -> dict[str, Any]:
        """The one container of a Pod, or of what makes pods."""
        spec = self.rendered[kind, name]["spec"]
        (found,) = spec.get("template", {"spec": spec})["spec"]["containers"]
        return dict(found)


def main(image: str) -> int:
    """Play; 0 if all went well."""
    with _site(f"localhost/{image}") as site, _network():
        try:
            return _play(site)
        except subprocess.CalledProcessError:
            for name in _SERVERS:
                subprocess.run(["podman", "logs", "--tail=20", name], check=False)
            raise
        finally:
            for left in (_SERVERS, [f"{name}-pod" for name in _PODS]):
                _podman("rm", "--force", "--ignore", "--time=0", *left)


def _play(site: Site) -> int:
    print(_podman("run", "--rm", *site.words(site.container("Job", f"{_NAME}-migration"))), end="")
    # What holds an address outlives the container in it, as a pod does. With each address that comes or goes, podman's
    # bridge may change its own hardware address, and whoever is left asks that for a name in vain for half a minute.
    for name in _PODS:
        aliases = [f"--network-alias={each}" for each in _NAMES if name in _SERVERS]
        holding = ["--network=play", *aliases, "--entrypoint=sleep", site.image, "infinity"]
        _podman("run", "--detach", f"--name={name}-pod", *holding)
    for name in _SERVERS:
        own = f"--volume={_owned(site.folder / name)}:/var/lib/cropduster"
        words = site.words(site.container("Deployment", _NAME))
        _podman("run", "--detach", f"--name={name}", f"--network=container:{name}-pod", own, *words)
    for name in _SERVERS:
        _until_it_serves(name)
    test = site.words(site.container("Pod", f"{_NAME}-test"))
    print(_podman("run", "--rm", f"--network=container:{_PODS[-1]}-pod", *test), end="")
    (site.folder / "data" / "large.csv").write_bytes(b"".join(_RECORD % number * 20_000 for number in range(300)))
    first, second = _SERVERS
    print(_exec(first, "spray", "data:large.csv", "demo::large", "--parts", "300"), end="")
    shares = [float(_podman("exec", name, "python", "-c", _MOVED)) for name in _SERVERS]
    print(f"copied by each: {shares}")
    accepted = _exec(second, "copy", "demo::large", "demo::again", "--parts", "299", "--no-wait", "--json")
    _podman("kill", "--signal=KILL", first)
    print(_exec(second, "transfers", "watch", yaml.safe_load(accepted)["id"]), end="")
    verified = _exec(second, "files", "verify", "demo::again", "--read")
    print(verified.splitlines()[-1])
    _podman("stop", "--time=60", second)
    code = _podman("inspect", "--format={{.State.ExitCode}}", second).strip()
    print(f"the server that was left ended with {code}")
    return 0 if min(shares) > 0.2 * max(shares) and code == "0" else 1


@contextlib.contextmanager
def _site(image: str) -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="play-"))
    try:
        (folder / "values.yaml").write_text(yaml.safe_dump(_VALUES))
        done = helm.run("4", "template", "play", _CHART, "--values", folder / "values.yaml")
        if done.returncode:
            sys.exit(done.stderr)
        found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each}
        for name, key, file in (("config", _NAME, "config.yaml"), ("test", f"{_NAME}-test", "spray.py")):
            (folder / name).mkdir()
            (folder / name / file).write_text(found["ConfigMap", key]["data"][file])
        issued = Authority(folder / "tls").issue("tls", names=_NAMES)
        for pem, to in ((issued.certificate, "tls.crt"), (issued.key, "tls.key"), (issued.ca, "ca.crt")):
            pem.rename(folder / "tls" / to)
        _owned(folder / "data")
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        with postgres.running() as server:
            server.folder.chmod(0o755)
            url = server.database().replace(str(server.folder), "/pg")
            yield Site(image, folder, url, server.folder, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    _podman("network", "create", "play")
    try:
        yield
    finally:
        _podman("network", "rm", "--force", "play")


def _owned(folder: Path) -> Path:
    folder.mkdir()
    os.chown(folder, _USER, _USER)
    return folder


def _until_it_serves(name: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while "listening" not in _podman("logs", name):
        if time.monotonic() > deadline:
            sys.exit(f"{name} does not serve")
        time.sleep(0.2)  # nothing tells when it does


def _exec(server: str, *words: str) -> str:
    return _podman("exec", server, "cropduster", *words)


def _podman(*words: str) -> str:
    command = ["podman", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
