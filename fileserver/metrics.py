"""What a Prometheus asks a file server for, at `metrics.listen`, in the clear: numbers and names of planes, no more.

Each question is answered from what is there at that moment; nothing is counted here. What stands in the database is
the same at every file server of that database: take the maximum over them, not the sum.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from sqlalchemy.exc import SQLAlchemyError

from fileserver.catalogue.counts import Counts, count
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from planes.errors import Error
from planes.metered import MeteredPlane, Snapshot
from planes.wrapped import find

PATIENCE: Final = 5.0
"""Seconds that a question waits for the database; then it is answered without."""
_FRESH: Final = 5.0
"""Seconds for which one look at the database answers all questions: whoever asks often costs nobody anything."""


class Metrics:
    """A collector in the sense of `prometheus_client`.

    Args:
        planes: whose counters are told.
        store: the database; asked on the event loop that runs when this is made.
        clock: seconds that only grow.
    """

    def __init__(self, planes: Configured, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._planes = planes
        self._store = store
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._one = threading.Lock()
        self._seen: tuple[float, Counts | None] | None = None

    def collect(self) -> Iterator[Metric]:
        """All that there is to tell; called in threads of the HTTP server."""
        yield InfoMetricFamily("cropduster", "This file server.", {"version": version("cropduster")})
        yield from _of_planes(self._planes)
        counts = self._counts()
        answers = "Whether the database answered within five seconds."
        yield GaugeMetricFamily("cropduster_database_answers", answers, float(counts is not None))
        if counts is not None:
            yield from _of_database(counts)

    def _counts(self) -> Counts | None:
        with self._one:
            if self._seen is None or self._clock() - self._seen[0] >= _FRESH:
                found = self._look()
                self._seen = self._clock(), found
            return self._seen[1]

    def _look(self) -> Counts | None:
        asked = asyncio.run_coroutine_threadsafe(self._store.read(count), self._loop)
        try:
            return asked.result(PATIENCE)
        except (TimeoutError, CancelledError, SQLAlchemyError, Error):
            asked.cancel()
            return None


@contextlib.asynccontextmanager
async def answering(address: str, metrics: Metrics) -> AsyncIterator[str]:
    """Answer at HOST:PORT as long as the block runs; gives the address, with the port that the kernel chose for 0.

    Raises:
        InvalidSpec: the address can't be listened on.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(metrics)
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.removeprefix("[").removesuffix("]"), registry)
    except OSError as error:
        msg = f"can't listen on {address} ({error.strerror}): name another as metrics.listen"
        raise InvalidSpec(msg, {"metrics.listen": msg}, address=address) from None
    try:
        yield f"{host}:{server.server_port}"
    finally:
        # Not on the event loop, which a question that is being answered may wait for.
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join)
        server.server_close()


def _of_planes(planes: Configured) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "cropduster_plane_requests", "Requests, failed ones too; each try is one.", labels=["plane", "verb"]
    )
    errors = CounterMetricFamily("cropduster_plane_errors", "Requests that failed.", labels=["plane", "reason"])
    moved = CounterMetricFamily(
        "cropduster_plane_bytes",
        "Bytes read and written by this process, copied by the provider, and read for checksums alone.",
        labels=["plane", "direction"],
    )
    for name, snapshots in _snapshots(planes).items():
        for family, of in ((requests, _requests), (errors, _errors), (moved, _moved)):
            total: Tally[str] = Tally()
            for snapshot in snapshots:
                total.update(of(snapshot))
            for label, value in sorted(total.items()):
                family.add_metric([name, label], value)
    yield from (requests, errors, moved)


def _snapshots(planes: Configured) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for name, plane in planes.opened():
        metered = find(plane, MeteredPlane)
        if metered is not None:
            found.setdefault(name, []).append(metered.snapshot())
    return found


def _requests(snapshot: Snapshot) -> dict[str, int]:
    return dict(snapshot.requests)


def _errors(snapshot: Snapshot) -> dict[str, int]:
    return dict(snapshot.errors)


def _moved(snapshot: Snapshot) -> dict[str, int]:
    return {
        "read": snapshot.bytes_read,
        "written": snapshot.bytes_written,
        "copied": snapshot.bytes_copied,
        "checked": snapshot.bytes_checked,
    }


def _of_database(counts: Counts, clock: Callable[[], float] = time.time) -> Iterator[Metric]:
    transfers = GaugeMetricFamily("cropduster_transfers", "Transfers that are remembered.", labels=["state", "verb"])
    for (state, verb), many in sorted(counts.transfers.items()):
        transfers.add_metric([state.lower(), verb], many)
    segments = GaugeMetricFamily("cropduster_segments", "Segments of transfers that run.", labels=["state"])
    for state, many in counts.segments.items():
        segments.add_metric([state], many)
    age = max(0.0, clock() - counts.oldest) if counts.oldest else 0.0
    yield transfers
    yield segments
    yield GaugeMetricFamily("cropduster_oldest_transfer_seconds", "Age of the oldest that has not ended.", age)
    yield GaugeMetricFamily("cropduster_garbage_objects", "Objects that wait for their deletion.", counts.garbage)
    yield GaugeMetricFamily("cropduster_files", "Logical files.", counts.files)
    hosts = GaugeMetricFamily("cropduster_hosts", "Hosts whose agents are here, or were lost.", labels=["state"])
    for state, many in counts.hosts.items():
        hosts.add_metric([state], many)
    yield hosts
