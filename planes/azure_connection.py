"""One plane's way to its account: requests in threads of their own, errors in our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from azure.core import MatchConditions
from azure.storage.blob import BlobProperties, ContainerClient

from planes import azure_errors, checksum
from planes.azure_account import Account, credential_in_words
from planes.azure_errors import Asked, Place
from planes.azure_http import Http
from planes.azure_settings import AzureSettings
from planes.below import Below
from planes.errors import Changed, Error, NotFound, Refused
from planes.plane import Info
from planes.settings import MOST_REQUESTS
from planes.threads import Stop, Threads

T = TypeVar("T")

KIND: Final = "azure"
"""Of tickets that planes of this kind make and redeem."""
ATTEMPT: Final = "cropduster_attempt"
"""Metadata of every blob that we write: the upload id of the attempt that wrote it."""
CRC: Final = "cropduster_crc64nvme"
"""Metadata: the checksum of the whole, in S3's form, as composed from what the service said of each block."""
SIZE: Final = "cropduster_size"
"""Metadata: the size that the checksum is of."""
DROPPED: Final = "cropduster_dropped"
"""Metadata of the empty blob that, for a moment, makes the service forget the blocks of an aborted upload."""
OURS: Final = frozenset({ATTEMPT, CRC, SIZE, DROPPED})

_PATIENT_SECONDS: Final = 900  # while the service copies a large block it says nothing


class Connection:
    """Runs requests against one plane's account; every failure comes out as one of `planes.errors`."""

    def __init__(self, name: str, settings: AzureSettings) -> None:
        self.settings = settings
        self.container = settings.container
        self.place = Place(name, settings.container, credential_in_words(settings))
        below = Below(name, settings.prefix)
        self.full, self.full_prefix = below.full, below.full_prefix
        self.account = Account(name, settings)
        self.http = Http(MOST_REQUESTS, settings.ca)  # the limits may be widened while it runs
        self._threads = Threads(f"azure-{name}", MOST_REQUESTS)

    def new(self, key: str) -> str:
        """The name of a blob that is to be written.

        Raises:
            Refused: another blob would be written, because addresses lose `.`, and Azure takes a backslash for `/`.
        """
        full = self.full(key)
        if "\\" in full or "." in full.split("/"):
            words = "it would become another name, because Azure keeps no `\\` and no `.` between `/`: choose another"
            raise self.error(Refused, key, words)
        return full

    async def ask(self, call: Callable[[ContainerClient], T], asked: Asked) -> T:
        """Run requests of the SDK in a thread."""
        return await self.work(lambda _: call(self.client()), asked)

    async def work(self, call: Callable[[Stop], T], asked: Asked) -> T:
        """Run work in a thread; it looks at `stop` on its way."""

        def run(stop: Stop) -> T:
            try:
                return call(stop)
            except azure_errors.FAILURES as failure:
                # Not as its cause: an SDK's exception may carry signed addresses and headers.
                raise azure_errors.translate(failure, asked, self.place) from None

        return await self._threads.run(run)

    def client(self) -> ContainerClient:
        """The SDK's client of our container; in a thread only."""
        return self.account.service().get_container_client(self.container)

    async def head(self, key: str, asked: Asked, *, version: str = "") -> Info:
        """Facts about the object with this key, if it has that version (none: any)."""
        full = self.full(key)
        info = info_of(
            key, await self.ask(lambda c: c.get_blob_client(full).get_blob_properties(**pin(version)), asked)
        )
        if is_dropped(info):
            raise self.error(asked.absent, key, "it is not there")
        return info

    async def look(self, key: str) -> Info | None:
        """Facts about the blob with this key, or None; also of what an abort leaves for a moment (`is_dropped`)."""
        asked, full = Asked("look at", key), self.full(key)
        try:
            return info_of(key, await self.ask(lambda c: c.get_blob_client(full).get_blob_properties(), asked))
        except NotFound:
            return None

    async def delete(self, key: str, *, only: str = "") -> None:
        """Delete the object with this key if there is one; with `only`, if it still has that version."""
        full = self.full(key)
        with suppress(NotFound, *((Changed,) if only else ())):
            await self.ask(lambda c: c.get_blob_client(full).delete_blob(**pin(only)), Asked("delete", key))

    def error(self, kind: type[Error], key: str, words: str) -> Error:
        """An error about this key that the service did not report itself."""
        about = f"plane {self.place.plane!r}: {key!r}" if key else f"plane {self.place.plane!r}"
        return kind(f"{about}: {words}", plane=self.place.plane, key=key)

    def close(self) -> None:
        """Let threads and connections go."""
        self._threads.close()
        self.account.close()
        self.http.close()


PATIENT: Final[Mapping[str, Any]] = {"read_timeout": _PATIENT_SECONDS}
"""Arguments of a request that the service may take minutes to answer."""


def info_of(key: str, found: BlobProperties) -> Info:
    """The facts of a blob.

    Its checksum is what its writer claims in the metadata, and holds for a block blob of the size that it names: no
    write of a block blob but a copy keeps metadata by itself.
    """
    names: dict[str, str] = dict(found.metadata or {})
    ours = {name.lower(): text for name, text in names.items() if name.lower() in OURS}  # proxies change their case
    size = int(found.size)
    stored = {}
    if str(found.blob_type) == "BlobType.BLOCKBLOB" and ours.get(SIZE) == str(size) and CRC in ours:
        with suppress(ValueError):
            stored = {"crc64nvme": checksum.from_s3(ours[CRC])}
    return Info(
        key=key,
        size=size,
        version=bare(str(found.etag)),
        modified=found.last_modified,
        checksums=stored,
        content_type=found.content_settings.content_type or "",
        metadata={name: text for name, text in names.items() if name.lower() not in OURS} | ours,
    )


def named(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata under names that Azure takes: `-` becomes `_`, and what can be no name stays behind."""
    regular = ((name.replace("-", "_"), text) for name, text in metadata.items())
    return {name: text for name, text in regular if name.isascii() and name.isidentifier()}


def is_dropped(info: Info) -> bool:
    """Whether it is what an abort leaves for a moment, or for longer if it broke off: not an object, anybody's."""
    return DROPPED in info.metadata


def bare(etag: str) -> str:
    """An ETag without quotes."""
    return etag.strip('"')


def pin(version: str) -> Any:
    """The arguments that let a request touch this version alone; none for an empty one."""
    return {"etag": f'"{version}"', "match_condition": MatchConditions.IfNotModified} if version else {}
