"""Block blobs in a container of Azure Blob Storage as a plane.

Every request is sent once: retries are made around the plane, where it is known what may be repeated. Writes carry the
id of their attempt and, as soon as it is known, the checksum of the whole in the blob's metadata, and a doubtful answer
is settled by looking at the blob. Azure keeps no checksum of a whole blob by itself: the one in the metadata is a claim
of its writer, composed from what the service said of each block.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace as changed
from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import BlobProperties
from typing_extensions import Buffer

from planes import azure_read, azure_source, checksum
from planes.azure_connection import ATTEMPT, KIND, PATIENT, Connection, bare, info_of, is_dropped, pin
from planes.azure_direct import AzureSigning
from planes.azure_errors import Asked, doubtful
from planes.azure_settings import MAX_STEP, MAX_STEPS, AzureSettings
from planes.azure_upload import AzureUpload, Target
from planes.errors import AlreadyExists, Changed, Error, Unavailable
from planes.left_out import Tell
from planes.plane import KIB, MIB, Capabilities, Extent, Info, Limits, Presign, StepReceipt, Ticket, Unfinished
from planes.threads import Stop

__all__ = ["AzurePlane", "AzureSettings"]

_PAGE: Final = 1000
_METADATA: Final = 8 * KIB
_SINGLE_PUT: Final = 4 * MIB  # the SDK copies what one request writes whole, but sends blocks from where they lie
_FOLDER: Final = "hdi_isfolder"  # metadata of what accounts with folders list beside the blobs


class AzurePlane:
    """A `planes.plane.Plane`; connects at the first call, so that a wrong setting hurts only those who use it."""

    def __init__(self, name: str, settings: AzureSettings) -> None:
        self._name = name
        self._settings = settings
        self._connection = Connection(name, settings)

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        return self._name

    @property
    def limits(self) -> Limits:
        """Azure's bounds."""
        return Limits(
            min_step=1,
            max_step=MAX_STEP,
            max_steps=MAX_STEPS,
            max_object=MAX_STEPS * MAX_STEP,
            put_size=self._settings.put_size,
            copy_size=self._settings.copy_size,
            min_copy_source=0,
            single_put=min(self._settings.put_size, _SINGLE_PUT),
            whole_copy=MAX_STEP,
        )

    @property
    def capabilities(self) -> Capabilities:
        """The same for every account."""
        kinds, direct = frozenset({"crc64nvme"}), self._settings.direct
        return Capabilities(kinds, atomic_create=True, shared=True, metadata=_METADATA, direct=direct)

    async def stat(self, key: str) -> Info:
        """Facts about one object.

        Raises:
            NotFound: it is not there.
            Missing: its container is not there.
        """
        return await self._connection.head(key, Asked("find", key))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Objects in byte order of their keys, a page at a time."""
        del left_out
        async for info in self._listed(prefix, after, ["metadata"]):
            yield info

    async def _listed(self, prefix: str, after: str, include: Sequence[str]) -> AsyncIterator[Info]:
        connection, root = self._connection, self._settings.prefix
        full, asked = connection.full_prefix(prefix), Asked("list", prefix)
        begin: Any = {"start_from": root + after} if after else {}
        pages: list[Iterator[Iterator[BlobProperties]]] = []

        def turn(_: Stop) -> list[BlobProperties] | None:
            if not pages:
                found = connection.client().list_blobs(
                    full or None, include=[*include], results_per_page=_PAGE, **begin
                )
                pages.append(found.by_page())
            page = next(pages[0], None)
            return None if page is None else list(page)

        while (page := await connection.work(turn, asked)) is not None:
            for each in page:
                info = info_of(str(each.name).removeprefix(root), each)
                is_object = not is_dropped(info) and info.metadata.get(_FOLDER) != "true"
                # A folder itself may be an object; and not every service begins where it is told to.
                if info.key and is_object and info.key.encode() > after.encode():
                    yield info

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Fill `into` with the extent's bytes, in one request, from the socket into the buffer.

        Raises:
            Changed: the object has another version, or has vanished.
            NotFound: it is not there, and no version was asked for.
            OutOfRange: it is shorter.
            Unavailable: the answer broke off.
        """
        if len(into) != extent.size:
            msg = f"a buffer of {len(into)} bytes for an extent of {extent.size}"
            raise ValueError(msg)
        await azure_read.read(self._connection, extent, lambda done, size: into[done : done + size], lambda _: None)

    async def stream(self, extent: Extent, take: Callable[[memoryview], None]) -> None:
        """Hand the bytes of an extent to `take`, in order, slice by slice, in a thread of the plane's own.

        Raises as `read` does, and what `take` raises.
        """
        held = memoryview(bytearray(min(azure_read.SLICE, extent.size)))
        await azure_read.read(self._connection, extent, lambda _, size: held[:size], take)

    async def put(
        self,
        key: str,
        data: Buffer,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> StepReceipt:
        """Write a whole object in one request; repeated with the same `upload_id` it replaces its own.

        Raises:
            AlreadyExists: the key is taken by another attempt and `replace` is false.
            Corrupt: the service received other bytes.
        """
        target = Target(key, upload_id, replace, content_type, metadata or {})
        view = memoryview(data).cast("B")
        crc = checksum.compute(view)
        try:
            return await self._send(target, view, crc, target.condition)
        except Error as doubt:
            if not doubtful(doubt):
                raise
            found = await self._connection.look(key)
            if found is not None and target.is_met_by(found, len(view), crc):
                return StepReceipt(1, len(view), crc, found.version, compared=True)
            if not isinstance(doubt, AlreadyExists):
                raise
            if found is None:
                words = "another write of it was under way and came to nothing"
                raise self._connection.error(Unavailable, key, words) from None
            if found.metadata.get(ATTEMPT) != upload_id and not is_dropped(found):
                raise
        return await self._send(target, view, crc, pin(found.version))

    async def _send(self, target: Target, view: memoryview, crc: int, condition: Any) -> StepReceipt:
        """One Put Blob; its checksum travels with it and the service refuses other bytes."""
        full = self._connection.new(target.key)
        proof = {"x-ms-content-crc64": base64.b64encode(checksum.to_azure(crc)).decode()}
        described = target.described(len(view), crc)
        is_pinned = condition.get("match_condition") == MatchConditions.IfNotModified
        asked = Asked("put", target.key, precondition=Changed if is_pinned else AlreadyExists)
        answer = await self._connection.ask(
            lambda client: client.get_blob_client(full).upload_blob(
                bytes(view),
                length=len(view),
                overwrite=target.replace or is_pinned,
                metadata=described,
                content_settings=target.content,
                headers=proof,
                **(condition if is_pinned else {}),
                **PATIENT,
            ),
            asked,
        )
        return StepReceipt(1, len(view), crc, bare(answer["etag"]), compared=True)

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """Let Azure copy a whole object: as one block, because a block is answered with its checksum.

        (Copy Blob From URL and Put Blob From URL are one request, but say nothing of what they copied.)

        Raises:
            AlreadyExists: the key is taken by another attempt and `replace` is false.
            Changed: the source has another version now, or has vanished.
        """
        self._connection.new(key)
        asked = Asked("copy a whole object to", key, absent=Changed)
        address = await azure_source.address(self._connection, ticket, url, asked)
        if not replace:  # a block that is put before this is known would wait for a week at a stranger's blob
            found = await self._connection.look(key)
            if found is not None and found.metadata.get(ATTEMPT) == upload_id and found.size == ticket.size:
                return StepReceipt(1, found.size, found.checksums.get("crc64nvme"), found.version)
            if found is not None and not is_dropped(found):
                raise self._connection.error(AlreadyExists, key, "an object with this key exists")
        facts = await azure_source.look_through(self._connection, address, ticket, asked)

        async def known() -> str:
            return address

        async with await self.upload(
            key, upload_id=upload_id, replace=replace, content_type=facts.content_type, metadata=facts.metadata
        ) as upload:
            receipt = await upload.copy(1, 0, ticket, 0, ticket.size, known)
            done = await upload.commit([receipt], ticket.size, receipt.crc64nvme)
        return changed(receipt, etag=done.version)

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> AzureUpload:
        """Begin an object in steps; asks the service nothing. CRC64NVME is kept of it, whatever `kind` says."""
        del kind
        self._connection.new(key)
        return AzureUpload(self._connection, Target(key, upload_id, replace, content_type, metadata or {}))

    def resume(self, token: str) -> AzureUpload:
        """The upload of a token."""
        return AzureUpload.from_token(self._connection, token)

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt left: its blocks, which carry its id, and the object that it has written."""
        await AzureUpload(self._connection, Target(key, upload_id, replace=False)).abort()
        found = await self._connection.look(key)
        if found is not None and found.metadata.get(ATTEMPT) == upload_id:
            await self._connection.delete(key, only=found.version)

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """Names at which blocks wait but no blob is; the ids of blocks tell only who asks whether they are its own."""
        async for info in self._listed(prefix, "", ["metadata", "uncommittedblobs"]):
            upload = AzureUpload(self._connection, Target(info.key, "", replace=False))
            if info.size == 0 and await upload.waits():
                yield Unfinished(info.key)

    async def drop(self, one: Unfinished) -> bool:
        """Forget the blocks of an attempt, if they are its own and no blob is there."""
        return await AzureUpload(self._connection, Target(one.key, one.attempt, replace=False)).drop()

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete an object; no error if it is not there."""
        await self._connection.delete(key, only=version)

    def copy_ticket(self, info: Info) -> Ticket | None:
        """The object's address, for Azure and whoever else can fetch from it."""
        where = {"container": self._settings.container, "blob": self._connection.full(info.key)}
        return Ticket(KIND, self._connection.account.url, where, info.version, info.size)

    def accepts(self, ticket: Ticket) -> bool:
        """Whether Azure can hope to fetch it by itself."""
        return azure_source.accepts(self._connection, ticket)

    async def presign(self, ticket: Ticket) -> str:
        """An address by which whoever holds it can read the ticket's object for a quarter of an hour."""
        where, asked = ticket.location, Asked("sign for a copy of", ticket.location.get("blob", ""))
        return await self._connection.work(
            lambda _: self._connection.account.signed(where["container"], where["blob"]), asked
        )

    def signing(self) -> AzureSigning:
        """Who signs requests for nodes."""
        return AzureSigning(self._connection)

    async def aclose(self) -> None:
        """Close connections and let the threads go."""
        self._connection.close()
