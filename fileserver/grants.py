"""Grants: a short-lived right for one caller to read or to write these bytes of this part of this transfer.

A grant is a JSON web token, signed with Ed25519. It is minted when work is handed out, carried with each call, and
kept nowhere: who opens a call with one has its signature, its words and its hours looked at here, and then in the store
whether that part is still in the making (`services.granted`).

The keys are drawn (HKDF) from a secret that all file servers of one database share, a fresh one each day; the one of
the day before still counts. So any of them knows what any other has signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fileserver.errors import CallerDenied

LIFE: Final = 900.0
"""Seconds that a grant may be used; who still needs it after half of them is given another."""
ROTATION: Final = 86400
"""Seconds after which another key signs."""

_ALGORITHM: Final = "EdDSA"
_ISSUER: Final = "cropduster"
_AUDIENCE: Final = "fileserver.v1.DataService"
_LONGEST: Final = 4096

Direction = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Grant:
    """What may be done with it."""

    direction: Direction
    transfer: str
    """Id of the transfer."""
    part: int
    """Number of the part that is being made."""
    upload: str
    """`fingerprint` of the part's upload token: another attempt at the part is another upload."""
    start: int
    """First byte of the part that it is for."""
    end: int
    """One past the last."""
    size: int
    """Bytes of the whole part."""
    expires: float
    """Seconds since 1970 (UTC)."""


def fingerprint(token: str | None) -> str:
    """Names an upload token without telling it; the same for one that is not there ("" or None: one put)."""
    return hashlib.sha256((token or "").encode()).hexdigest()[:32]


class Keys:
    """Signs grants, and knows again what was signed.

    Args:
        secrets: what the keys are drawn from; the first signs, the others still count (after a change of the secret).
        clock: seconds since 1970 (UTC).
    """

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float]) -> None:
        self._secrets = tuple(secrets)
        self._clock = clock
        self._drawn: dict[tuple[str, int], Ed25519PrivateKey] = {}

    def mint(self, grant: Grant) -> str:
        """The token of a grant."""
        day = self._day()
        kid, key = self._key(self._secrets[0], day)
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "exp": int(grant.expires),
            "dir": grant.direction,
            "sub": grant.transfer,
            "part": grant.part,
            "upload": grant.upload,
            "start": grant.start,
            "end": grant.end,
            "size": grant.size,
        }
        return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": kid})

    def known(self, token: str) -> Grant:
        """The grant of a token that one of the keys of today or yesterday has signed, and that still counts.

        Raises:
            CallerDenied: it is not; `why` says "expired" or "invalid".
        """
        try:
            grant = self._read(token)
        except (jwt.InvalidTokenError, ValueError, KeyError, TypeError):
            why = "it is none of this server's"
            raise _denied(why, "invalid") from None
        if grant.expires <= self._clock():
            why = "it has expired: a fresh one comes with the work"
            raise _denied(why, "expired")
        return grant

    def check(self, token: str, direction: Direction) -> Grant:
        """The same of one that is to read, or to write.

        Raises:
            CallerDenied: as `known`; or `why` says "direction".
        """
        grant = self.known(token)
        if grant.direction != direction:
            why = f"it is for a {grant.direction}, not for a {direction}"
            raise _denied(why, "direction")
        return grant

    def _read(self, token: str) -> Grant:
        if len(token) > _LONGEST:
            msg = "no grant is that long"
            raise ValueError(msg)
        kid = jwt.get_unverified_header(token)["kid"]
        key = dict(self._valid())[kid]
        # Hours are looked at by our own clock; the algorithm is never the token's choice.
        told: dict[str, Any] = jwt.decode(
            token,
            key.public_key(),
            algorithms=[_ALGORITHM],
            audience=_AUDIENCE,
            issuer=_ISSUER,
            options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False},
        )
        if told["dir"] not in {"read", "write"}:
            msg = "a grant reads or writes"
            raise ValueError(msg)
        start, end, size = (int(told[name]) for name in ("start", "end", "size"))
        part, upload = int(told["part"]), str(told["upload"])
        return Grant(told["dir"], str(told["sub"]), part, upload, start, end, size, float(told["exp"]))

    def _valid(self) -> list[tuple[str, Ed25519PrivateKey]]:
        day = self._day()
        return [self._key(secret, each) for secret in self._secrets for each in (day, day - 1)]

    def _day(self) -> int:
        return int(self._clock() // ROTATION)

    def _key(self, secret: str, day: int) -> tuple[str, Ed25519PrivateKey]:
        """A day's key and its name, which says which secret it is of without telling it."""
        found = self._drawn.get((secret, day))
        if found is None:
            if len(self._drawn) > 4 * len(self._secrets):
                self._drawn.clear()
            seed = HKDF(SHA256(), 32, b"cropduster", f"grants of day {day}".encode()).derive(secret.encode())
            found = self._drawn[secret, day] = Ed25519PrivateKey.from_private_bytes(seed)
        public = found.public_key().public_bytes_raw()
        return f"{day}.{hashlib.sha256(public).hexdigest()[:16]}", found


def _denied(why: str, kind: str) -> CallerDenied:
    msg = f"this grant does not count: {why}"
    return CallerDenied(msg, why=kind)
