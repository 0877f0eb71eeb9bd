"""Certificates as files: read for listeners and for calls to other file servers, and read again when they change.

Who renews certificates writes them into the same files (cert-manager, a mounted secret). A listener looks at them at
every handshake, and gRPC keeps what it had until it is given something new: so a file that is broken, or half of a pair
that is not whole yet, changes nothing but the log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import structlog

from fileserver.errors import InvalidSpec

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """Where certificates lie, in PEM."""

    certificate: Path
    key: Path
    authority: Path | None = None
    """Who signs the certificates of the other side; None: it shows none, or the machine's own authorities do."""

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that there is to be."""
        return tuple(path for path in (self.certificate, self.key, self.authority) if path is not None)


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: bytes
    key: bytes
    authority: bytes | None


class Watched:
    """Certificate files and what was last found sound in them.

    Args:
        files: where they are.
        field: what the configuration calls them, for errors.

    Raises:
        InvalidSpec: they are not sound now.
    """

    def __init__(self, files: Files, field: str) -> None:
        self._files = files
        self._field = field
        self._stamp = self._look()
        self.pair = _read(files, field)

    def changed(self) -> bool:
        """Whether there is something new and sound in the files, which `pair` is then; what is broken is logged."""
        stamp = self._look()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            pair = _read(self._files, self._field)
        except InvalidSpec as error:
            _log.error("certificate not taken: the one before stays in force", why=error.message)
            return False
        if pair == self.pair:
            return False
        self.pair = pair
        _log.info("certificate read again", path=str(self._files.certificate))
        return True

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(path) for path in self._files.all)


def server_credentials(files: Files, field: str) -> grpc.ServerCredentials:
    """Credentials of a listener; callers must show a certificate if `files` name who signs them.

    Raises:
        InvalidSpec: the files are not sound.
    """
    watched = Watched(files, field)

    def made() -> grpc.ServerCertificateConfiguration:
        pair = watched.pair
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], pair.authority)

    return grpc.dynamic_ssl_server_credentials(
        made(),
        lambda: made() if watched.changed() else None,  # type: ignore[arg-type, return-value]  # None: as before
        require_client_authentication=files.authority is not None,
    )


def channel_credentials(watched: Watched) -> grpc.ChannelCredentials:
    """Credentials for calls to other file servers, by what was last found in the files."""
    pair = watched.pair
    return grpc.ssl_channel_credentials(pair.authority, pair.key, pair.certificate)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        facts = os.stat(path)  # noqa: PTH116  # through links: a mounted secret is one, and changes by another target
    except OSError:
        return 0, 0, 0
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _read(files: Files, field: str) -> _Pair:
    """The content of the files, if it fits together; raises InvalidSpec."""
    from cryptography import x509  # noqa: PLC0415  # only who has certificates pays for it
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_private_key,
    )

    def public(key: object) -> bytes:
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]

    try:
        pair = _Pair(
            files.certificate.read_bytes(),
            files.key.read_bytes(),
            files.authority.read_bytes() if files.authority else None,
        )
    except OSError as error:
        raise _unsound(field, str(error.filename), f"cannot be read ({error.strerror})") from None
    try:
        own = x509.load_pem_x509_certificates(pair.certificate)[0]
    except ValueError:
        raise _unsound(field, str(files.certificate), "holds no certificate in PEM") from None
    try:
        key = load_pem_private_key(pair.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the second: it is encrypted; no text is shown, it may quote
        raise _unsound(field, str(files.key), "holds no private key in PEM without a password") from None
    try:
        fits = public(key.public_key()) == public(own.public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise _unsound(field, str(files.certificate), "is of a key that nobody knows") from None
    if not fits:
        raise _unsound(field, str(files.key), f"is not the key of {files.certificate}")
    if own.not_valid_after_utc < datetime.now(UTC):
        raise _unsound(field, str(files.certificate), f"has expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if pair.authority is not None:
        try:
            x509.load_pem_x509_certificates(pair.authority)
        except ValueError:
            raise _unsound(field, str(files.authority), "holds no certificate in PEM") from None
    return pair


def _unsound(field: str, path: str, why: str) -> InvalidSpec:
    msg = f"{field}: {path} {why}"
    return InvalidSpec(msg, {field: f"{path} {why}"}, path=path)
