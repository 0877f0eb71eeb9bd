"""Generate the Python stubs of proto/ into an output folder (default: the repository root).

    python proto/generate.py [FOLDER]

Four kinds of file for every .proto: messages and services, each with the type stubs that mypy strict needs. The
versions of grpcio-tools and mypy-protobuf are pinned in pyproject.toml; two runs give the same bytes.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent


def generate(folder: Path) -> None:
    """Write the stubs of all .proto files below `folder`; raises RuntimeError with protoc's exit code."""
    out = str(folder)
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        *sorted(str(p) for p in ROOT.glob("fileserver/v1/*.proto")),
    ]
    code = protoc.main(arguments)
    if code:
        msg = f"protoc ended with exit code {code}"
        raise RuntimeError(msg)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent)
