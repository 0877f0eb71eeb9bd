"""Azure: spraying into, out of and inside a container, against rclone (s5cmd does not speak Azure).

    python -m tests.bench.azure [MIB]

On Azurite, whose CRC64 runs in JavaScript at some 60 MB/s and takes nearly all of the time: what tells is our CPU and
the bytes through us. So sizes are small.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.runs import MIB, Spent, command, in_turn, random_file, serving
from tests.bench.s3 import BIN, parts_of
from tests.doubles import azurite

SPRAY = ("--format", "fixed:1", "--parts", "8", "--overwrite")


def config(folder: Path) -> str:
    """A posix plane and a container."""
    return (
        "planes:\n"
        f"  data: {{type: posix, path: {folder}, durability: os}}\n"
        "  az: {type: azure, container: lake, connection_string: {env: CS}}\n"
        "retire_after: 0s\n"
    )


def measure(folder: Path, size: int) -> None:
    """All three directions."""
    source = random_file(folder / "source", size)
    parts = parts_of(source, folder / "parts")
    (folder / "account").mkdir()
    (folder / "plane").mkdir()
    with azurite.running(folder / "account") as account:
        account.create_container("lake")
        environment = {
            "RCLONE_CONFIG_R_TYPE": "azureblob",
            "RCLONE_CONFIG_R_ACCOUNT": account.name,
            "RCLONE_CONFIG_R_KEY": account.key,
            "RCLONE_CONFIG_R_ENDPOINT": account.url,
            "RCLONE_CONFIG_R_USE_EMULATOR": "true",
        }

        def rclone(*arguments: str | Path) -> Spent:
            return command(BIN / "rclone", "--config", "/dev/null", "-q", "-I", *arguments, environment=environment)

        def reset() -> None:
            """Every side writes into the memory that the one before has just given back."""
            for rest in (folder / "plane").iterdir():
                shutil.rmtree(rest)
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "out").mkdir()

        rclone("copyto", source, "r:lake/x")
        with serving(folder / "ours", config(folder / "plane"), {"CS": account.connection_string}) as ours:
            in_turn(
                "posix -> Azure, spray to 8 parts (Azurite)",
                lambda: ours("spray", str(source), "b::x", "--plane", "az", *SPRAY),
                {"rclone": lambda: rclone("copy", parts, "r:lake/rc/")},
                amount=size,
                goals={"rclone": "rate >= 1.0"},
            )
            in_turn(
                "Azure -> posix, spray to 8 parts (Azurite)",
                lambda: ours("spray", "az:x", "b::y", "--plane", "data", *SPRAY),
                {"rclone": lambda: rclone("copyto", "r:lake/x", folder / "out/x")},
                amount=size,
                goals={"rclone": "rate >= 1.0"},
                reset=reset,
            )

            def down_and_up() -> Spent:
                down = rclone("copyto", "r:lake/x", folder / "out/x")
                subprocess.run(["split", "-n", "8", folder / "out/x", folder / "out/p"], check=True)
                (folder / "out/x").unlink()
                up = rclone("copy", folder / "out", "r:lake/rc/")
                return Spent(down.wall + up.wall, down.cpu + up.cpu)

            in_turn(
                "Azure -> Azure, spray to 8 parts inside the account (Azurite; the peer goes down and up)",
                lambda: ours("spray", "az:x", "b::z", "--plane", "az", *SPRAY),
                {"rclone down + split + up": down_and_up},
                amount=size,
                goals={"rclone down + split + up": "rate >= 2.0"},
                reset=reset,
            )


def main() -> None:
    """Measure."""
    size = int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 128 * MIB
    with tempfile.TemporaryDirectory(prefix="cropduster-bench-", dir=os.environ.get("TMPDIR", "/tmp")) as name:
        measure(Path(name), size)


if __name__ == "__main__":
    main()
