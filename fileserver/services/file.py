"""FileService: validate, call, answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fileserver.auth import caller
from fileserver.catalogue import files
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec, refuse
from fileserver.rules import Thing, Verb
from fileserver.services.format_shapes import format_of
from fileserver.services.shapes import file_message, location_of, part_message, replica_message
from fileserver.services.transfer import fitting, page_size
from fileserver.transfer import manifest_rows
from fileserver.transfer.custody import Custody
from fileserver.v1 import file_pb2 as pb
from fileserver.v1 import transfer_pb2
from fileserver.v1.file_pb2_grpc import FileServiceServicer
from planes.plane import Info

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def _after(token: str, file: files.LogicalFile) -> int:
    """The number of the part behind which a page begins.

    Raises:
        InvalidSpec: the token is none of ours.
        Changed: it is of a file that had this name before.
    """
    if not token:
        return 0
    generation, _, number = token.partition(" ")
    if not number.isdecimal():
        msg = "the page token is not one of ours; start again without it"
        raise InvalidSpec(msg, {"page_token": msg})
    if generation != file.generation:
        raise files.replaced(file.name)
    return int(number)


class FileServicer(FileServiceServicer):
    """The catalogue on the wire."""

    def __init__(self, custody: Custody, planes: Configured) -> None:
        self._custody = custody
        self._planes = planes

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> pb.GetFileResponse:
        """One file with its parts, all or a page of them."""
        catalogue = self._custody.catalogue
        file = await catalogue.get(request.name)
        after = _after(request.page_token, file)
        first, *others = await catalogue.copies(file.generation)
        if request.page_size > 0 or after:
            size = page_size(request.page_size)
            parts = (await catalogue.parts(first.id, after))[:size]
            if not parts:
                raise files.replaced(file.name)
            replicas = [(copy, (await catalogue.parts(copy.id, after))[:size]) for copy in others]
        else:
            parts = await catalogue.all_parts(first.id)
            replicas = [(copy, await catalogue.all_parts(copy.id)) for copy in others]
        sources = [] if after else await catalogue.store.read(lambda c: manifest_rows.sources(c, file.transfer))
        more = f"{file.generation} {parts[-1].number}" if parts[-1].number < file.part_count else ""

        def shown() -> pb.GetFileResponse:
            uris = {p.number: self._uri(p) for p in parts} if request.uris else {}
            shape = file_message(file, parts, sources, uris)
            uri = self._uri if request.uris else lambda _: ""
            shape.replicas.extend(replica_message(copy, its, uri) for copy, its in replicas)
            return pb.GetFileResponse(file=shape, next_page_token=more)

        return fitting(await asyncio.to_thread(shown), f"the file {file.name} with all its parts", "page_size")

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        """Files whose name matches a mask."""
        size = page_size(request.page_size)
        rows = await self._visible(request.mask, request.page_token, size + 1)
        more = rows[size - 1].name if len(rows) > size else ""
        return pb.ListFilesResponse(files=map(file_message, rows[:size]), next_page_token=more)

    async def _visible(self, mask: str, after: str, most: int) -> list[files.LogicalFile]:
        """So many files that the caller may read: the name of another is not even in a page token."""
        who, store = caller(), self._custody.catalogue.store
        found: list[files.LogicalFile] = []
        while len(found) < most:
            rows = await store.read(lambda c, a=after: files.listing(c, mask, a, most))  # type: ignore[misc]
            found += [row for row in rows if who.may(Verb.READ, Thing("files", row.name))]
            if len(rows) < most:
                break
            after = rows[-1].name
        return found[:most]

    async def RegisterFile(self, request: pb.RegisterFileRequest, context: Any) -> pb.RegisterFileResponse:
        """Enters existing objects as the parts of a file."""
        wrong: dict[str, str] = {}
        if not request.parts:
            wrong["parts"] = "name at least one object"
        locations = [location_of(p, f"parts[{i}]", wrong) for i, p in enumerate(request.parts)]
        form = format_of(request.format, "format", wrong)
        refuse(wrong)
        natural = request.order == transfer_pb2.Spray.ORDER_NATURAL
        file = await self._custody.register(request.name, locations, form, natural=natural)
        parts = await self._custody.catalogue.all_parts(file.generation)
        return pb.RegisterFileResponse(file=file_message(file, parts))

    async def RenameFile(self, request: pb.RenameFileRequest, context: Any) -> pb.RenameFileResponse:
        """Gives a file another name."""
        return pb.RenameFileResponse(file=file_message(await self._custody.rename(request.name, request.new_name)))

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> pb.DeleteFileResponse:
        """Drops a file and retires its owned parts."""
        gone, kept = await self._custody.delete(
            request.name, with_parts=request.with_parts, validate_only=request.validate_only
        )
        return pb.DeleteFileResponse(deleted=map(part_message, gone), kept=map(part_message, kept))

    async def VerifyFile(self, request: pb.VerifyFileRequest, context: Any) -> pb.VerifyFileResponse:
        """Checks that the parts are what the catalogue says."""
        verdicts = await self._custody.verify(request.name, read=request.read)
        return pb.VerifyFileResponse(
            parts=[
                pb.PartVerdict(number=v.number, key=v.key, verdict=v.verdict, detail=v.detail, plane=v.plane)
                for v in verdicts
            ],
            ok=all(v.ok for v in verdicts),
            bytes_read=sum(v.bytes_read for v in verdicts),
        )

    async def RebuildFiles(self, request: pb.RebuildFilesRequest, context: Any) -> pb.RebuildFilesResponse:
        """Restores entries from the manifests on a plane."""
        found = await self._custody.rebuild(request.plane, validate_only=request.validate_only)
        return pb.RebuildFilesResponse(restored=found.restored, present=found.present, skipped=found.skipped)

    def _uri(self, part: files.FilePart) -> str:
        """Where a reader of its own finds a part; "" for planes that nobody else, or not this caller, can read."""
        info = Info(part.key, part.size, part.version, _EPOCH)
        ticket = self._planes.plane(part.plane).copy_ticket(info)
        if ticket is None:
            return ""
        if ticket.kind == "s3":
            return f"s3://{ticket.location['bucket']}/{ticket.location['key']}"
        if ticket.kind == "azure":
            return f"az://{ticket.location['container']}/{ticket.location['blob']}"
        if ticket.kind == "posix" and caller().owner_of is None:
            return Path(ticket.location["root"], part.key).as_uri()
        return ""
