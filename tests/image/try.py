"""Run the image as a cluster would, and spray in it: `python tests/image/try.py podman cropduster:latest`.

There is no network, nothing writable but scratch space, no rights, and it is not root.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

_CONFINED: Final = (
    *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001"),
    *("--tmpfs=/tmp:mode=1777", "--tmpfs=/scratch:mode=1777", "--env=HOME=/scratch"),
)
_SPRAY: Final = """
set -e
for number in $(seq 100000); do echo "$number,some text"; done > /tmp/in.csv
cropduster spray /tmp/in.csv demo::first --parts 8
cropduster despray demo::first /tmp/out.csv
cmp /tmp/in.csv /tmp/out.csv
"""
_ANSWERS: Final = "until cropduster planes list --server 127.0.0.1:7300; do sleep 0.2; done"
_SECONDS: Final = 120


def main(engine: str, image: str) -> int:
    """Spray with an embedded server, then start a server and tell it to end; 0 if all went well."""
    _run(engine, "run", "--rm", *_CONFINED, "--entrypoint=sh", image, "-c", _SPRAY)
    name = _run(engine, "run", "--detach", *_CONFINED, image).strip()
    try:
        _run(engine, "exec", name, "sh", "-c", _ANSWERS)
        _run(engine, "stop", "--time=30", name)
        code = _run(engine, "wait", name).strip()
        if code != "0":
            print(f"the server ended with {code} when it was told to end")  # for people
            return 1
    finally:
        _run(engine, "rm", "--force", name)
    return 0


def _run(engine: str, *words: str) -> str:
    done = subprocess.run([engine, *words], stdout=subprocess.PIPE, text=True, timeout=_SECONDS, check=True)
    print(done.stdout, end="")  # for people
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
