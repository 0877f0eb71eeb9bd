"""One writer: blocks as long as there are any, and its figures."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from os import getpid

from fileserver.hdf5.bench.claims import Claim, Claims
from fileserver.hdf5.bench.field import Block
from fileserver.hdf5.bench.site import WRITER_LENGTH, Site
from planes.errors import Error
from planes.threads import cleaned_up


@dataclass(frozen=True, slots=True)
class Written:
    """One block."""

    number: int
    block: Block
    start: float
    """Seconds since 1970."""
    seconds: float
    counted: bool
    """False: another writer took it from us meanwhile, and it counts there."""


@dataclass(slots=True)
class Figures:
    """Of one writer."""

    writer: str
    blocks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Of all writes, without claims, making of values and waiting."""
    overtaken: int = 0
    """Blocks that were taken from it while it wrote them."""
    taken_over: int = 0
    """Blocks that it took from writers who showed no sign of life."""
    start: float = field(default_factory=time.time)
    end: float = 0.0
    """When its last block was written; both are seconds since 1970."""
    flush_seconds: float = 0.0
    """From then until all was stored."""


def name() -> str:
    """A name for a writer: host, process and something of its own."""
    own = f":{getpid()}:{secrets.token_hex(4)}"
    host = socket.gethostname().encode("ascii", "replace").decode().replace('"', "").replace("'", "")
    return host[: WRITER_LENGTH - len(own)] + own


async def write(
    site: Site, claims: Claims, told: Callable[[Written], None], *, most: int = 0, wait: bool = True
) -> Figures:
    """Write blocks until all are done.

    Args:
        site: where.
        claims: of this writer.
        told: gets every block that was written.
        most: blocks to write at most; 0 for no bound.
        wait: with all blocks taken, wait for their writers, so as to write what those leave behind.

    Raises:
        Throttled, Unavailable, Refused: the server, see `Connection.call`; our blocks were given back where possible.
    """
    figures = Figures(claims.writer)
    try:
        async with _living(claims):
            while (not most or figures.blocks < most) and (held := await _next(claims, figures, wait=wait)):
                for claim in held:
                    await _block(site, claims, claim, figures, told)
    finally:
        await cleaned_up(claims.release())  # the lease does it too, if later
    began = time.monotonic()
    await site.flush()
    figures.flush_seconds = time.monotonic() - began
    return figures


async def _next(claims: Claims, figures: Figures, *, wait: bool) -> Sequence[Claim]:
    while True:
        if held := await claims.take():
            return held
        held, others = await claims.take_over(time.monotonic())
        if held:
            figures.taken_over += len(held)
            return held
        if not others or not wait:
            return []
        await asyncio.sleep(min(1.0, claims.pause))  # nobody tells us when another writer is done


async def _block(site: Site, claims: Claims, claim: Claim, figures: Figures, told: Callable[[Written], None]) -> None:
    block = site.field.block(claim.number)
    values = site.field.values(block)
    start, began = time.time(), time.monotonic()
    await site.write(block, values)
    seconds = time.monotonic() - began
    counted = await claims.done(claim, start, seconds)
    if counted:
        figures.blocks += 1
        figures.bytes += block.size
        figures.seconds += seconds
        figures.end = start + seconds
    else:
        figures.overtaken += 1
    told(Written(claim.number, block, start, seconds, counted))


@asynccontextmanager
async def _living(claims: Claims) -> AsyncIterator[None]:
    """Signs of life meanwhile; one that does not get through is followed by the next."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(claims.pause)
            with suppress(Error):
                await claims.beat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
