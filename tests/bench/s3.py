"""S3: spraying into, out of and inside a store, against s5cmd and rclone.

    python -m tests.bench.s3 [put|get|inside]...

Into and out of the store 2 GiB travel, inside it 1 GiB. PUT is measured on localbucket (its own cost is low; it keeps
no checksums, so the plane says `checksums: none`), GET and native copies on SeaweedFS. `split` runs first for the peers
that cannot split: they move 8 ready parts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.runs import MIB, Spent, command, in_turn, random_file, serving
from tests.doubles import localbucket, seaweedfs

BIN = Path(sys.executable).parent


class Peers:
    """s5cmd and rclone, pointed at a store."""

    def __init__(self, store: seaweedfs.Store) -> None:
        self._environment = {
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
            "AWS_REGION": "us-east-1",
            "S3_ENDPOINT_URL": store.endpoint,
            "RCLONE_CONFIG_R_TYPE": "s3",
            "RCLONE_CONFIG_R_PROVIDER": "Other",
            "RCLONE_CONFIG_R_ENDPOINT": store.endpoint,
            "RCLONE_CONFIG_R_ACCESS_KEY_ID": store.access_key,
            "RCLONE_CONFIG_R_SECRET_ACCESS_KEY": store.secret_key,
        }

    def s5cmd(self, *arguments: str | Path) -> Spent:
        """Run s5cmd."""
        return command(BIN / "s5cmd", "--log", "error", *arguments, environment=self._environment)

    def rclone(self, *arguments: str | Path) -> Spent:
        """Run rclone."""
        return command(BIN / "rclone", "--config", "/dev/null", "-q", *arguments, environment=self._environment)


def config(folder: Path, store: seaweedfs.Store, checksums: str) -> str:
    """A posix plane and the store."""
    return (
        "planes:\n"
        f"  data: {{type: posix, path: {folder}, durability: os}}\n"
        f"  cloud: {{type: s3, bucket: lake, endpoint: '{store.endpoint}', access_key: {{env: AK}},"
        f" secret_key: {{env: SK}}, checksums: {checksums}}}\n"
        "retire_after: 0s\n"
    )


def parts_of(source: Path, folder: Path) -> Path:
    """The source as 8 ready parts, for peers that cannot split."""
    folder.mkdir()
    subprocess.run(["split", "-n", "8", source, folder / "x"], check=True)
    return folder


def put(folder: Path, size: int) -> None:
    """posix → S3 on localbucket."""
    source = random_file(folder / "source", size)
    parts = parts_of(source, folder / "parts")
    (folder / "store").mkdir()
    with localbucket.running(folder / "store") as store:
        store.create_bucket("lake")
        peers = Peers(store)
        keys = {"AK": store.access_key, "SK": store.secret_key}
        with serving(folder / "put", config(folder, store, "none"), keys) as ours:
            in_turn(
                "posix -> S3, spray to 8 parts (localbucket)",
                lambda: ours(
                    "spray",
                    str(source),
                    "b::x",
                    "--plane",
                    "cloud",
                    "--format",
                    "fixed:1",
                    "--parts",
                    "8",
                    "--overwrite",
                ),
                {
                    "s5cmd": lambda: peers.s5cmd("cp", f"{parts}/*", "s3://lake/s5/"),
                    "rclone": lambda: peers.rclone("copy", "--s3-no-check-bucket", "-I", parts, "r:lake/rc/"),
                },
                amount=size,
                goals={"s5cmd": "rate >= 1.0, CPU <= 0.6", "rclone": "rate >= 1.0"},
            )


def get(folder: Path, size: int) -> None:
    """S3 → posix on SeaweedFS."""
    source = random_file(folder / "source", size)
    (folder / "weed").mkdir()
    with seaweedfs.running(folder / "weed") as store:
        store.create_bucket("lake")
        peers = Peers(store)
        peers.s5cmd("cp", source, "s3://lake/x")
        keys = {"AK": store.access_key, "SK": store.secret_key}
        (folder / "plane").mkdir()
        with serving(folder / "get", config(folder / "plane", store, "crc64nvme"), keys) as ours:

            def reset() -> None:
                """Every side writes into the memory that the one before has just given back."""
                for rest in (folder / "plane").iterdir():
                    shutil.rmtree(rest)
                shutil.rmtree(folder / "out", ignore_errors=True)
                (folder / "out").mkdir()

            in_turn(
                "S3 -> posix, spray to 8 parts (SeaweedFS)",
                lambda: ours(
                    "spray", "cloud:x", "b::x", "--plane", "data", "--format", "fixed:1", "--parts", "8", "--overwrite"
                ),
                {
                    "s5cmd": lambda: peers.s5cmd("cp", "s3://lake/x", f"{folder}/out/"),
                    "rclone": lambda: peers.rclone("copyto", "r:lake/x", folder / "out/x"),
                },
                amount=size,
                goals={"s5cmd": "rate >= 1.0, CPU <= 0.6", "rclone": "rate >= 1.0"},
                reset=reset,
            )


def inside(folder: Path, size: int) -> None:
    """S3 → S3 on SeaweedFS."""
    source = random_file(folder / "source", size)
    (folder / "out").mkdir()
    (folder / "plane").mkdir()
    (folder / "weed").mkdir()
    with seaweedfs.running(folder / "weed") as store:
        store.create_bucket("lake")
        peers = Peers(store)
        peers.s5cmd("cp", source, "s3://lake/x")
        keys = {"AK": store.access_key, "SK": store.secret_key}
        with serving(folder / "inside", config(folder / "plane", store, "crc64nvme"), keys) as ours:

            def reset() -> None:
                """Nothing of the peer's way down is left."""
                shutil.rmtree(folder / "out")
                (folder / "out").mkdir()

            def down_and_up() -> Spent:
                down = peers.s5cmd("cp", "s3://lake/x", f"{folder}/out/")
                subprocess.run(["split", "-n", "8", folder / "out/x", folder / "out/p"], check=True)
                (folder / "out/x").unlink()
                up = peers.s5cmd("cp", f"{folder}/out/p*", "s3://lake/s5/")
                return Spent(down.wall + up.wall, down.cpu + up.cpu)

            in_turn(
                "S3 -> S3, spray to 8 parts inside the store (SeaweedFS; the peer goes down and up)",
                lambda: ours(
                    "spray", "cloud:x", "b::y", "--plane", "cloud", "--format", "fixed:1", "--parts", "8", "--overwrite"
                ),
                {"s5cmd down + split + up": down_and_up},
                amount=size,
                goals={"s5cmd down + split + up": "rate >= 2.0"},
                reset=reset,
            )

            def down_joined_up() -> Spent:
                down = peers.s5cmd("cp", "s3://lake/s5/*", f"{folder}/out/")
                with (folder / "joined").open("wb") as joined:
                    subprocess.run(["cat", *sorted((folder / "out").iterdir())], check=True, stdout=joined)
                up = peers.s5cmd("cp", folder / "joined", "s3://lake/s5x")
                return Spent(down.wall + up.wall, down.cpu + up.cpu)

            in_turn(
                "S3 -> S3, despray of 8 parts inside the store (SeaweedFS; the peer goes down and up)",
                lambda: ours("despray", "b::y", "cloud:back", "--overwrite"),
                {"s5cmd down + cat + up": down_joined_up},
                amount=size,
                goals={"s5cmd down + cat + up": "rate >= 2.0"},
                reset=reset,
            )


def main() -> None:
    """Measure."""
    rows = {"put": (put, 2048), "get": (get, 2048), "inside": (inside, 1024)}
    for row in sys.argv[1:] or rows:
        measure, size = rows[row]
        with tempfile.TemporaryDirectory(prefix="cropduster-bench-", dir=os.environ.get("TMPDIR", "/tmp")) as name:
            measure(Path(name), size * MIB)


if __name__ == "__main__":
    main()
