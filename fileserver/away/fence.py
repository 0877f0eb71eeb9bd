"""What a command lets the file servers do with the files of its machine: read these, write that one, and nothing else.

A file server asks; whether it may is decided here, on the machine whose files they are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final, NoReturn

from fileserver.errors import CallerDenied
from fileserver.transfer.survey import matching
from planes.left_out import Tell
from planes.plane import Extent, Info, Plane, Presign, StepReceipt, Take, Ticket, Unfinished, Upload
from planes.posix_draft import from_token
from planes.wrapped import WrappedPlane, WrappedUpload

_WITHOUT: Final = {"replaced", "deleted"}
_ATTEMPT: Final = re.compile("[0-9A-Za-z-]{1,64}")


class FencedPlane(WrappedPlane):
    """The files of this machine that a command has named.

    Args:
        inner: all of its files; keys are absolute paths without their leading slash.
        reads: what may be read; the last element may hold * and ?.
        writes: what may be written.
        overwrite: what is there already of these may be replaced, or deleted.
    """

    def __init__(self, inner: Plane, reads: Sequence[str], writes: Sequence[str], *, overwrite: bool = False) -> None:
        super().__init__(inner)
        self._reads = tuple(reads)
        self._writes = frozenset(writes)
        self._overwrite = overwrite
        self._begun: set[str] = set()
        """Tokens of uploads that were begun here."""
        self._made: set[str] = set()
        """Files that uploads have made, and no one else."""

    async def stat(self, key: str) -> Info:
        """Facts about a file that was named."""
        return await self.inner.stat(self._readable(key))

    async def list(self, prefix: str = "", after: str = "", left_out: Tell | None = None) -> AsyncIterator[Info]:
        """Files that a mask of the command names, in the folder of the mask; nothing below it is looked at."""
        del left_out
        for mask in self._reads:
            folder, _, last = mask.rpartition("/")
            if set(last) & set("*?") and prefix == f"{folder}/{re.split(r'[*?]', last, maxsplit=1)[0]}".lstrip("/"):
                async for info in matching(self.inner, f"{folder}/" if folder else "", last):
                    if info.key > after:
                        yield info
                return
        self._deny(f"/{prefix}", "listed")

    async def read(self, extent: Extent, into: memoryview) -> None:
        """Bytes of a file that was named."""
        self._readable(extent.key)
        await self.inner.read(extent, into)

    async def stream(self, extent: Extent, take: Take) -> None:
        """Bytes of a file that was named."""
        self._readable(extent.key)
        await self.inner.stream(extent, take)

    async def put(
        self,
        key: str,
        data: object,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> StepReceipt:
        """Whole files come in steps, too: a file server records how its upload can be taken back."""
        del data, upload_id, replace, content_type, metadata
        self._deny(f"/{key}", "written at once")

    async def copy(
        self, key: str, ticket: Ticket, *, upload_id: str, replace: bool = False, url: Presign | None = None
    ) -> StepReceipt:
        """The same: nothing of this machine is copied at once, wherever to."""
        del ticket, upload_id, replace, url
        self._deny(f"/{key}", "written at once")

    async def upload(
        self,
        key: str,
        *,
        upload_id: str,
        replace: bool = False,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        kind: str = "crc64nvme",
    ) -> Upload:
        """Begin the file that was named."""
        del content_type, metadata, kind
        self._writable(key, upload_id, replace=replace)
        made = await self.inner.upload(key, upload_id=upload_id, replace=replace)
        self._begun.add(made.token)
        return made

    def resume(self, token: str) -> Upload:
        """The upload of the file that was named."""
        draft = from_token(token)
        self._writable(draft.key, draft.upload_id, replace=draft.replace)
        # A token that somebody has made up may be about any file, but none has the random word of an upload.
        ours = token in self._begun or draft.word != ""
        return _Upload(self.inner.resume(token), lambda: self._made.add(draft.key) if ours else None)

    async def discard(self, key: str, upload_id: str) -> None:
        """Remove what an attempt at the file that was named has left."""
        self._writable(key, upload_id)
        await self.inner.discard(key, upload_id)

    async def delete(self, key: str, *, version: str = "") -> None:
        """Delete the file that was named, and that this transfer has written; any, if it may be replaced."""
        self._writable(key, "x")
        if key not in self._made and not self._overwrite:
            self._deny(f"/{key}", "deleted")
        await self.inner.delete(key, version=version)

    async def unfinished(self, prefix: str = "") -> AsyncIterator[Unfinished]:
        """What others make on this machine is nobody's business."""
        nothing: tuple[Unfinished, ...] = ()
        for none in nothing:
            yield none
        self._deny(f"/{prefix}", "listed")

    def copy_ticket(self, info: Info) -> Ticket | None:
        """Nothing is copied but by reading it: None."""
        del info
        return None

    def _readable(self, key: str) -> str:
        folder, _, name = key.rpartition("/")
        for mask in self._reads:
            where, _, last = mask.rpartition("/")
            wild = where == folder and set(last) & set("*?") and fnmatchcase(name, last.replace("[", "[[]"))
            if mask == key or wild:
                return key
        if key not in self._writes:
            self._deny(f"/{key}", "read")
        return key

    def _writable(self, key: str, upload_id: str, *, replace: bool = False) -> None:
        if key not in self._writes or not _ATTEMPT.fullmatch(upload_id):
            self._deny(f"/{key}", "written")
        if replace and not self._overwrite:
            self._deny(f"/{key}", "replaced")

    def _deny(self, path: str, what: str) -> NoReturn:
        why = "this command does not say --overwrite" if what in _WITHOUT else "this command has not named it"
        msg = f"{path} may not be {what}: {why}"
        raise CallerDenied(msg, path=path)


class _Upload(WrappedUpload):
    """An upload that tells when it has made its file."""

    def __init__(self, inner: Upload, made: Callable[[], None]) -> None:
        super().__init__(inner)
        self._tell = made

    async def commit(self, steps: Sequence[StepReceipt], size: int, crc64nvme: int | None) -> Info:
        """Make the file visible."""
        found = await self.inner.commit(steps, size, crc64nvme)
        self._tell()
        return found

    async def made(self) -> Info | None:
        """The file that this has made."""
        found = await self.inner.made()
        if found is not None:
            self._tell()
        return found
