"""The listeners that a configuration asks for, each with what guards it."""

from __future__ import annotations

from fileserver.calls import Around
from fileserver.guard.certified import Certificates
from fileserver.sections import External, Internal, Tls
from fileserver.server import Listener
from fileserver.tls import Files, server_credentials


def target(address: str) -> str:
    """An address of the configuration as gRPC writes it."""
    return f"unix:{address}" if address.startswith("/") else address


def internal(settings: Internal, tls: Tls, address: str) -> Listener:
    """The internal address with certificates on both sides.

    Raises:
        InvalidSpec: the certificates cannot be used.
    """
    files = Files(tls.certificate, tls.key, tls.clients)
    return Listener(
        [address],
        [Certificates(settings.allow).around],
        credentials=server_credentials(files, "listen.internal.tls"),
    )


def external(settings: External, own_user: Around) -> Listener:
    """The external address; raises as `internal` does.

    Args:
        settings: of the address.
        own_user: asks for the cookie, where there are no tokens.
    """
    files = Files(settings.tls.certificate, settings.tls.key) if settings.tls else None
    return Listener(
        [target(settings.address)],
        [own_user],
        internal=False,
        reflect=settings.reflection,
        credentials=server_credentials(files, "listen.external.tls") if files else None,
    )
