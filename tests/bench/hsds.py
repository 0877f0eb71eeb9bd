"""HSDS: ours against `hsload` of h5pyd 1.0.0, both up to the answer of flush=1.

    python -m tests.bench.hsds [ROW…] [--scale F] [--runs N]

Rows: plain gzip small rest link s3 inside months cold; all, if none is named. `--scale 0.02` tries a row out.
HSDS 1.0.2 runs with one service node and two data nodes, on POSIX storage but for `s3` and `inside`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import hsds_files, hsds_sides
from tests.bench.hsds_sides import Loaded, Target, hsload, hsloads, ingest, tell
from tests.bench.runs import CLI, MIB, Ours, in_turn, serving
from tests.doubles import hsds, seaweedfs


class Bench:
    """One row's servers.

    Args:
        folder: of this row, empty.
        scale: of the files.
        runs: measured ones, after one that warms up.
    """

    def __init__(self, folder: Path, scale: float, runs: int) -> None:
        self.folder, self.scale, self.runs = folder, scale, runs
        self.files = folder / "hsds" / "storage" / "files"  # where HSDS can read them through links
        self.files.mkdir(parents=True)

    @contextmanager
    def servers(self, store: seaweedfs.Store | None = None) -> Iterator[tuple[Target, Ours]]:
        """A fresh HSDS and a fresh server of ours."""
        with hsds.running(self.folder, users=(), data_nodes=2, store=store) as server:
            secrets = hsds_sides.environment(server, store)
            text = hsds_sides.config(self.files, server, store)
            with serving(self.folder / "ours", text, secrets) as ours:
                yield Target(server), ours

    def compare(
        self,
        title: str,
        target: Target,
        files: Sequence[Path],
        mine: Callable[[], Loaded],
        peer: Callable[[], Loaded],
        goal: str,
    ) -> None:
        """Both sides in turn, and all that they cost."""
        amount = hsds_files.size(list(files))
        ours, theirs = in_turn(
            title,
            mine,
            {"hsload": peer},
            amount=amount,
            goals={"hsload": goal},
            reset=target.fresh,
            runs=self.runs,
        )
        tell("ours", len(files), amount, [each for each in ours if isinstance(each, Loaded)])
        tell("hsload", len(files), amount, [each for each in theirs["hsload"] if isinstance(each, Loaded)])


def big(bench: Bench, *, gzip: bool, mode: str, goal: str, store: seaweedfs.Store | None = None) -> None:
    """One file of 205 MB."""
    path = hsds_files.big(bench.files / "big.h5", bench.scale, gzip=gzip)
    kind = "shuffle and gzip" if gzip else "no filter"
    title = f"one file, float32 in chunks of 1 MiB, {kind}, {mode}{', HSDS on SeaweedFS' if store else ''}"
    with bench.servers(store) as (target, ours):
        bench.compare(
            title,
            target,
            [path],
            lambda: ingest(ours, target, "data:big.h5", "--mode", mode, domain="big.h5"),
            lambda: hsload(target, path, domain="big.h5", last="big.h5"),
            goal,
        )


def small(bench: Bench, *, mode: str, name: str, goal: str) -> None:
    """200 files of 116 KB."""
    files = hsds_files.small(bench.files / "small", bench.scale)
    with bench.servers() as (target, ours):
        bench.compare(
            f"{len(files)} files of {files[0].stat().st_size / 1000:.0f} KB, {mode}",
            target,
            files,
            lambda: ingest(ours, target, "data:small/*.h5", "--target", name, "--mode", mode, domain=""),
            lambda: hsload(target, *files, domain="", last=files[-1].name),
            goal,
        )


def months(bench: Bench) -> None:
    """84 files into one domain; hsload is started once a file, for it takes one at a time into one domain."""
    files = hsds_files.months(bench.files / "months", bench.scale)
    first, *rest = files
    extended = [("--extend", "time", first), *(("-a", "--extend", "time", path) for path in rest)]
    with bench.servers() as (target, ours):
        bench.compare(
            f"{len(files)} files of one dataset, 75 x 89 x 186 float32, into one domain",
            target,
            files,
            lambda: ingest(ours, target, "data:months/*.h5", "--extend", "time", domain="all.h5"),
            lambda: hsloads(target, extended, domain="all.h5", last="all.h5"),
            "rate >= 8",
        )


def on_s3(bench: Bench) -> None:
    """205 MB into an HSDS that stores in S3."""
    (bench.folder / "weed").mkdir()
    with seaweedfs.running(bench.folder / "weed") as store:
        big(bench, gzip=True, mode="direct", goal="rate >= 8", store=store)


def inside(bench: Bench) -> None:
    """Source and bucket in one S3: how many of the bytes pass through us. hsload has them all, so it does not run."""
    (bench.folder / "weed").mkdir()
    path = hsds_files.big(bench.files / "big.h5", bench.scale, gzip=True)
    with seaweedfs.running(bench.folder / "weed") as store, bench.servers(store) as (target, ours):
        store.create_bucket("sources")
        store.client().upload_file(str(path), "sources", "big.h5")
        size = path.stat().st_size
        print(f"\n## source and bucket in one S3 ({size / MIB:.0f} MiB)", flush=True)
        loads = []
        for run in range(bench.runs + 1):
            target.fresh()
            spent = ingest(ours, target, "cloud:big.h5", "--mode", "direct", domain="big.h5")
            loads += [spent] if run else []
        tell("ours", 1, size, loads)
        print("   goal: bytes through us <= metadata + 1 %")


def cold(bench: Bench) -> None:
    """One small file by a command that has to start its server first."""
    [path, *_] = hsds_files.small(bench.files / "small", 0.01)
    with bench.servers() as (target, ours):
        state = bench.folder / "cold"

        def first() -> Loaded:
            spent = Loaded(0, 0)
            words = [path, f"hdf5:/{target.folder}/a.h5", "--json"]
            where = ["--state", state, "--config", bench.folder / "ours" / "config.yaml"]
            with target.counting(spent):
                used = hsds_sides.timed([CLI, "ingest", *words, *where], ours.environment)
            spent.wall = spent.transfer = used.wall
            spent.cpu = used.cpu + hsds_sides.stopped(state)
            return spent

        bench.compare(
            "one small file, cold: our server is started for it",
            target,
            [path],
            first,
            lambda: hsload(target, path, domain="a.h5", last="a.h5"),
            "none",
        )


ROWS: dict[str, Callable[[Bench], None]] = {
    "plain": lambda bench: big(bench, gzip=False, mode="direct", goal="rate >= 4"),
    "gzip": lambda bench: big(bench, gzip=True, mode="direct", goal="rate >= 12"),
    "small": lambda bench: small(bench, mode="direct", name="main", goal="rate >= 30"),
    "rest": lambda bench: small(bench, mode="rest", name="rest", goal="rate >= 3, no storm of 503"),
    "link": lambda bench: big(bench, gzip=True, mode="link", goal="ours <= 1 s; hsload copies: its --link fails"),
    "s3": on_s3,
    "inside": inside,
    "months": months,
    "cold": cold,
}


def main(words: Sequence[str] = ()) -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hsds", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args(words)
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"no row is called {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    for name in asked.rows or ROWS:
        with tempfile.TemporaryDirectory(prefix="cropduster-bench-", dir=os.environ.get("TMPDIR", "/tmp")) as folder:
            ROWS[name](Bench(Path(folder), asked.scale, asked.runs))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
