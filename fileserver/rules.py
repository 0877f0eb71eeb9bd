"""Rules: who may do what with which names. Pure; asks nobody.

A name in a rule stands for itself and for everything below it; with `/` at its end only for what is below it, and with
`*` for everything that begins so.
Names are compared character by character: what only looks the same is another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from fileserver.catalogue.names import normalise
from fileserver.errors import InvalidSpec

GROUP: Final = "group:"
"""How rules write that a name is that of a group."""

Kind = Literal["planes", "files", "domains", "hosts"]
_SEPARATORS: Final[Mapping[Kind, str]] = {"planes": "/", "files": "::", "domains": "/", "hosts": "/"}


class Verb(StrEnum):
    """What can be done with a thing; `admin` is about the server and what is everybody's, `serve` about hosts."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    ADMIN = "admin"
    SERVE = "serve"


@dataclass(frozen=True, slots=True)
class Thing:
    """A name that a call uses, resolved: `plane:key`, a normalised logical name, the address of a domain, or a host."""

    kind: Kind
    name: str
    below: bool = False
    """Whatever begins with this name: a folder with its separator, a wildcard as far as it is plain text."""

    @property
    def shown(self) -> str:
        """As a rule would write it."""
        return f"{self.name}*" if self.below else self.name


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name in a rule."""

    kind: Kind
    text: str
    open: bool
    """Whatever begins with the text, not only what is below it."""

    def covers(self, thing: Thing) -> bool:
        """Whether a thing, and all that it stands for, is what the pattern means."""
        if thing.kind != self.kind:
            return False
        if thing.kind == "planes" and not self.whole and _leads_elsewhere(thing.name):
            return False
        if self.open:
            return thing.name.startswith(self.text)
        return (thing.name == self.text and not thing.below) or thing.name.startswith(
            self.text + _SEPARATORS[self.kind]
        )

    @property
    def whole(self) -> bool:
        """Of a plane: all of it, or of all planes."""
        return self.open and (self.text == "" or self.text.endswith(":"))


@dataclass(frozen=True, slots=True)
class Rule:
    """What some callers may do."""

    who: frozenset[str]
    may: frozenset[Verb]
    things: Mapping[Kind, tuple[Pattern, ...]]

    def is_about(self, name: str, groups: Iterable[str]) -> bool:
        """Whether it is about a caller; a caller who is called like a group is none."""
        if "*" in self.who or (name in self.who and not name.startswith(GROUP)):
            return True
        return any(f"{GROUP}{group}" in self.who for group in groups)


class Rights:
    """What one caller may do.

    Args:
        rules: those about it.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    @property
    def admin(self) -> bool:
        """Whether what is everybody's is the caller's to change."""
        return any(Verb.ADMIN in rule.may for rule in self._rules)

    def allow(self, verb: Verb, thing: Thing) -> bool:
        """Whether one rule has the verb and the thing; nothing is allowed that no rule has."""
        return any(
            verb in rule.may and any(each.covers(thing) for each in rule.things[thing.kind]) for rule in self._rules
        )

    def sees_plane(self, name: str) -> bool:
        """Whether any rule is about something on a plane."""
        return self.admin or any(
            pattern.text.startswith(f"{name}:") or (pattern.open and f"{name}:".startswith(pattern.text))
            for rule in self._rules
            for pattern in rule.things["planes"]
        )


class Rules:
    """All rules of a configuration."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def of(self, name: str, groups: Iterable[str]) -> Rights:
        """What a caller may do, by its name and its groups."""
        groups = list(groups)
        return Rights([rule for rule in self._rules if rule.is_about(name, groups)])


def plane_pattern(text: str) -> Pattern:
    """Of `NAME`, `NAME:FOLDER/`, `NAME:PREFIX*` or `*`; raises ValueError."""
    name, colon, key = _checked(text).partition(":")
    if text == "*":
        return Pattern("planes", "", open=True)
    if not name or "*" in name or _leads_elsewhere(text):
        msg = f"'{text}' is no place: write a plane, like data, or a folder of one, like data:in/"
        raise ValueError(msg)
    if not colon or key in {"", "*"}:
        return Pattern("planes", f"{name}:", open=True)
    return _pattern("planes", f"{name}:{key}")


def file_pattern(text: str) -> Pattern:
    """Of `SCOPE::NAME`, `SCOPE::*` or `*`; raises ValueError."""
    bare = _checked(text).removesuffix("*")
    if not bare:
        return Pattern("files", "", open=True)
    scope = bare.removesuffix("::")
    try:
        name = normalise(scope)
    except InvalidSpec as error:
        raise ValueError(error.message) from None
    if scope != bare:
        return Pattern("files", f"{name}::", open=True)
    return Pattern("files", name, open=text.endswith("*"))


def domain_pattern(text: str) -> Pattern:
    """Of `hdf5://FOLDER/`, `hdf5://PREFIX*` or `*`; raises ValueError."""
    if text == "*":
        return Pattern("domains", "", open=True)
    if not _checked(text).startswith("hdf5://") or len(text) == len("hdf5://") or _leads_elsewhere(text):
        msg = f"'{text}' is no folder of HSDS: write one like hdf5://home/alice/"
        raise ValueError(msg)
    return _pattern("domains", text)


def host_pattern(text: str) -> Pattern:
    """Of `HOST`, `PREFIX*` or `*`; raises ValueError."""
    bare = _checked(text).removesuffix("*")
    return Pattern("hosts", bare, open=bare != text)


def _pattern(kind: Kind, text: str) -> Pattern:
    if text.endswith("*"):
        return Pattern(kind, text[:-1], open=True)
    return Pattern(kind, text, open=text.endswith("/"))


def _checked(text: str) -> str:
    if not text or "*" in text[:-1] or "?" in text:
        msg = f"'{text}' is no name: a * stands at its end only"
        raise ValueError(msg)
    return text


def _leads_elsewhere(name: str) -> bool:
    """Whether a step of a path is `.` or `..`, so that the path is not where its text says."""
    return any(step in {".", ".."} for step in name.partition(":")[2].split("/"))
