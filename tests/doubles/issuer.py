"""An OpenID Connect provider: a discovery document, keys that can be rotated, and tokens that they sign."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import get_default_algorithms

from tests.doubles.authority import Trust

DISCOVERY = "/.well-known/openid-configuration"


class Issuer:
    """What it publishes, and how often that was asked for; `url` once it runs."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, PrivateKeyTypes]] = {}
        self.asked: list[str] = []
        self.url = ""
        self.answers: dict[str, Any] = {}
        """Instead of what it would say, by path; an int is the status of a failure, bytes are all that is sent."""
        self.rotate("first")

    def rotate(self, kid: str, algorithm: str = "ES256") -> None:
        """Sign with a fresh key from now on, and publish that alone."""
        made: PrivateKeyTypes
        if algorithm[:2] in {"RS", "PS"}:
            made = rsa.generate_private_key(65537, 2048)
        elif algorithm == "EdDSA":
            made = ed25519.Ed25519PrivateKey.generate()
        else:
            made = ec.generate_private_key(ec.SECP256R1())
        self.keys = {kid: (algorithm, made)}

    def published(self) -> list[dict[str, Any]]:
        """Its public keys."""
        return [
            {**json.loads(get_default_algorithms()[algorithm].to_jwk(key.public_key())), "kid": kid, "use": "sig"}
            for kid, (algorithm, key) in self.keys.items()
        ]

    def token(self, head: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token of its newest key for cropduster, for alice, for a minute; `claims` replace, None leaves out."""
        kid, (algorithm, key) = list(self.keys.items())[-1]
        now = int(time.time())
        usual = {"iss": self.url, "aud": "cropduster", "sub": "alice", "iat": now, "exp": now + 60}
        whole = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": kid, **(head or {})})

    def says(self, path: str) -> Any:
        """The document at a path."""
        self.asked.append(path)
        if path in self.answers:
            return self.answers[path]
        if path == DISCOVERY:
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": self.published()} if path == "/keys" else 404


@contextmanager
def running(trust: Trust | None = None) -> Iterator[Issuer]:
    """One on loopback, until the block is left; https with a certificate."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = issuer.says(self.path)
            if isinstance(said, int):
                self.send_response(said)
                self.send_header("Location", f"{issuer.url}/keys")
                self.end_headers()
                return
            if isinstance(said, bytes):
                self.wfile.write(said)
                return
            text = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    if trust is not None:
        issuer.url = f"https://127.0.0.1:{server.server_port}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(trust.certificate, trust.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
