"""Write requirements.txt: every wheel of the image but our own, with its version and its SHA-256.

    python tests/image/lock.py FOLDER

FOLDER holds the wheels that pip chose. `make lock` calls this.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Final

TARGET: Final = Path(__file__).with_name("requirements.txt")
_HEAD: Final = "# Made by `make lock`: wheels for CPython 3.11 on x86_64 with glibc.\n"


def lines(folder: Path) -> list[str]:
    """A requirement a wheel, in order of their names; a wheel's name begins with NAME-VERSION-."""
    found = []
    for wheel in folder.glob("*.whl"):
        name, version, *_ = wheel.name.split("-")
        if name != "cropduster":
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            found.append(f"{name.replace('_', '-').lower()}=={version} --hash=sha256:{digest}\n")
    return sorted(found)


if __name__ == "__main__":
    TARGET.write_text(_HEAD + "".join(lines(Path(sys.argv[1]))))
