"""posix → posix: a spray of 2 GiB into 8 parts, checksums included, against cp, split and dd.

    python -m tests.bench.posix [MIB]

On a file system without reflinks (the first line says which it is); the source is in the page cache for all sides.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.runs import MIB, command, in_turn, random_file, serving


def main() -> None:
    """Measure."""
    size = int(sys.argv[1]) * MIB if len(sys.argv) > 1 else 2048 * MIB
    with tempfile.TemporaryDirectory(prefix="cropduster-bench-", dir=Path.cwd()) as name:
        folder = Path(name)
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True).stdout
        print(f"file system: {kind.strip()}")
        source = random_file(folder / "source", size)
        lines(folder / "lines", size)
        for durability in ("os", "fsync"):
            plane = folder / "plane"
            plane.mkdir()
            config = f"planes:\n  data: {{type: posix, path: {plane}, durability: {durability}}}\nretire_after: 0s\n"
            with serving(folder / durability, config) as ours:

                def reset(plane: Path = plane) -> None:
                    for rest in plane.iterdir():
                        shutil.rmtree(rest)
                    shutil.rmtree(folder / "out", ignore_errors=True)
                    (folder / "out").mkdir()

                def spray(ours=ours) -> object:
                    return ours("spray", str(source), "b::x", "--format", "fixed:1", "--parts", "8", "--overwrite")

                if durability == "os":
                    peers = {
                        "cp": lambda: command("cp", "--reflink=never", source, folder / "out/x"),
                        "split -n l/8": lambda: command("split", "-n", "l/8", folder / "lines", folder / "out/x"),
                    }
                    goals = {"cp": "rate >= 1.0", "split -n l/8": "rate >= 3"}
                else:
                    peers = {
                        "dd conv=fsync": lambda: command(
                            "dd", f"if={source}", f"of={folder}/out/x", "bs=4M", "conv=fsync", "status=none"
                        )
                    }
                    goals = {"dd conv=fsync": "rate >= 0.9"}
                in_turn(
                    f"spray to 8 parts, durability: {durability}", spray, peers, amount=size, goals=goals, reset=reset
                )
            shutil.rmtree(plane)


def lines(path: Path, size: int) -> None:
    """A file of lines of about 100 bytes: what `split -n l/8` is made for."""
    line = b"x" * 99 + b"\n"
    with path.open("wb") as file:
        for _ in range(size // (len(line) * 10_000)):
            file.write(line * 10_000)


if __name__ == "__main__":
    main()
