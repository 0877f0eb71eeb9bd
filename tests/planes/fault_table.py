"""Verb x fault, for any plane behind the proxy: what a fault does to each verb, once and for ever.

A case is played on the plane as it is used (retrying, limited). What must come out is in the table, and in every case:

- success means the bytes that were asked for, and nothing else of this case in the store;
- an error is one of `planes.errors`, and after the clean-up that a caller does anyway (leaving the upload, `discard`)
  nothing of this case is left, neither an object nor an open upload.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from planes import checksum
from planes.errors import Error, NotFound, Unavailable
from planes.plane import KIB, MIB, Extent, Plane, Ticket
from planes.retrying import Patience
from tests.doubles import proxy

SOURCE = random.Random(8).randbytes(6 * MIB + 77)
SMALL = SOURCE[: 40 * KIB]
ATTEMPT = "u-1"


class Clock:
    """Time passes when somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def patience() -> Patience:
    """Three attempts, none of which waits."""
    clock = Clock()
    return Patience(attempts=3, seconds=0, throttled=20, sleep=clock.sleep, clock=clock)


class Site(Protocol):
    """A provider under test."""

    plane: Plane
    """Decorated, behind `between`."""
    between: proxy.Proxy
    requests: Mapping[str, Mapping[str, str]]
    """By verb: the arguments of `Proxy.once` that match the request which does the work."""
    source: str
    """The key of an object that holds SOURCE."""

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there, seen behind the proxy."""
        ...

    def open_uploads(self, prefix: str) -> list[str]:
        """Keys of open uploads, seen behind the proxy."""
        ...


@dataclass(slots=True)
class Case:
    """One cell of the table while it is played."""

    site: Site
    folder: str
    fault: Fault
    always: bool
    expected: dict[str, bytes] = field(default_factory=dict)
    """What must lie in the folder if all goes well."""

    @property
    def plane(self) -> Plane:
        """The plane under test."""
        return self.site.plane

    @property
    def key(self) -> str:
        """Where the case writes: a generation folder, whose open uploads are ours."""
        return f"{self.folder}/~g/f"

    @contextlib.contextmanager
    def trouble(self, verb: str) -> Iterator[None]:
        """The fault is there, for the requests of a verb."""
        self.fault.arm(self.site.between, self.site.requests[verb], self.always)
        try:
            yield
        finally:
            self.site.between.clear()

    async def ticket(self) -> Ticket:
        """Of the source."""
        ticket = self.plane.copy_ticket(await self.plane.stat(self.site.source))
        assert ticket is not None
        return ticket


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at a request; `then` is what goes wrong at requests after it."""

    does: proxy.Fault
    once: type[Error] | None = None
    """The error after the fault came once; None for success."""
    always: type[Error] | None = Unavailable
    """The error if it comes every time."""
    verbs: frozenset[str] = frozenset()
    """The verbs that it can happen to; none for all."""
    then: tuple[tuple[proxy.Fault, str], ...] = ()
    """Each with the HTTP method that it is for."""

    def arm(self, between: proxy.Proxy, where: Mapping[str, str], always: bool) -> None:
        """Put it between."""
        (between.always if always else between.once)(self.does, **where)
        for fault, method in self.then:
            between.once(fault, **{**where, "method": method} if method == where.get("method") else {"method": method})


# --- verbs


async def stat(case: Case) -> None:
    with case.trouble("stat"):
        assert (await case.plane.stat(case.site.source)).size == len(SOURCE)


async def list_(case: Case) -> None:
    folder = case.site.source.rpartition("/")[0]
    with case.trouble("list"):
        assert [info.key async for info in case.plane.list(folder)] == [case.site.source]


async def read(case: Case) -> None:
    info = await case.plane.stat(case.site.source)
    into = bytearray(3 * MIB)
    with case.trouble("read"):
        await case.plane.read(Extent(info.key, info.version, 1000, 1000 + len(into)), memoryview(into))
    assert into == SOURCE[1000 : 1000 + len(into)]


async def stream(case: Case) -> None:
    info = await case.plane.stat(case.site.source)
    taken = bytearray()
    with case.trouble("read"):
        await case.plane.stream(Extent(info.key, info.version, 5, 5 + 2 * MIB), taken.extend)
    assert taken == SOURCE[5 : 5 + 2 * MIB]


async def put(case: Case) -> None:
    with case.trouble("put"):
        receipt = await case.plane.put(case.key, SMALL, upload_id=ATTEMPT)
    assert receipt.crc64nvme == checksum.compute(SMALL)
    case.expected[case.key] = SMALL


async def copy(case: Case) -> None:
    ticket = await case.ticket()
    with case.trouble("copy"):
        receipt = await case.plane.copy(case.key, ticket, upload_id=ATTEMPT)
    assert receipt.crc64nvme in {None, checksum.compute(SOURCE)}
    case.expected[case.key] = SOURCE


async def begin(case: Case) -> None:
    with case.trouble("begin"):
        upload = await case.plane.upload(case.key, upload_id=ATTEMPT)
    # Where an answer was lost, two were begun. The one nobody knows is found by `discard` alone.
    await upload.abort()
    await case.plane.discard(case.key, ATTEMPT)


async def put_step(case: Case) -> None:
    async with await case.plane.upload(case.key, upload_id=ATTEMPT) as upload:
        with case.trouble("put_step"):
            step = await upload.put(1, 0, SMALL, checksum.compute(SMALL))
        await upload.commit([step], len(SMALL), checksum.compute(SMALL))
    case.expected[case.key] = SMALL


async def copy_step(case: Case) -> None:
    ticket = await case.ticket()
    async with await case.plane.upload(case.key, upload_id=ATTEMPT) as upload:
        with case.trouble("copy_step"):
            first = await upload.copy(1, 0, ticket, 3, 3 + 5 * MIB)
        last = await upload.put(2, 5 * MIB, SMALL)
        whole = SOURCE[3 : 3 + 5 * MIB] + SMALL
        await upload.commit([first, last], len(whole), checksum.compute(whole))
    case.expected[case.key] = whole


async def commit(case: Case) -> None:
    async with await case.plane.upload(case.key, upload_id=ATTEMPT) as upload:
        step = await upload.put(1, 0, SMALL)
        with case.trouble("commit"):
            made = await upload.commit([step], len(SMALL), checksum.compute(SMALL))
    assert (made.key, made.size) == (case.key, len(SMALL))
    case.expected[case.key] = SMALL


async def abort(case: Case) -> None:
    upload = await case.plane.upload(case.key, upload_id=ATTEMPT)
    await upload.put(1, 0, SMALL)
    with case.trouble("abort"):
        await upload.abort()


async def discard(case: Case) -> None:
    await case.plane.put(case.key, SMALL, upload_id=ATTEMPT)
    with case.trouble("delete"):
        await case.plane.discard(case.key, ATTEMPT)


async def delete(case: Case) -> None:
    await case.plane.put(case.key, SMALL, upload_id=ATTEMPT)
    with case.trouble("delete"):
        await case.plane.delete(case.key)


VERBS: Mapping[str, Callable[[Case], Awaitable[None]]] = {
    "stat": stat,
    "list": list_,
    "read": read,
    "stream": stream,
    "put": put,
    "copy": copy,
    "begin": begin,
    "put_step": put_step,
    "copy_step": copy_step,
    "commit": commit,
    "abort": abort,
    "discard": discard,
    "delete": delete,
}


# --- playing


async def play(site: Site, verb: str, name: str, fault: Fault, *, always: bool) -> Error | None:
    """Play one case; the error that came of it. Fails where bytes are wrong or something is left behind."""
    case = Case(site, f"{verb}/{name}/{'always' if always else 'once'}", fault, always)
    failure: Error | None = None
    try:
        await VERBS[verb](case)
    except Error as error:
        failure = error
        await case.plane.discard(case.key, ATTEMPT)
        with contextlib.suppress(NotFound):
            await case.plane.delete(case.key)  # what the case had put there before
        case.expected.clear()
    assert site.objects(case.folder) == case.expected
    assert site.open_uploads(case.folder) == []
    return failure
