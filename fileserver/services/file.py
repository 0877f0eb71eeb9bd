"""FileService: validate, call, answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fileserver.catalogue import files
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.services.shapes import file_message, format_of, location_of, part_message
from fileserver.services.transfer import page_size
from fileserver.transfer import ledger
from fileserver.transfer.custody import Custody
from fileserver.v1 import file_pb2 as pb
from fileserver.v1 import transfer_pb2
from fileserver.v1.file_pb2_grpc import FileServiceServicer
from planes.plane import Info

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class FileServicer(FileServiceServicer):
    """The catalogue on the wire."""

    def __init__(self, custody: Custody, planes: Configured) -> None:
        self._custody = custody
        self._planes = planes

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> pb.GetFileResponse:
        """One file with its parts."""
        file = await self._custody.catalogue.get(request.name)
        parts = await self._custody.catalogue.all_parts(file.generation)
        store = self._custody.catalogue.store
        sources = await store.read(lambda c: ledger.sources(c, file.transfer))
        uris = {p.number: self._uri(p) for p in parts} if request.uris else {}
        return pb.GetFileResponse(file=file_message(file, parts, sources, uris))

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        """Files whose name matches a mask."""
        size, store = page_size(request.page_size), self._custody.catalogue.store
        rows = await store.read(lambda c: files.listing(c, request.mask, request.page_token, size + 1))
        more = rows[size - 1].name if len(rows) > size else ""
        return pb.ListFilesResponse(files=map(file_message, rows[:size]), next_page_token=more)

    async def RegisterFile(self, request: pb.RegisterFileRequest, context: Any) -> pb.RegisterFileResponse:
        """Enters existing objects as the parts of a file."""
        wrong: dict[str, str] = {}
        if not request.parts:
            wrong["parts"] = "name at least one object"
        locations = [location_of(p, f"parts[{i}]", wrong) for i, p in enumerate(request.parts)]
        form = format_of(request.format, "format", wrong)
        if wrong:
            raise InvalidSpec("; ".join(dict.fromkeys(wrong.values())), wrong)
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
            parts=[pb.PartVerdict(number=v.number, key=v.key, verdict=v.verdict, detail=v.detail) for v in verdicts],
            ok=all(v.ok for v in verdicts),
            bytes_read=sum(v.bytes_read for v in verdicts),
        )

    async def RebuildFiles(self, request: pb.RebuildFilesRequest, context: Any) -> pb.RebuildFilesResponse:
        """Restores entries from the manifests on a plane."""
        found = await self._custody.rebuild(request.plane, validate_only=request.validate_only)
        return pb.RebuildFilesResponse(restored=found.restored, present=found.present, skipped=found.skipped)

    def _uri(self, part: files.FilePart) -> str:
        """Where a reader of its own finds a part; "" for planes that nobody else can read."""
        info = Info(part.key, part.size, part.version, _EPOCH)
        ticket = self._planes.plane(part.plane).copy_ticket(info)
        if ticket is None:
            return ""
        if ticket.kind == "s3":
            return f"s3://{ticket.location['bucket']}/{ticket.location['key']}"
        if ticket.kind == "azure":
            return f"az://{ticket.location['container']}/{ticket.location['blob']}"
        if ticket.kind == "posix":
            return Path(ticket.location["root"], part.key).as_uri()
        return ""
