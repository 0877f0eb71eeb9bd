"""Sections of the configuration about callers from outside: whose tokens are taken, and what who may do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from fileserver.rules import GROUP, Kind, Pattern, Rule, Verb, domain_pattern, file_pattern, host_pattern, plane_pattern
from fileserver.sections import Duration, Reference, Section, loopback

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a private key that the server does not have; no others are ever taken."""
ALGORITHMS: Final[tuple[Algorithm, ...]] = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),
)
OWN_ISSUER: Final = "cropduster"
"""The issuer of tokens that `cropduster token create` makes."""


def _url(text: str) -> str:
    parts = urlsplit(text)
    safe = parts.scheme == "https" or (parts.scheme == "http" and loopback(f"{parts.hostname}:1"))
    if not safe or not parts.hostname or parts.query or parts.fragment or parts.username:
        msg = f"{text} is no address that keys can be had from: write https://HOST/PATH"
        raise ValueError(msg)
    return text


Url = Annotated[str, AfterValidator(_url)]


class Issuer(Section):
    """An OpenID Connect provider."""

    issuer: Url = Field(description="As its tokens have it in `iss`; its discovery document is looked up there.")
    audience: str = Field(default="", description="As its tokens have it in `aud`; tokens.audience if unset.")
    jwks: Url | None = Field(default=None, description="Where its keys are, instead of what the discovery says.")
    ca: Reference | None = Field(default=None, description="Who signed its certificate; the machine's own if unset.")
    prefix: str = Field(
        default="", description="Put before the names of its callers and groups, to tell issuers apart."
    )
    subject: str = Field(default="sub", min_length=1, description="The claim that names the caller.")
    groups: str = Field(default="groups", description="The claim that lists its groups.")
    algorithms: tuple[Algorithm, ...] = Field(default=ALGORITHMS, min_length=1)


class Tokens(Section):
    """Whose tokens are taken."""

    audience: str = Field(default="cropduster", min_length=1, description="What tokens have to be made for (`aud`).")
    leeway: Duration = Field(default=timedelta(seconds=30), description="How far clocks may differ.")
    keys: Mapping[str, Reference] = Field(
        default={}, description="Public Ed25519 keys by id: files as `cropduster token key` makes them."
    )
    issuers: tuple[Issuer, ...] = ()

    @model_validator(mode="after")
    def _can_be_told_apart(self) -> Self:
        if not self.keys and not self.issuers:
            msg = "name at least one key or one issuer: without, no token could be taken"
            raise ValueError(msg)
        if len({each.issuer for each in self.issuers} | {OWN_ISSUER}) <= len(self.issuers):
            msg = "an issuer is named twice"
            raise ValueError(msg)
        prefixes = [each.prefix for each in self.issuers]
        alike = any(a.startswith(b) for i, a in enumerate(prefixes) for j, b in enumerate(prefixes) if i != j)
        if alike or (self.keys and "" in prefixes):
            msg = "callers of one issuer could pass for those of another: give each issuer a `prefix` of its own"
            raise ValueError(msg)
        return self


class Rate(Section):
    """How often one caller from outside may call this server."""

    per_second: float = Field(default=50.0, gt=0)
    burst: int = Field(default=200, ge=1, description="Calls at once after a pause.")
    agents: int = Field(
        default=256, ge=1, description="Commands (push, fetch) whose files are reached through this server, at once."
    )


class Audit(Section):
    """A line for every call: who, from where, what, and how it ended."""

    enabled: bool = True
    file: Reference | None = Field(default=None, description="Where the lines go; the log if unset.")


class RuleSettings(Section):
    """What some callers may do. A name is itself and what is below it; `*` at its end is whatever follows."""

    who: tuple[str, ...] = Field(min_length=1, description='Names of callers, "group:NAME", or "*" for all of them.')
    may: tuple[Verb, ...] = Field(min_length=1)
    planes: tuple[str, ...] = Field(default=(), description='"NAME", "NAME:FOLDER/" or "NAME:PREFIX*"; "*" is all.')
    files: tuple[str, ...] = Field(default=(), description='"SCOPE::*" or "SCOPE::NAME"; "*" is all.')
    domains: tuple[str, ...] = Field(default=(), description='"hdf5://FOLDER/"; "*" is all.')
    hosts: tuple[str, ...] = Field(default=(), description="Hosts whose agents they may be, with may: [serve].")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        self.rule()
        if any(each in {"", GROUP} for each in self.who):
            msg = "who lists names of callers, and groups as group:NAME"
            raise ValueError(msg)
        if not (self.planes or self.files or self.domains or self.hosts) and set(self.may) != {Verb.ADMIN}:
            msg = "say of what, in planes, files, domains or hosts"
            raise ValueError(msg)
        if bool(self.hosts) != (Verb.SERVE in self.may):
            msg = "hosts and may: [serve] belong together: whoever serves a host is its agent"
            raise ValueError(msg)
        return self

    def rule(self) -> Rule:
        """The rule as it is asked; raises ValueError."""
        things: dict[Kind, tuple[Pattern, ...]] = {
            "planes": tuple(map(plane_pattern, self.planes)),
            "files": tuple(map(file_pattern, self.files)),
            "domains": tuple(map(domain_pattern, self.domains)),
            "hosts": tuple(map(host_pattern, self.hosts)),
        }
        return Rule(frozenset(self.who), frozenset(self.may), things)


def misplaced(
    rules: tuple[RuleSettings, ...], tokens: Tokens | None, planes: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """What is wrong with rules beside the rest of the configuration: paths of keys, and why."""
    if rules and tokens is None:
        yield "rules", "rules are about callers with tokens: configure tokens, too"
    for number, rule in enumerate(rules):
        for each in rule.planes:
            name = each.partition(":")[0]
            if planes and name != "*" and name not in planes:
                yield f"rules.{number}.planes", f"no plane is called {name}"
