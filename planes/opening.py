"""From the configuration to planes that are ready for use: an explicit table, no registration by import.

A provider's module is imported when a plane of its type is configured, so that its SDK is loaded, and need be
installed, only then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from planes.errors import Refused
from planes.limited import LimitedPlane
from planes.metered import MeteredPlane
from planes.plane import Plane
from planes.retrying import Patience, RetryingPlane
from planes.settings import PlaneLimits, PlaneSettings

# ruff: noqa: PLC0415 - imports inside of the openers are what this module is for

S = TypeVar("S", bound=PlaneSettings)

RESERVED: Final = "local"
"""The plane of bare paths; not to be configured."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one value of the configuration; `path` is where, as `planes.data.limits.requests`."""

    path: str
    message: str


class SettingsInvalid(ValueError):
    """The configuration of a plane is wrong; all problems at once. Holds no value of the configuration."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{p.path}: {p.message}" for p in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Provider:
    """How planes of one type are configured and made."""

    settings: type[PlaneSettings]
    make: Callable[[str, PlaneSettings], Plane]


def provider(kind: str) -> Provider:
    """The provider of a type, imported now.

    Raises:
        Refused: its packages are not installed.
        KeyError: there is no such type.
    """
    load, extra = PROVIDERS[kind]
    try:
        return load()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "planes":
            raise  # a module of ours: a bug, not an installation
        msg = f"planes of type {kind} need the package {error.name}: pip install 'cropduster[{extra}]'"
        raise Refused(msg, type=kind, package=error.name, extra=extra) from error


def parse_settings(name: str, mapping: object) -> PlaneSettings:
    """The settings of one plane from its part of the configuration.

    Raises:
        SettingsInvalid: something in it is wrong.
        Refused: the packages of its type are not installed.
    """
    here = f"planes.{name}"
    if not _NAME.fullmatch(name) or name == RESERVED:
        rule = "a name is lower-case letters, digits, '-' and '_', begins with a letter, and is not 'local'"
        raise SettingsInvalid((Problem(here, rule),))
    kinds = ", ".join(PROVIDERS)
    if not isinstance(mapping, Mapping):
        raise SettingsInvalid((Problem(here, f"must have keys of its own, at least `type` (one of {kinds})"),))
    kind = mapping.get("type")
    if not isinstance(kind, str) or kind not in PROVIDERS:
        raise SettingsInvalid((Problem(f"{here}.type", f"must be one of {kinds}"),))
    model = provider(kind).settings
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        raise SettingsInvalid(tuple(_problems(here, model, error))) from None  # its cause may quote a secret


def open_plane(name: str, settings: PlaneSettings, patience: Patience | None = None) -> Plane:
    """A plane ready for use: retrying(limited(metered(provider))). Nothing is asked of the provider yet.

    Each attempt of a retried request is limited and counted for itself. Without a `patience` a provider that does not
    answer is waited for half a minute, one that asks to slow down two minutes.

    Raises:
        Refused: the packages of its type are not installed, or a secret cannot be found.
    """
    return decorated(provider(settings.type).make(name, settings), settings.limits, patience)


def open_local() -> Plane:
    """This host's own files as the plane `local`, for callers who are the user of this process."""
    from planes.posix import PosixPlane

    return decorated(PosixPlane.local(), PlaneLimits())


def decorated(plane: Plane, limits: PlaneLimits, patience: Patience | None = None) -> Plane:
    """The layers that every plane gets; `planes.wrapped.find` finds each of them again."""
    patience = patience or Patience()
    limited = LimitedPlane(MeteredPlane(plane), limits, clock=patience.clock, sleep=patience.sleep)
    return RetryingPlane(limited, patience)


def _provider(settings: type[S], make: Callable[[str, S], Plane]) -> Provider:
    def made(name: str, given: PlaneSettings) -> Plane:
        if not isinstance(given, settings):
            msg = f"settings of plane {name} are {type(given).__name__}, not {settings.__name__}"
            raise TypeError(msg)
        return make(name, given)

    return Provider(settings, made)


def _posix() -> Provider:
    from planes.posix import PosixPlane, PosixSettings

    return _provider(PosixSettings, PosixPlane)


def _s3() -> Provider:
    from planes.s3 import S3Plane, S3Settings

    return _provider(S3Settings, S3Plane)


def _azure() -> Provider:
    from planes.azure import AzurePlane, AzureSettings

    return _provider(AzureSettings, AzurePlane)


def _memory() -> Provider:
    from planes.memory import MemoryPlane, MemorySettings

    return _provider(MemorySettings, MemoryPlane)


PROVIDERS: Final[Mapping[str, tuple[Callable[[], Provider], str]]] = {
    "posix": (_posix, "server"),
    "s3": (_s3, "s3"),
    "azure": (_azure, "azure"),
    "memory": (_memory, "server"),
}
"""By type: how to load it, and the extra of the distribution that installs what it needs."""


def _problems(here: str, model: type[PlaneSettings], error: ValidationError) -> Iterator[Problem]:
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join([here, *map(str, each["loc"])])
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            known = f"; known here: {', '.join(model.model_fields)}" if len(each["loc"]) == 1 else ""
            message = f"is not a known key{known}"
        yield Problem(path, message)
