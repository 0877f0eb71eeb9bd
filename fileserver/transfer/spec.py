"""What was asked, after validation: typed specs of the verbs. Plain data; looks at no plane."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from fileserver.formats.csv import Csv
from fileserver.formats.fixed import Fixed

__all__ = [
    "MOST_DELETED",
    "Copy",
    "Csv",
    "Despray",
    "Fixed",
    "Format",
    "Ingest",
    "Location",
    "Replicate",
    "Spec",
    "Spray",
    "Sync",
    "Verb",
    "format_from_json",
    "format_to_json",
    "spec_from_json",
    "spec_to_json",
]


MOST_DELETED: Final = 1000
"""Deletions of a sync that nobody had to allow."""


@dataclass(frozen=True, slots=True)
class Location:
    """An object (or, as a source, a wildcard) on a plane; `plane` is "local" for the caller's own machine."""

    plane: str
    key: str


Format = Fixed | Csv


@dataclass(frozen=True, slots=True)
class Spray:
    """One file or many into the parts of a logical file; `parts` and `part_size` are 0 where not given."""

    sources: tuple[Location, ...]
    file: str
    plane: str
    parts: int
    part_size: int
    format: Format | None
    natural_order: bool = False
    no_split: bool = False


@dataclass(frozen=True, slots=True)
class Despray:
    """The parts of a logical file back into one object; or, with `sources`, those objects into one."""

    file: str
    target: Location
    sources: tuple[Location, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """A logical file into another; `parts` and `part_size` 0 keep the parts as they are."""

    file: str
    new_file: str
    plane: str
    parts: int = 0
    part_size: int = 0


@dataclass(frozen=True, slots=True)
class Replicate:
    """Another copy of the same parts of a logical file, on another plane."""

    file: str
    plane: str


@dataclass(frozen=True, slots=True)
class Sync:
    """What is missing or different of the objects below one folder, copied below another; keys may be empty."""

    source: Location
    target: Location
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    names: Location | None = None
    delete: bool = False
    max_delete: int = MOST_DELETED
    checksum: bool = False


@dataclass(frozen=True, slots=True)
class Ingest:
    """HDF5 files into domains of an HSDS server."""

    sources: tuple[Location, ...]
    """Files, wildcards, and folders (keys that end in "/" or are empty)."""
    domain: str
    """Path of the domain as HSDS has it, like /home/user/name; of the folder, if "/" is at its end."""
    target: str = ""
    """Name of the server; empty is the first that is configured."""
    mode: str = "auto"
    """auto, direct, rest or link."""
    verify: str = "auto"
    """auto, none, metadata, sample or full."""
    no_folders: bool = False
    public_read: bool = False
    aggregate: str = ""
    """Dimension along which all files are joined into one domain; empty for a domain a file."""
    skip_bad: bool = False
    """Files that cannot be joined are left out; else nothing is joined if there is one."""


Verb = Spray | Despray | Copy | Replicate | Sync | Ingest


@dataclass(frozen=True, slots=True)
class Spec:
    """One transfer as asked."""

    verb: Verb
    overwrite: bool = False
    verify_read: bool = False
    priority: int = 0
    """Which goes first of those that wait for one plane (`transfer.turns`); 0 is as usual."""


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """Plain data for the store; bytes become latin-1 text."""
    verb = asdict(spec.verb, dict_factory=_plain)
    if isinstance(spec.verb, Spray):
        verb["format"] = format_to_json(spec.verb.format)
    if isinstance(spec.verb, Despray) and not spec.verb.sources:
        del verb["sources"]  # as older versions have it: what is stored is compared
    kind = type(spec.verb).__name__.lower()
    asked = {"kind": kind, "verb": verb, "overwrite": spec.overwrite, "verify_read": spec.verify_read}
    return {**asked, "priority": spec.priority} if spec.priority else asked


def spec_from_json(data: dict[str, Any]) -> Spec:
    """The inverse of `spec_to_json`."""
    verb = dict(data["verb"])
    if data["kind"] == "spray":
        verb["sources"] = tuple(Location(**location) for location in verb["sources"])
        verb["format"] = format_from_json(verb["format"])
        made: Verb = Spray(**verb)
    elif data["kind"] == "despray":
        sources = tuple(Location(**location) for location in verb.get("sources", ()))
        made = Despray(verb["file"], Location(**verb["target"]), sources)
    elif data["kind"] == "sync":
        places = {name: Location(**verb[name]) for name in ("source", "target", "names") if verb[name]}
        globs = {name: tuple(verb[name]) for name in ("include", "exclude")}
        made = Sync(**{**verb, **places, **globs})
    elif data["kind"] == "replicate":
        made = Replicate(**verb)
    elif data["kind"] == "ingest":
        made = Ingest(**{**verb, "sources": tuple(Location(**location) for location in verb["sources"])})
    else:
        made = Copy(**verb)
    return Spec(made, data["overwrite"], data["verify_read"], data.get("priority", 0))


def format_to_json(form: Format | None) -> dict[str, Any] | None:
    """Plain data for the catalogue: {"kind": "fixed" | "csv", …}."""
    return None if form is None else {"kind": type(form).__name__.lower(), **asdict(form, dict_factory=_plain)}


def format_from_json(data: dict[str, Any] | None) -> Format | None:
    """The inverse of `format_to_json`."""
    if data is None:
        return None
    if data["kind"] == "fixed":
        return Fixed(data["record_size"])
    tokens = {name: tuple(t.encode("latin-1") for t in data[name]) for name in _TOKENS}
    return Csv(**tokens, max_record=data["max_record"], split=data["split"])


_TOKENS: Final = ("separators", "terminators", "quotes", "escapes")


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """As JSON has it, where a list comes back as a list: what is stored is compared with what is asked again."""
    return {name: _value(name, value) for name, value in items}


def _value(name: str, value: Any) -> Any:
    if name in _TOKENS:
        return [token.decode("latin-1") for token in value]
    return list(value) if isinstance(value, tuple) else value
