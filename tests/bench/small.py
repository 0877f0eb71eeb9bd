"""Many small files: 20,000 objects of 10 KiB up, down and from store to store, against s5cmd and rclone.

    python -m tests.bench.small [OBJECTS [RUNS]]

On SeaweedFS, which keeps CRC64NVME. Targets are empty each time; peers copy and do not compare, as they do by default.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.runs import RUNS, Spent, in_turn, serving
from tests.bench.s3 import Peers, config
from tests.doubles import seaweedfs

SIZE = 10 * 1024


def tree(folder: Path, count: int) -> Path:
    """Files of random bytes in folders of 1,000."""
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SIZE))
    return folder


class Fresh:
    """A new target for every run: emptying 20,000 objects would take longer than to copy them."""

    def __init__(self, target: Callable[[str], str]) -> None:
        self._target = target
        self._number = 0

    def __call__(self) -> str:
        self._number += 1
        return self._target(f"run{self._number}")


def measure(folder: Path, count: int, runs: int) -> None:
    """All three directions."""
    source = tree(folder / "plane/in", count)
    with seaweedfs.running(folder) as store:
        store.create_bucket("lake")
        peers = Peers(store)
        keys = {"AK": store.access_key, "SK": store.secret_key}
        with serving(folder / "ours", config(folder / "plane", store, "crc64nvme"), keys) as ours:

            def compared(
                title: str, ours_: Callable[[], Spent], s5cmd: Callable[[], Spent], rclone: Callable[[], Spent]
            ):
                goals = {"s5cmd": "rate >= 1.0", "rclone": "rate >= 1.0"}
                others = {"s5cmd": s5cmd, "rclone": rclone}
                in_turn(f"{title}, {count} x 10 KiB", ours_, others, amount=count * SIZE, goals=goals, runs=runs)

            many = ["--transfers", "64", "--checkers", "64", "--s3-no-check-bucket"]
            ups = [Fresh(lambda run, who=who: f"{who}/{run}/") for who in ("up", "up5", "upr")]
            compared(
                "posix -> S3",
                lambda: ours("sync", "data:in", f"cloud:{ups[0]()}"),
                lambda: peers.s5cmd("cp", f"{source}/", f"s3://lake/{ups[1]()}"),
                lambda: peers.rclone("copy", *many, source, f"r:lake/{ups[2]()}"),
            )
            downs = [Fresh(lambda run, who=who: f"{who}/{run}/") for who in ("down", "down5", "downr")]
            plane = folder / "plane"

            def emptied(side: Callable[[], Spent]) -> Callable[[], Spent]:
                def run() -> Spent:
                    for who in ("down", "down5", "downr"):
                        shutil.rmtree(plane / who, ignore_errors=True)
                    return side()

                return run

            compared(
                "S3 -> posix",
                emptied(lambda: ours("sync", "cloud:up/run1", f"data:{downs[0]()}")),
                emptied(lambda: peers.s5cmd("cp", "s3://lake/up/run1/*", f"{plane}/{downs[1]()}")),
                emptied(lambda: peers.rclone("copy", *many, "r:lake/up/run1/", plane / downs[2]())),
            )
            overs = [Fresh(lambda run, who=who: f"{who}/{run}/") for who in ("over", "over5", "overr")]
            compared(
                "S3 -> S3, inside the store",
                lambda: ours("sync", "cloud:up/run1", f"cloud:{overs[0]()}"),
                lambda: peers.s5cmd("cp", "s3://lake/up/run1/*", f"s3://lake/{overs[1]()}"),
                lambda: peers.rclone("copy", *many, "r:lake/up/run1/", f"r:lake/{overs[2]()}"),
            )


def main() -> None:
    """Measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    with tempfile.TemporaryDirectory(prefix="cropduster-bench-", dir=os.environ.get("TMPDIR", "/tmp")) as name:
        measure(Path(name), count, runs)


if __name__ == "__main__":
    main()
