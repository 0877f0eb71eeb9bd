"""An object in the making on a posix plane, step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from typing_extensions import Buffer

from planes.checksum import combine_all
from planes.errors import Corrupt, Error
from planes.pack import must_have
from planes.plane import Info, Presign, StepReceipt, Take, Ticket
from planes.posix_copy import Proof
from planes.posix_draft import Draft
from planes.posix_site import Site
from planes.threads import Stop, Threads


class PosixUpload:
    """A hidden file that is written at offsets; what its verbs promise is said in `planes.plane`."""

    def __init__(self, site: Site, threads: Threads, copiers: Threads, draft: Draft) -> None:
        self._site = site
        self._threads = threads
        self._copiers = copiers
        self._draft = draft
        self._committed = False

    @property
    def token(self) -> str:
        """Key, id and inode of the hidden file."""
        return self._draft.token

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Write a step and read it back."""

        def work(stop: Stop) -> Proof:
            with self._site.writing(self._draft) as fd:
                return self._site.mover.put(data, fd, offset, crc64nvme, stop)

        return receipt(number, await self._threads.run(work))

    async def pour(self, number: int, offset: int, size: int, stream: Callable[[Take], Awaitable[None]]) -> StepReceipt:
        """Write a step in the thread that reads it."""
        proof = self._site.mover.begun()
        with ExitStack() as stack:
            fd = await self._threads.run(lambda _: stack.enter_context(self._site.writing(self._draft)))

            def take(data: memoryview) -> None:
                with self._site.tree.translating("write", self._draft.key):
                    self._site.mover.append(data, fd, offset, proof)

            await stream(take)
        must_have(self._draft.key, number, proof.size, size)
        return receipt(number, proof)

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Let the kernel copy a step, and read both sides; `url` is not needed."""
        del url

        def work(stop: Stop) -> Proof:
            with self._site.writing(self._draft) as fd:
                return self._site.redeem(ticket, start, end, fd, offset, stop)

        return receipt(number, await self._copiers.run(work))

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Give the file its name."""
        must_fit(self._draft.key, steps, size, crc64nvme)
        found = await self._threads.run(lambda _: self._site.commit(self._draft, size))
        self._committed = True
        return found

    async def made(self) -> Info | None:
        """The file of that name, if it is the one that was begun as hidden."""
        return await self._threads.run(lambda _: self._site.made(self._draft))

    async def abort(self) -> None:
        """Remove the hidden file."""
        await self._threads.run(lambda _: self._site.abort(self._draft))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed:
            return
        try:
            await self.abort()
        except Error as left:
            if error is None:
                raise
            error.add_note(f"moreover: {left.message}")  # the first error is the one to report


def receipt(number: int, proof: Proof) -> StepReceipt:
    """What was proved about one step."""
    return StepReceipt(number, proof.size, proof.target, compared=proof.compared, bytes_checked=proof.checked)


def must_fit(key: str, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> None:
    """See that the steps make up the object that the caller expects.

    Raises:
        Corrupt: their sizes or their checksums do not.
    """
    found = sum(s.size for s in steps)
    if found != size:
        msg = f"the steps of {key} have {found} bytes instead of {size}"
        raise Corrupt(msg, key=key, found=str(found), expected=str(size))
    composed = combine_all((s.crc64nvme, s.size) for s in sorted(steps, key=lambda s: s.number))
    if crc64nvme is not None and composed is not None and composed != crc64nvme:
        msg = f"the steps of {key} have checksum {composed:016x} instead of {crc64nvme:016x}"
        raise Corrupt(msg, key=key, found=f"{composed:016x}", expected=f"{crc64nvme:016x}")
