"""What a caller shows to a server that somebody runs: certificates and a token."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from client.errors import ServerError, invalid, unavailable

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,7000}")
_ANSWER_SECONDS: Final = 2.0
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins (RFC 9113 section 3.4), with no settings of its own."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Paths of files in PEM, and a token or the path of the file that holds it; "" is none."""

    ca: str = ""
    """Who signs the server's certificate, instead of the machine's authorities."""
    cert: str = ""
    key: str = ""
    token_file: str = ""
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raise ServerError (INVALID_SPEC) if they do not go together."""
        if bool(self.cert) != bool(self.key):
            msg = "a certificate is shown with its private key: give both --cert and --key, or neither"
            raise invalid(msg)

    def bearer(self) -> str:
        """The token as it is now: its file may be renewed at any time; "" if there is none. Raises ServerError."""
        if not self.token_file:
            return _checked(self.token.strip(), "CROPDUSTER_TOKEN")
        return _checked(_read(self.token_file, "--token-file").decode("ascii", "replace").strip(), self.token_file)

    def channel(self) -> grpc.ChannelCredentials:
        """Credentials of an encrypted channel; raises ServerError where a file cannot be read."""
        roots = _read(self.ca, "--ca") if self.ca else _machine_roots()
        if not self.cert:
            return grpc.ssl_channel_credentials(roots)
        return grpc.ssl_channel_credentials(roots, _read(self.key, "--key"), _read(self.cert, "--cert"))

    def shake_hands(self, host: str, port: int, server: str) -> None:
        """Try the encrypted connection, because gRPC does not say what is wrong with one.

        Raises:
            ServerError: INVALID_SPEC, the certificates do not go together.
            OSError: nobody listens there, or it is no TLS; worth another try.
        """
        context = self._context()
        # Whoever hangs up once may just be ending; twice, it is because of what was shown.
        if not (_answers(context, host, port, server) or _answers(context, host, port, server)):
            what = "does not accept the certificate of --cert" if self.cert else "asks for a certificate of yours"
            way_out = "give one that it knows" if self.cert else "give --cert and --key, or call its external address"
            msg = f"{server} {what}: {way_out}"
            raise invalid(msg, server=server)

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError):
            raise _no_pem(self.ca, "--ca") from None
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key, password="")  # none: do not ask a terminal
            except (OSError, ssl.SSLError, ValueError):
                what = "hold no certificate and its private key in PEM"
                msg = f"--cert {self.cert} and --key {self.key} {what}"
                raise invalid(msg, path=self.cert) from None
        context.set_alpn_protocols(["h2"])
        return context


def _answers(context: ssl.SSLContext, host: str, port: int, server: str) -> bool:
    """Whether a server that is believed goes on talking: one that is not content with our certificate hangs up."""
    with (
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS) as plain,
        _trusted(context, plain, host, server) as secure,
    ):
        try:
            secure.sendall(_HELLO)  # some speak only when they are spoken to
            return bool(secure.recv(1))
        except TimeoutError:
            return True
        except (ssl.SSLError, ConnectionError):
            return False


def _trusted(context: ssl.SSLContext, plain: socket.socket, host: str, server: str) -> ssl.SSLSocket:
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        msg = (
            f"{server} is not believed to be who it says ({error.verify_message}): check the address, and give who "
            "signed its certificate with --ca FILE"
        )
        raise invalid(msg, server=server) from None
    except ssl.SSLError as error:
        msg = f"{server} does not speak TLS ({error.reason or 'it hung up'}): is that its encrypted address?"
        raise unavailable(msg, server=server) from None


def _read(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        msg = f"{option} {path} cannot be read ({error.strerror})"
        raise invalid(msg, path=path) from None


def _no_pem(path: str, option: str) -> ServerError:
    msg = f"{option} {path} cannot be read, or holds no certificate in PEM"
    return invalid(msg, path=path)


def _checked(token: str, where: str) -> str:
    if token and not _TOKEN.fullmatch(token):
        msg = f"{where} holds no token: one is letters, digits and dots, as `cropduster token create` prints it"
        raise invalid(msg)
    return token


def _machine_roots() -> bytes | None:
    """The machine's authorities, which both Python and gRPC then use; None is gRPC's own list."""
    path = ssl.get_default_verify_paths().cafile
    return Path(path).read_bytes() if path else None
