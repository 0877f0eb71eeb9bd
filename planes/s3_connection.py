"""One plane's way to its store: clients made at first use, requests in threads of their own, errors in our words."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.loaders import Loader, create_loader

from planes import checksum, s3_errors, s3_listing
from planes.below import Below
from planes.errors import Changed, Error, Missing, NotFound, Refused, Unavailable, Unsupported
from planes.plane import Info, Ticket
from planes.s3_errors import Asked, Place
from planes.s3_settings import S3Settings
from planes.s3_wire import Wire
from planes.settings import MOST_REQUESTS, Secret
from planes.threads import Stop, Threads

if TYPE_CHECKING:  # the SDK's types are not installed beside a running server
    from botocore.credentials import Credentials
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

T = TypeVar("T")

KIND: Final = "s3"
"""Of tickets that planes of this kind make and redeem."""
ATTEMPT: Final = "cropduster-attempt"
"""Metadata of every object that we write: the upload id of the attempt that wrote it."""


class Algorithm(NamedTuple):
    """One kind of checksum in the SDK's words."""

    field: str
    """Of requests and answers, with the value in base64."""
    name: str


ALGORITHMS: Final = {
    "crc64nvme": Algorithm("ChecksumCRC64NVME", "CRC64NVME"),
    "crc32c": Algorithm("ChecksumCRC32C", "CRC32C"),
    "crc32": Algorithm("ChecksumCRC32", "CRC32"),
}
"""By kind of `planes.checksum`, in the order of preference."""

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_PATIENT_SECONDS = 900  # while a store copies 5 GiB or puts 10,000 steps together it says nothing


class Connection:
    """Runs requests against one plane's store; every failure comes out as one of `planes.errors`."""

    def __init__(self, name: str, settings: S3Settings) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self._threads = Threads(f"s3-{name}", MOST_REQUESTS)  # the limits may be widened while it runs
        self._lock = threading.Lock()
        self._clients: dict[bool, S3Client] = {}
        self._session: boto3.session.Session | None = None
        self._wire: Wire | None = None
        self._bucket_seen = False
        self.silent = False
        """The store was sent a checksum, and did not confirm it."""
        below = Below(name, settings.prefix)
        self.full, self.full_prefix = below.full, below.full_prefix
        self.place = Place(
            plane=name,
            bucket=settings.bucket,
            access_key=_words("access_key", settings.access_key),
            secret_key=_words("secret_key", settings.secret_key),
            session_token=_words("session_token", settings.session_token),
            endpoint=settings.endpoint or "",
        )

    @property
    def path_style(self) -> bool:
        """Whether addresses have the bucket in their path."""
        settings = self.settings
        return settings.endpoint is not None if settings.path_style is None else settings.path_style

    @property
    def ca(self) -> str:
        """The certificates that are configured here or by the environment; empty for the usual ones."""
        # boto3 has no other way to what the environment says of certificates.
        return str(self.settings.ca or self._sessions()._session.get_config_variable("ca_bundle") or "")  # noqa: SLF001

    def credentials(self) -> Credentials:
        """The keys of this plane, for another client; raises ValueError if there are none."""
        found = self._sessions().get_credentials()
        if found is None:
            msg = "no credentials"
            raise ValueError(msg)
        return found

    def address(self) -> str:
        """The address that keys are appended to, as the SDK finds it: of the region, the environment, the bucket.

        Raises:
            Refused: the endpoint or the certificates cannot be used.
        """
        client = self._client(patient=False)
        signed = client.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": "-"})
        return signed.partition("?")[0].removesuffix("-")

    @property
    def scope(self) -> str:
        """Who can copy from whom without handing over keys: same store, same region, same owner of the keys."""
        settings = self.settings
        # Keys from the SDK's chain change by themselves; all planes that use it have the same.
        owner = hashlib.sha256(settings.access_key.resolve().encode()).hexdigest()[:16] if settings.access_key else ""
        return f"{settings.endpoint or 'aws'} {settings.region} {owner or 'chain'}"

    @property
    def encryption(self) -> dict[str, Any]:
        """The arguments of requests that make an object (put, copy, begin of an upload; the store refuses others)."""
        sse = self.settings.sse
        if sse is None:
            return {}
        return {"ServerSideEncryption": sse.type} | ({"SSEKMSKeyId": sse.key} if sse.key else {})

    def accepts(self, ticket: Ticket) -> bool:
        """Whether a ticket is of the same store and owner."""
        return ticket.kind == KIND and ticket.scope == self.scope

    def redeemable(self, ticket: Ticket) -> Ticket:
        """The ticket itself; raises Unsupported for one that is not of the same store and owner."""
        if not self.accepts(ticket):
            words = f"it cannot be copied by this store out of another ({ticket.kind}): read and put it instead"
            raise self.error(Unsupported, ticket.location.get("key", ""), words)
        return ticket

    async def ask(self, call: Callable[[S3Client], T], asked: Asked, *, patient: bool = False) -> T:
        """Run one request in a thread; `patient` for those that the store may take minutes to answer."""
        return await self.work(lambda client, _stop: call(client), asked, patient=patient)

    async def work(self, call: Callable[[S3Client, Stop], T], asked: Asked, *, patient: bool = False) -> T:
        """The same for work that looks at `stop` on its way."""

        def run(stop: Stop) -> T:
            try:
                return call(self._client(patient=patient), stop)
            except s3_errors.FAILURES as failure:
                # Not as its cause: an SDK's exception may carry signed addresses and headers.
                raise s3_errors.translate(failure, asked, self.place) from None

        return await self._threads.run(run)

    async def over_wire(self, call: Callable[[Wire], T], asked: Asked) -> T:
        """Run what signs and sends by itself in a thread, over the connections that the reads use."""

        def run(_client: S3Client) -> T:
            assert self._wire is not None, "it is made with the client"
            return call(self._wire)

        return await self.ask(run, asked)

    async def head(self, key: str, asked: Asked, *, bucket: str = "", version: str = "") -> Info:
        """Facts about the object with this full key of a bucket (none: ours), if it has that version (none: any)."""
        mode: Any = {"ChecksumMode": "ENABLED"} if self.settings.proves else {}

        def call(client: S3Client) -> HeadObjectOutputTypeDef:
            return client.head_object(Bucket=bucket or self.bucket, Key=key, **pin(version), **mode)

        try:
            answer = await self.ask(call, asked)
            self.etag(answer, asked.key)
            return _info(key.removeprefix(self.settings.prefix), answer)
        except (NotFound, asked.absent):
            if not bucket:  # HEAD has no body: a missing bucket looks like a missing object
                await self._see_bucket()
            raise

    async def look(self, key: str) -> Info | None:
        """Facts about the object with this key, or None if there is none."""
        try:
            return await self.head(self.full(key), Asked("look at", key))
        except NotFound:
            return None

    async def delete(self, key: str, *, only: Info | None = None) -> None:
        """Delete the object with this key if there is one; with `only`, if it is still that one."""
        condition: Any = pin(etag_of(only.version)) if only else {}
        with contextlib.suppress(NotFound, *((Changed,) if only else ())):
            await self.ask(
                lambda client: client.delete_object(Bucket=self.bucket, Key=self.full(key), **condition),
                Asked("delete", key),
            )

    def etag(self, answer: Any, key: str) -> str:
        """The ETag, without quotes, of an answer about an object.

        Raises:
            Unavailable: it has none, so it is no such answer, whatever its status says.
        """
        if not answer.get("ETag"):
            raise self.error(Unavailable, key, "the store answers without an ETag, as if there were no object")
        return etag_of(answer["ETag"])

    def hear(self, confirmed: str) -> bool:
        """Whether our checksum of a put may stand for what was written; note a store that should confirm and does not.

        What was sent is not what such a store says that it has; where it is not even asked, nobody takes it for that.
        """
        is_silent = self.settings.proves and not confirmed
        self.silent = self.silent or is_silent
        return not is_silent

    def error(self, kind: type[Error], key: str, words: str) -> Error:
        """An error about this key that the store did not report itself."""
        about = f"plane {self.place.plane!r}: {key!r}" if key else f"plane {self.place.plane!r}"
        return kind(f"{about}: {words}", plane=self.place.plane, key=key)

    async def _see_bucket(self) -> None:
        if self._bucket_seen:
            return
        await self.ask(
            lambda client: client.head_bucket(Bucket=self.bucket), Asked("see its bucket", "", absent=Missing)
        )
        self._bucket_seen = True

    def _client(self, *, patient: bool) -> S3Client:
        with self._lock:
            if patient not in self._clients:
                try:
                    self._clients[patient] = self._connect(patient=patient)
                except (ValueError, OSError) as wrong:  # an endpoint that is no address, certificates that are no file
                    raise self.error(Refused, "", f"its `endpoint` or `ca` cannot be used: {wrong}") from wrong
            return self._clients[patient]

    def _sessions(self) -> boto3.session.Session:
        settings = self.settings
        if self._session is None:  # all clients have the same keys, even if a file changes between
            own = botocore.session.Session()
            own.register_component("data_loader", _descriptions(own.get_config_variable("data_path")))
            self._session = boto3.session.Session(
                botocore_session=own,
                aws_access_key_id=settings.access_key.resolve() if settings.access_key else None,
                aws_secret_access_key=settings.secret_key.resolve() if settings.secret_key else None,
                aws_session_token=settings.session_token.resolve() if settings.session_token else None,
                region_name=settings.region,
            )
        return self._session

    def _connect(self, *, patient: bool) -> S3Client:
        settings = self.settings
        ca = self.ca or str(get_cert_path(verify=True))
        client: S3Client = self._sessions().client(
            "s3",
            endpoint_url=settings.endpoint,
            verify=ca,
            config=Config(
                signature_version="s3v4",
                s3={
                    "payload_signing_enabled": settings.hashes,
                    "addressing_style": "path" if self.path_style else "virtual",
                },
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # The SDK's retries turn a success into a failure: a commit sent twice is answered 412.
                retries={"total_max_attempts": 1},
                max_pool_connections=MOST_REQUESTS,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_PATIENT_SECONDS if patient else _READ_SECONDS,
                tcp_keepalive=True,
                user_agent_extra="cropduster",
            ),
        )
        if not patient:
            s3_listing.register(client.meta.events)
            # To read all the usual certificates takes longer than all the rest of a client: only who needs them.
            usual = client.meta.endpoint_url.startswith("http://") and not self.ca
            context = None if usual else ssl.create_default_context(cafile=ca)
            self._wire = Wire(client.meta.events, context, _READ_SECONDS)
        return client

    def close(self) -> None:
        """Let threads and connections go."""
        self._threads.close()
        for client in self._clients.values():
            client.close()
        if self._wire:
            self._wire.close()


@functools.cache
def _descriptions(path: str | None) -> Loader:
    """The SDK's descriptions of services, read once a process: they are nearly all that a new client costs."""
    return create_loader(path)


def _info(key: str, head: HeadObjectOutputTypeDef) -> Info:
    """The facts of a HEAD; only checksums of the whole object, never those of a list of steps (`…-N`)."""
    stored = {}
    if head.get("ChecksumType") != "COMPOSITE":
        said = {kind: str(head.get(algorithm.field, "")) for kind, algorithm in ALGORITHMS.items()}
        stored = {kind: checksum.from_s3(text) for kind, text in said.items() if text and "-" not in text}
    return Info(
        key=key,
        size=head["ContentLength"],
        version=version_of(head["ETag"], head.get("VersionId", "")),
        modified=head["LastModified"],
        checksums=stored,
        content_type=head.get("ContentType", ""),
        metadata=head.get("Metadata", {}),
    )


def version_of(etag: str, version_id: str = "") -> str:
    """The pin: the ETag without quotes and, in a bucket with versions, a space and the version id."""
    return f"{etag_of(etag)} {version_id}".rstrip()


def etag_of(text: str) -> str:
    """The ETag, without quotes, of an answer or of a pin."""
    return text.partition(" ")[0].strip('"')


def pin(version: str) -> Any:
    """The arguments that let a request touch this version alone; none for an empty one."""
    etag, _, version_id = version.partition(" ")
    arguments = {"IfMatch": f'"{etag}"'} if etag else {}
    return arguments | ({"VersionId": version_id} if version_id else {})


def _words(option: str, secret: Secret | None) -> str:
    return f"{option} ({secret.reference})" if secret else f"{option} (not configured: the SDK's own chain)"
