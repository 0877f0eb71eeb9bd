"""Tokens: JSON Web Tokens (RFC 7519) that name their holder, signed by an issuer of the configuration.

Which key and which signatures count is decided by the configuration, never by the token (RFC 8725): the token only says
which of the configured issuers and which of that issuer's keys to try. What is wrong with one is told in general words,
and the token itself is in no message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fileserver.callers import OWN_ISSUER, Tokens
from fileserver.errors import CallerUnknown, InvalidSpec
from fileserver.guard.jwks import Fetch, IssuerKeys

_REQUIRED: Final = ("exp", "iss", "aud")
_MALFORMED: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""Whatever there may be in what a stranger sends: nested a thousand deep, with times beyond all numbers."""
_WHY: Final[Mapping[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired: get a new one",
    jwt.ImmatureSignatureError: "it does not count yet: do the clocks differ?",
    jwt.InvalidSignatureError: "its signature is wrong",
}
_LONGEST_NAME: Final = 200
_MOST_GROUPS: Final = 500


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a token names."""

    name: str
    groups: frozenset[str]
    ends: float
    """Seconds since 1970 until which the token counts."""


@dataclass(frozen=True, slots=True)
class _Own:
    """The keys of the configuration."""

    keys: Mapping[str, Ed25519PublicKey]
    audience: str
    prefix: str = ""
    subject: str = "sub"
    groups: str = "groups"
    algorithms: Sequence[str] = ("EdDSA",)

    async def key(self, kid: str, _algorithm: str) -> Ed25519PublicKey | None:
        return self.keys.get(kid)


@dataclass(frozen=True, slots=True)
class _Provider:
    """The keys of an OpenID Connect provider."""

    found: IssuerKeys
    audience: str
    prefix: str
    subject: str
    groups: str
    algorithms: Sequence[str]

    async def key(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        published = await self.found.key(kid)
        if published is None or published.get("alg", algorithm) != algorithm:
            return None
        try:
            return jwt.PyJWK(dict(published), algorithm)  # an RSA key makes no ES256, and a secret none of these
        except jwt.PyJWTError:
            return None


class Verifier:
    """Checks tokens. Belongs to one event loop.

    Args:
        settings: whose tokens are taken.
        fetch: gets the keys of providers; for tests.
        now: seconds since 1970.

    Raises:
        InvalidSpec: a key of the configuration cannot be used.
    """

    def __init__(self, settings: Tokens, fetch: Fetch | None = None, now: Callable[[], float] = time.time) -> None:
        self._leeway = settings.leeway.total_seconds()
        self._now = now
        self._sources: dict[str, _Own | _Provider] = {}
        if settings.keys:
            keys = {kid: public_key(path, f"tokens.keys.{kid}") for kid, path in settings.keys.items()}
            self._sources[OWN_ISSUER] = _Own(keys, settings.audience)
        for each in settings.issuers:
            audience = each.audience or settings.audience
            more = (each.prefix, each.subject, each.groups, each.algorithms)
            self._sources[each.issuer] = _Provider(IssuerKeys(each, fetch), audience, *more)

    async def identity(self, token: str) -> Identity:
        """Whom a token names.

        Raises:
            CallerUnknown: it is none, or does not count here and now.
            ServerUnavailable: its issuer does not tell its keys.
        """
        head, issuer = _unverified(token)
        source = self._sources.get(issuer)
        algorithm, kid = head.get("alg"), head.get("kid")
        if source is None:
            why = "its issuer (iss) is none of those whose tokens are taken here"
            raise _unknown(why)
        if not isinstance(algorithm, str) or algorithm not in source.algorithms:
            why = "it is not signed (alg) as tokens of its issuer have to be"
            raise _unknown(why)
        key = await source.key(kid, algorithm) if isinstance(kid, str) else None
        if key is None:
            why = "its key (kid) is none of its issuer's"
            raise _unknown(why)
        return self._named(_verified(token, key, algorithm, source.audience, self._leeway), source)

    def _named(self, claims: Mapping[str, Any], source: _Own | _Provider) -> Identity:
        subject, groups = claims.get(source.subject), claims.get(source.groups, [])
        if not isinstance(subject, str) or not subject or not _is_plain(subject):
            what = f"its {source.subject} is no name of a caller"
            raise _unknown(what)
        groups = [groups] if isinstance(groups, str) else groups
        listed = groups if isinstance(groups, list) else []
        known = frozenset(source.prefix + each for each in listed[:_MOST_GROUPS] if isinstance(each, str))
        return Identity(source.prefix + subject, known, float(claims["exp"]) + self._leeway)


def _unverified(token: str) -> tuple[Mapping[str, Any], str]:
    """The head of a token, and whom it says it is from: as far as it can be told what to check it by."""
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        return jwt.get_unverified_header(token), issuer if isinstance(issuer, str) else ""
    except _MALFORMED:
        why = "it is no JSON Web Token"
        raise _unknown(why) from None


def _verified(token: str, key: Any, algorithm: str, audience: str, leeway: float) -> Mapping[str, Any]:
    """The claims of a token whose signature, times and audience are right; raises CallerUnknown."""
    try:
        return jwt.decode(
            token, key, algorithms=[algorithm], audience=audience, leeway=leeway, options={"require": list(_REQUIRED)}
        )
    except jwt.InvalidAudienceError:
        why = f"it was not made for this server (aud is not {audience})"
    except jwt.MissingRequiredClaimError as error:
        why = f"it does not say {error.claim}"
    except _MALFORMED as error:
        why = next((said for kind, said in _WHY.items() if isinstance(error, kind)), "it is malformed")
    raise _unknown(why)


def public_key(path: Path, field: str) -> Ed25519PublicKey:
    """The public key in a PEM file; raises InvalidSpec."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise _no_key(path, field, f"cannot be read ({error.strerror})") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _no_key(path, field, "holds no public key in PEM: `cropduster token key` makes one") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, field, "is no Ed25519 key: `cropduster token key` makes one")
    return key


def _no_key(path: Path, field: str, why: str) -> InvalidSpec:
    msg = f"{field}: {path} {why}"
    return InvalidSpec(msg, {field: f"{path} {why}"}, path=str(path))


def _is_plain(name: str) -> bool:
    return len(name) <= _LONGEST_NAME and name.isprintable()


def _unknown(why: str) -> CallerUnknown:
    return CallerUnknown(f"the token is not taken: {why}")
