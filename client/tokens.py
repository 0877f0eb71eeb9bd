"""Tokens for small installations: a key pair in a file, and tokens that it signs. Asks no server.

The libraries for it come with the server: who only calls need not have them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.errors import Code, Reason, ServerError, invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ISSUER: Final = "cropduster"
"""As the server's configuration knows tokens of these keys."""
AUDIENCE: Final = "cropduster"


@dataclass(frozen=True, slots=True)
class Pair:
    """A key pair in files."""

    id: str
    private: Path
    public: Path

    def config(self) -> str:
        """The lines of a server's configuration that make it take tokens of this key."""
        return f"tokens:\n  keys:\n    {self.id}: {json.dumps(str(self.public))}"


def make_key(path: Path) -> Pair:
    """A fresh key pair: the private key in a file that was not there, readable by its owner alone; the public beside.

    Raises:
        ServerError: NOT_SUPPORTED, the libraries are not installed; TARGET_EXISTS, a file of this name is there;
            INVALID_SPEC, it cannot be written.
    """
    _need()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    path = path.absolute()
    public = path.with_name(f"{path.name}.pub")
    key = Ed25519PrivateKey.generate()
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, plain), 0o600)
    try:
        shown = serialization.PublicFormat.SubjectPublicKeyInfo
        _write(public, key.public_key().public_bytes(serialization.Encoding.PEM, shown), 0o644)
    except BaseException:
        path.unlink()
        raise
    return Pair(_id(key.public_key()), path, public)


def make_token(path: Path, subject: str, groups: Sequence[str], seconds: float, audience: str = AUDIENCE) -> str:
    """A token that the private key in a file signs.

    Args:
        path: of the private key.
        subject: whom it names.
        groups: of which that is a member.
        seconds: for which it counts from now on.
        audience: which servers take it (`tokens.audience`).

    Raises:
        ServerError: NOT_SUPPORTED, the libraries are not installed; INVALID_SPEC, the file holds no such key, or others
            may read it.
    """
    _need()
    import jwt  # noqa: PLC0415 - see above

    key, now = _private(path), int(time.time())
    claims: dict[str, Any] = {"iss": ISSUER, "aud": audience, "sub": subject, "groups": list(groups)}
    claims |= {"iat": now, "nbf": now, "exp": now + max(1, round(seconds)), "jti": uuid.uuid4().hex}
    return jwt.encode(claims, key, algorithm="EdDSA", headers={"kid": _id(key.public_key())})


def _private(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        with path.open("rb") as opened:
            others = os.fstat(opened.fileno()).st_mode & 0o077
            text = opened.read()
    except OSError as error:
        msg = f"the key {path} cannot be read ({error.strerror}): `cropduster token key {path}` makes one"
        raise invalid(msg, path=str(path)) from None
    if others:
        msg = f"others may read the key {path}, and could make tokens with it: chmod 600 {path}"
        raise invalid(msg, path=str(path))
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"{path} holds no private Ed25519 key without a password: `cropduster token key FILE` makes one"
        raise invalid(msg, path=str(path))
    return key


def _id(key: Ed25519PublicKey) -> str:
    """The beginning of the thumbprint of a key (RFC 7638), as a word: the same wherever it is computed."""
    encoded = base64.urlsafe_b64encode(key.public_bytes_raw()).decode().rstrip("=")
    whole = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": encoded}, separators=(",", ":"))
    return f"key-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def _write(path: Path, text: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        msg = f"{path} is there already: tokens of that key would count no more; choose another name"
        raise ServerError(Reason.TARGET_EXISTS, Code.ALREADY_EXISTS, msg, {"path": str(path)}) from None
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror})"
        raise invalid(msg, path=str(path)) from None
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(text)


def _need() -> None:
    try:
        import cryptography  # noqa: F401, PLC0415 - only whether they are there
        import jwt  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        msg = f"tokens need the package {error.name}: pip install 'cropduster[server]'"
        raise ServerError(Reason.NOT_SUPPORTED, Code.UNIMPLEMENTED, msg) from None
