"""A block blob in the making: blocks put or copied by Azure, made visible by one Put Block List.

Blocks wait, unseen, at the blob itself. Their ids name the attempt, so that nobody's blocks are taken for another's.
Azure answers each block with its CRC64 (which is CRC64NVME) and checks nothing of the whole: what the answers compose
to is compared here, before the commit, and written into the metadata with it.

A doubtful answer (a lost one, 409, 5xx) is never taken for a verdict: the blob is looked at, and the upload has
succeeded if what lies there carries this attempt's id, the expected checksum and the expected size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient, BlockState, ContainerClient, ContentSettings
from typing_extensions import Buffer

from planes import azure_source, checksum
from planes.azure_connection import ATTEMPT, CRC, DROPPED, PATIENT, SIZE, Connection, bare, is_dropped, named, pin
from planes.azure_errors import Asked, doubtful
from planes.azure_settings import MAX_STEPS
from planes.errors import AlreadyExists, Changed, Corrupt, Error, NotFound, OutOfRange, Unavailable, Unsupported
from planes.plane import Info, Presign, StepReceipt, Ticket

_BINARY = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Target:
    """A blob to be written: where, by which attempt, over what, described how."""

    key: str
    attempt: str
    replace: bool
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def described(self, size: int, crc64nvme: int | None) -> dict[str, str]:
        """Its metadata: the caller's, and who wrote it and what was proved of it."""
        proof = {} if crc64nvme is None else {CRC: checksum.to_s3(crc64nvme), SIZE: str(size)}
        return {**named(self.metadata), ATTEMPT: self.attempt, **proof}

    @property
    def content(self) -> ContentSettings:
        """Its content type, in the SDK's words."""
        return ContentSettings(content_type=self.content_type or _BINARY)

    @property
    def condition(self) -> dict[str, Any]:
        """The arguments that protect what is there."""
        return {} if self.replace else {"match_condition": MatchConditions.IfMissing}

    def is_met_by(self, found: Info, size: int, crc64nvme: int | None) -> bool:
        """Whether this attempt has written it, whole."""
        proved = crc64nvme is None or found.checksums.get("crc64nvme") == crc64nvme
        return found.metadata.get(ATTEMPT) == self.attempt and found.size == size and proved


class AzureUpload:
    """One upload; any process may hold it by its token."""

    def __init__(self, connection: Connection, target: Target) -> None:
        self._connection = connection
        self._target = target
        self._full = connection.full(target.key)
        self._mine = f"cropduster-{hashlib.sha256(target.attempt.encode()).hexdigest()[:32]}-"
        self._committed = False
        self._aborted = False

    @classmethod
    def from_token(cls, connection: Connection, token: str) -> Self:
        """The upload that `token` names."""
        named = json.loads(token)
        described = named["content_type"], named["metadata"]
        return cls(connection, Target(named["key"], named["attempt"], named["replace"], *described))

    @property
    def token(self) -> str:
        """Text for `from_token`; JSON without any credential."""
        target = self._target
        return json.dumps(
            {
                "key": target.key,
                "attempt": target.attempt,
                "replace": target.replace,
                "content_type": target.content_type,
                "metadata": dict(target.metadata),
            }
        )

    def block(self, number: int) -> str:
        """The id of a block: all of a blob have the same length."""
        if not 1 <= number <= MAX_STEPS:
            raise self._error(OutOfRange, f"step {number}: a blob has steps 1 to {MAX_STEPS}")
        return f"{self._mine}{number:05d}"

    @property
    def key(self) -> str:
        """What it is to become."""
        return self._target.key

    def _check_open(self) -> None:
        if self._aborted:
            raise self._error(NotFound, "its upload was aborted")

    def _blob(self, client: ContainerClient) -> BlobClient:
        return client.get_blob_client(self._full)

    async def put(self, number: int, offset: int, data: Buffer, crc64nvme: int | None = None) -> StepReceipt:
        """Send `data` as step `number`; its checksum travels with it and the service refuses other bytes.

        Blocks are put in order by the commit, so `offset` is not needed.

        Raises:
            Corrupt: the service received other bytes than `crc64nvme` says.
        """
        del offset
        self._check_open()
        view, name = memoryview(data).cast("B"), self.block(number)
        asked = Asked(f"put step {number} of", self._target.key)

        def call(client: ContainerClient) -> tuple[int, int | None]:
            crc = checksum.compute(view) if crc64nvme is None else crc64nvme
            body: Any = view  # sent as it is, whatever the SDK's types say
            proof = checksum.to_azure(crc)
            answer = self._blob(client).stage_block(name, body, len(view), transactional_content_crc64=proof)
            return crc, _said(answer)

        if not len(view):  # Azure has no empty blocks
            if crc64nvme:
                raise self._error(Corrupt, f"step {number} is empty, and its checksum is not that of nothing")
            return StepReceipt(number, 0, 0, compared=True)
        crc, said = await self._connection.ask(call, asked)
        if said is not None and said != crc:
            raise self._error(Corrupt, f"the service holds another checksum for step {number} than was sent")
        return StepReceipt(number, len(view), crc, compared=said is not None)

    async def pour(
        self, number: int, offset: int, size: int, stream: Callable[[Callable[[memoryview], None]], Awaitable[None]]
    ) -> StepReceipt:
        """Azure wants a step's checksum before its bytes: raises Unsupported."""
        del offset, size, stream
        raise self._error(Unsupported, f"step {number} is sent whole, not while it is read")

    async def copy(
        self, number: int, offset: int, ticket: Ticket, start: int, end: int, url: Presign | None = None
    ) -> StepReceipt:
        """Let Azure fetch bytes [start, end) of the ticket's object as step `number`.

        Raises:
            Changed: the source has another version now, or has vanished.
            OutOfRange: the source has no such bytes.
            Unsupported: Azure cannot reach the source, or does not say what it copied.
        """
        del offset
        self._check_open()
        name = self.block(number)
        if not 0 <= start <= end <= ticket.size:
            raise self._error(OutOfRange, f"bytes {start} to {end} of a source of {ticket.size} bytes")
        asked = Asked(f"copy a part of {_name(ticket)!r} to", self._target.key, absent=Changed)
        source = await azure_source.address(self._connection, ticket, url, asked)
        if start == end:
            await azure_source.look_through(self._connection, source, ticket, asked)
            return StepReceipt(number, 0, 0)
        pinned = {"x-ms-source-if-match": f'"{ticket.version}"'} if azure_source.is_azures(ticket) else {}

        def call(client: ContainerClient) -> int | None:
            more: Any = {"source_offset": start, "source_length": end - start, "headers": pinned, **PATIENT}
            return _said(self._blob(client).stage_block_from_url(name, source, **more))

        said = await self._connection.ask(call, asked)
        if said is None:
            raise self._error(Unsupported, f"the service does not say the checksum of step {number}: read and put it")
        if not azure_source.is_pinned(ticket):
            await azure_source.look_through(self._connection, source, ticket, asked)
        return StepReceipt(number, end - start, said)

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Make the blob visible from its steps, which together must be `size` bytes with this checksum.

        Raises:
            AlreadyExists: the key is taken and the upload was opened with `replace=False`.
            Changed: another writer replaced the blob, or dropped the blocks.
            Corrupt: size or checksum is another; nothing became visible.
        """
        self._check_open()
        ordered = sorted((step for step in steps if step.size), key=lambda step: step.number)
        expected = self._expected(ordered, size, crc64nvme)
        try:
            if not await self._are_stored(ordered):
                raise self._error(NotFound, "blocks of it are gone: another write of the same blob has dropped them")
            return await self._publish(ordered, size, expected, self._target.condition)
        except Error as doubt:
            if not doubtful(doubt):
                raise
            found = await self._connection.look(self._target.key)
            if found is None or not is_dropped(found):
                return self._settle(found, size, expected, doubt)
            dropped = found.version
        return await self._publish(ordered, size, expected, pin(dropped))  # in place of what a broken-off abort left

    async def _publish(
        self, ordered: Sequence[StepReceipt], size: int, crc64nvme: int | None, condition: Mapping[str, Any]
    ) -> Info:
        """Ask the service to put the blocks together; what it answers is not settled here."""
        target = self._target
        described = target.described(size, crc64nvme)
        blocks = [BlobBlock(self.block(step.number), state=BlockState.UNCOMMITTED) for step in ordered]

        def call(client: ContainerClient) -> Mapping[str, Any]:
            more: Any = {"metadata": described, "content_settings": target.content, **condition, **PATIENT}
            return self._blob(client).commit_block_list(blocks, **more)

        answer = await self._connection.ask(call, Asked("commit", target.key, precondition=AlreadyExists))
        self._committed = True
        return Info(
            key=target.key,
            size=size,
            version=bare(answer["etag"]),
            modified=answer["last_modified"],
            checksums={} if crc64nvme is None else {"crc64nvme": crc64nvme},
            content_type=target.content_type or _BINARY,
            metadata=described,
        )

    def _expected(self, ordered: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> int | None:
        """The checksum of the whole, if it is known."""
        total = sum(step.size for step in ordered)
        if total != size:
            raise self._error(Corrupt, f"its steps are {total} bytes together instead of {size}")
        composed = checksum.combine_all((step.crc64nvme, step.size) for step in ordered)
        if composed is None:
            return crc64nvme
        if crc64nvme is not None and composed != crc64nvme:
            words = f"{checksum.to_hex(composed)} instead of {checksum.to_hex(crc64nvme)}"
            raise self._error(Corrupt, f"its steps have CRC64NVME {words} together")
        return composed

    async def _are_stored(self, ordered: Sequence[StepReceipt]) -> bool:
        """Whether the service holds every block; raises Corrupt if one has another size than its receipt."""
        if not ordered:
            # Nothing would be missed if this were a second commit, and it would make another version of an empty blob.
            found = await self._connection.look(self._target.key)
            return found is None or not self._target.is_met_by(found, 0, 0)
        there = await self._blocks() or {}
        for step in ordered:
            stored = there.get(self.block(step.number), step.size)
            if stored != step.size:
                words = f"the service holds {stored} bytes for step {step.number} instead of {step.size}"
                raise self._error(Corrupt, words)
        return all(self.block(step.number) in there for step in ordered)

    async def _blocks(self) -> dict[str, int] | None:
        """The blocks that wait at the blob, by id, with their sizes; None if there is neither blob nor block."""
        asked = Asked("list the blocks of", self._target.key)
        try:
            _, waiting = await self._connection.ask(lambda c: self._blob(c).get_block_list("uncommitted"), asked)
        except NotFound:
            return None
        return {str(block.id): int(block.size) for block in waiting}

    def _settle(self, found: Info | None, size: int, crc64nvme: int | None, doubt: Error) -> Info:
        """The facts of the blob if it is ours and whole, whatever the service answered; else raises why it is not."""
        if found is not None and self._target.is_met_by(found, size, crc64nvme):
            self._committed = True
            return found
        if found is None and isinstance(doubt, AlreadyExists):
            raise self._error(Unavailable, "another write of it was under way and came to nothing")
        if found is not None and isinstance(doubt, NotFound):
            kind = Changed if self._target.replace else AlreadyExists
            raise self._error(kind, "its blocks are gone, and another writer's object holds the key")
        raise doubt

    async def made(self) -> Info | None:
        """The blob, if its metadata names this attempt."""
        found = await self._connection.look(self._target.key)
        is_ours = found is not None and found.metadata.get(ATTEMPT) == self._target.attempt and not is_dropped(found)
        return found if is_ours else None

    async def abort(self) -> None:
        """Make the service forget this attempt's blocks, where that touches nothing of others.

        Azure can't drop single blocks: any commit of the blob drops all that wait. So where no blob is there and all
        that wait are ours, an empty one is committed and deleted at once (our listings don't show it). Blocks at
        somebody else's blob, or beside somebody else's blocks, stay: nobody sees them, and Azure forgets them with the
        next write of that blob, or after a week.
        """
        await self.drop()

    async def waits(self) -> bool:
        """Whether blocks wait at its name, anybody's."""
        return bool(await self._blocks())

    async def drop(self) -> bool:
        """Do what `abort` does; returns whether blocks of this attempt are gone by it."""
        self._aborted = True
        waiting = await self._blocks()
        if waiting is None:
            return False
        found = await self._connection.look(self._target.key)
        if found is not None and is_dropped(found) and not waiting:  # what an earlier abort left that broke off
            await self._connection.delete(self._target.key, only=found.version)
        if found is not None or not waiting or not all(name.startswith(self._mine) for name in waiting):
            return False
        marked: Any = {"metadata": {ATTEMPT: self._target.attempt, DROPPED: "1"}}
        marked["match_condition"] = MatchConditions.IfMissing
        asked = Asked("abort the upload of", self._target.key, precondition=AlreadyExists)
        try:
            answer = await self._connection.ask(lambda c: self._blob(c).commit_block_list([], **marked), asked)
        except AlreadyExists:  # a racing writer's commit has dropped our blocks, or this came twice
            there = await self._connection.look(self._target.key)
            if there is None or not is_dropped(there):
                return True
            mark = there.version
        else:
            mark = bare(str(answer["etag"]))
        await self._connection.delete(self._target.key, only=mark)
        return True

    def _error(self, kind: type[Error], words: str) -> Error:
        return self._connection.error(kind, self._target.key, words)

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


def _said(answer: Mapping[str, Any]) -> int | None:
    """The checksum in the answer to a block, if there is one."""
    said = answer.get("content_crc64")
    return None if said is None else checksum.from_azure(said)


def _name(ticket: Ticket) -> str:
    return ticket.location.get("blob", ticket.location.get("key", ""))
