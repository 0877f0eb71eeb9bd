"""The configuration: one YAML file, read once, checked whole; every mistake is told at once, by the path of its key.

Searched at the flag, `CROPDUSTER_CONFIG`, the user's and the system's config folder; never in the working directory,
where a stranger's file could wait. Without a file there is one posix plane `data` in the state directory. Secrets are
named by reference (`planes.settings.Secret`), so the text itself may be hashed and shown.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import platformdirs
import yaml
from pydantic import BaseModel, ByteSize, Field, ValidationError

from fileserver import state
from fileserver.callers import Audit, Rate, RuleSettings, Tokens, misplaced
from fileserver.errors import InvalidSpec
from fileserver.hdf5.hsds.settings import HsdsSettings
from fileserver.hosts import HostGroup, hosts_of, settled
from fileserver.sections import (
    KUBERNETES,
    Duration,
    Listen,
    MetricsSettings,
    Place,
    Reference,
    Section,
    TraceSettings,
    open_to_others,
    unguarded,
)
from fileserver.sections import check_address as refuse_open
from planes.errors import Error
from planes.opening import PROVIDERS, SettingsInvalid, parse_settings, provider
from planes.plane import MIB
from planes.posix import PosixSettings
from planes.settings import PlaneSettings, Secret

SYSTEM: Final = Path("/etc/cropduster/config.yaml")
DEFAULT_PARTS: Final = 4
"""Parts of a spray on the plane of the embedded default."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*")
_NAMED: Final = re.compile(rb"""env:\s*["']?([A-Za-z_][A-Za-z0-9_]*)""")


class State(Section):
    """What the server keeps."""

    directory: Place | None = Field(default=None, description="On a local disk; the user's data folder if unset.")


class Log(Section):
    """What the server tells."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"
    file: Place | None = Field(default=None, description="Appended to; standard error if unset.")


class DatabaseSettings(Section):
    """A PostgreSQL that many file servers share, instead of the SQLite of a state directory."""

    url: Secret = Field(description="Where postgresql://USER:PASSWORD@HOST/NAME stands.")


class ReplicaSettings(Section):
    """The file servers of one database, which take parts of each other's transfers."""

    address: str = Field(
        pattern=rf"^((dns|ipv4|ipv6|unix):.+|{KUBERNETES})$",
        description="As gRPC writes it: dns:///NAME:PORT of all of them, or ipv4:HOST:PORT,HOST:PORT; or "
        "kubernetes:///SERVICE:PORT, whose endpoints are watched.",
    )
    secret: Secret | None = Field(
        default=None, description="What they ask of each other; the same for all. With listen.internal.tls: not needed."
    )
    ca: Reference | None = Field(
        default=None, description="Who signs their certificates; listen.internal.tls.clients if unset."
    )
    name: str = Field(default="", description="The name in their certificates, where it is not that of the address.")


class Document(Section):
    """What may be in the file. Planes and HSDS servers are checked one by one, by the settings of their own kinds."""

    planes: object = None
    hsds: object = None
    default_plane: str | None = None
    host_groups: Mapping[str, HostGroup] = Field(default={}, description="Lists of hosts for planes, by name.")
    listen: Listen = Listen()
    state: State = State()
    log: Log = Log()
    database: DatabaseSettings | None = None
    replicas: ReplicaSettings | None = None
    tokens: Tokens | None = Field(default=None, description="Whose tokens callers from outside may show.")
    rules: tuple[RuleSettings, ...] = Field(
        default=(), description="What callers with tokens may do; nothing else, once there is a rule."
    )
    rate: Rate = Rate()
    audit: Audit = Audit()
    metrics: MetricsSettings | None = None
    traces: TraceSettings | None = None
    retire_after: Duration = timedelta(hours=1)
    memory: Annotated[ByteSize, Field(ge=16 * MIB)] = Field(
        default=ByteSize(128 * MIB), description="Bytes of payload that all transfers together hold at most."
    )


_CHECKED_APART: Final = frozenset({"planes", "hsds", "default_plane"})


class Config(Document):
    """A checked configuration, with every default filled in."""

    planes: Mapping[str, PlaneSettings]
    hsds: Mapping[str, HsdsSettings] = Field(default={}, description="HSDS servers; the first is the default.")
    default_plane: str | None = Field(default=None, description="The plane of a spray that names none.")
    source: Path | None = Field(default=None, description="The file it was read from.")
    text: bytes = Field(default=b"", repr=False)
    state_directory: Path
    """The flag's, the environment's, the file's or the default one; a real path."""

    builtin_plane: bool = False
    """No plane was configured: there is one in the state directory."""


def find(flag: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The config file: the flag, else `CROPDUSTER_CONFIG`, else the user's, else the system's, else none."""
    named = flag or environ.get("CROPDUSTER_CONFIG")
    if named:
        return Path(named).absolute()
    places = (Path(platformdirs.user_config_dir("cropduster")) / "config.yaml", SYSTEM)
    return next((place for place in places if place.is_file()), None)


def load(path: Path | None, environ: Mapping[str, str], state_flag: Path | None = None) -> Config:
    """Read and check the configuration.

    Args:
        path: the flag `--config`, if it was given.
        environ: the environment of this process.
        state_flag: the flag `--state`, if it was given.

    Raises:
        InvalidSpec: the file can't be read or something in it is wrong; `violations` has the path of every such key.
    """
    source = find(path, environ)
    text = _read(source) if source else b""
    document = _parse(text, source)
    violations: dict[str, str] = {}
    try:
        rest = Document.model_validate(document)
    except ValidationError as error:
        rest = Document()
        violations.update(_violations(error, Document))
    directory = state.locate(state_flag, environ, rest.state.directory)
    offered = document.get("planes")
    builtin = offered is None
    if builtin:
        offered = {"data": {"type": "posix", "path": str(directory / "data"), "default_parts": DEFAULT_PARTS}}
    planes = settled(_planes(offered, violations), rest.host_groups, violations)
    servers = _hsds(document.get("hsds"), {} if builtin else planes, violations)
    violations.update(_alone(rest, planes))
    violations.update(unguarded(rest.listen, tokens=rest.tokens is not None))
    violations.update(misplaced(rest.rules, rest.tokens, planes))
    named = document.get("default_plane")
    default = _default_plane(named if isinstance(named, str) else None, planes, violations)
    if violations:
        lines = "".join(f"\n  {key}: {what}" for key, what in violations.items())
        msg = f"the configuration {source or '(built in)'} can't be used:{lines}"
        raise InvalidSpec(msg, violations, path=str(source or ""))
    return Config(
        planes=planes,
        hsds=servers,
        default_plane=default,
        source=source,
        text=text,
        state_directory=directory,
        builtin_plane=builtin,
        **{name: getattr(rest, name) for name in Document.model_fields if name not in _CHECKED_APART},
    )


def check_address(field: str, address: str, config: Config) -> str:
    """The address, if the internal listener may have it; raises InvalidSpec."""
    internal = config.listen.internal
    try:
        refuse_open(address, guarded=internal is not None and internal.tls is not None)
    except ValueError as error:
        msg = f"{field}: {error}"
        raise InvalidSpec(msg, {field: str(error)}) from None
    return address


def digest(config: Config, environ: Mapping[str, str]) -> str:
    """16 hex digits over the text of the file and the values of the environment variables that it names.

    The client computes the same (`client.embedded.digest`) to see that another configuration is in force.
    """
    whole = hashlib.sha256(config.text)
    for name in dict.fromkeys(found.decode() for found in _NAMED.findall(config.text)):
        whole.update(os.fsencode(f"\0{name}={environ.get(name, '')}"))
    return whole.hexdigest()[:16]


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        msg = f"the configuration {source} can't be read ({error.strerror}): check --config and CROPDUSTER_CONFIG"
        raise InvalidSpec(msg, {"config": msg}, path=str(source)) from error


class _Loader(yaml.SafeLoader):
    """YAML without its trap that the last of two equal keys wins in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a key must be a word"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                problem = f"the key {key} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse(text: bytes, source: Path | None) -> dict[str, Any]:
    try:
        document = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader with one more check
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "unknown place"
        msg = f"the configuration {source} is no YAML: {error.problem} at {where}"
        raise InvalidSpec(msg, {where: str(error.problem)}, path=str(source)) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        msg = f"the configuration {source} is no YAML: it holds characters that no text has"
        raise InvalidSpec(msg, {"config": msg}, path=str(source)) from None
    except (ValueError, RecursionError):  # their words may hold a value, which may be a secret
        msg = f"the configuration {source} is no YAML: a number or a date in it is none, or it is nested too deep"
        raise InvalidSpec(msg, {"config": msg}, path=str(source)) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        msg = f"the configuration {source} must be a mapping with keys like planes and listen"
        raise InvalidSpec(msg, {"config": msg}, path=str(source))
    return {str(key): value for key, value in document.items()}


def _planes(offered: object, violations: dict[str, str]) -> dict[str, PlaneSettings]:
    planes: dict[str, PlaneSettings] = {}
    if not isinstance(offered, dict) or not offered:
        violations["planes"] = "name at least one plane, or leave the key out for one in the state directory"
        return planes
    for key, settings in offered.items():
        name = str(key)
        try:
            planes[name] = parse_settings(name, settings)
        except SettingsInvalid as error:
            violations.update((problem.path, problem.message) for problem in error.problems)
            violations.update(_unknown(settings, f"planes.{name}"))
        except Error as error:
            violations[f"planes.{name}"] = error.message
    return planes


def _hsds(offered: object, planes: Mapping[str, PlaneSettings], violations: dict[str, str]) -> dict[str, HsdsSettings]:
    servers: dict[str, HsdsSettings] = {}
    if offered is None:
        return servers
    if not isinstance(offered, dict) or not offered:
        violations["hsds"] = "name at least one server, like main: {endpoint: 'http://127.0.0.1:5101'}"
        return servers
    for key, settings in offered.items():
        name, here = str(key), f"hsds.{key}"
        if not _NAME.fullmatch(name):
            violations[here] = "a name is lower-case letters, digits, '-' and '_', and begins with a letter"
            continue
        try:
            servers[name] = HsdsSettings.model_validate(settings)
        except ValidationError as error:
            violations.update(
                (f"{here}.{at}".rstrip("."), what) for at, what in _violations(error, HsdsSettings).items()
            )
            continue
        storage = servers[name].storage
        if storage and storage not in planes and f"planes.{storage}" not in violations:
            violations[f"{here}.storage"] = f"no plane is called {storage}{_nearest(storage, planes)}"
    return servers


def _alone(rest: Document, planes: Mapping[str, PlaneSettings]) -> Iterator[tuple[str, str]]:
    """What only a server that shares its database can have, and what it cannot."""
    secure = rest.listen.internal is not None and rest.listen.internal.tls is not None
    if rest.replicas is not None and not secure:
        if rest.replicas.secret is None:
            yield "replicas.secret", "file servers without certificates (listen.internal.tls) need a secret"
        if open_to_others(rest.replicas.address):
            yield "replicas.address", "calls to other machines are not encrypted: configure listen.internal.tls"
    if rest.database is None:
        if rest.replicas is not None:
            yield "replicas", "file servers find each other's transfers in a database: set database.url as well"
        return
    for name, settings in planes.items():
        if isinstance(settings, PosixSettings) and not settings.shared and not hosts_of(settings):
            msg = (
                "with a database any file server may work on this plane: say `shared: true` if all of them see the "
                "same files below this path (NFS and its like), name the `hosts` whose agents have them, or use a store"
            )
            yield f"planes.{name}.shared", msg


def _unknown(settings: object, path: str) -> Iterator[tuple[str, str]]:
    """The keys of a plane that its type doesn't know, each with the known one that is nearest."""
    if not isinstance(settings, dict) or settings.get("type") not in PROVIDERS:
        return
    model: type[BaseModel] = provider(settings["type"]).settings
    for place, keys in ((), settings), (("limits",), settings.get("limits")):
        known = list(_keys(model, place))
        for key in keys if isinstance(keys, dict) else ():
            if key not in known:
                yield ".".join((path, *place, str(key))), _not_known(str(key), known)


def _default_plane(asked: str | None, planes: Mapping[str, PlaneSettings], violations: dict[str, str]) -> str | None:
    if asked is not None:
        if asked not in planes and f"planes.{asked}" not in violations:
            violations["default_plane"] = f"no plane is called {asked}{_nearest(asked, planes)}"
        return asked
    if "data" in planes:
        return "data"
    return next((name for name, settings in planes.items() if settings.category == "data"), None)


def _not_known(key: str, known: Iterable[str]) -> str:
    known = list(known)
    return "unknown key" + (_nearest(key, known) or f"; known here: {', '.join(known)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {close[0]}?" if close else ""


def _violations(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    """The path of each wrong key and what is wrong with it; never the value, which may be a secret."""
    found: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            found[path] = _not_known(str(item["loc"][-1]), _keys(model, item["loc"][:-1]))
        else:
            found[path] = item["msg"].removeprefix("Value error, ")
    return found


def _keys(model: type[BaseModel] | None, loc: tuple[int | str, ...]) -> Iterator[str]:
    """The keys that a model knows at a place within it."""
    for step in loc:
        kind = model.model_fields[str(step)].annotation if model and str(step) in model.model_fields else None
        kind = next((each for each in get_args(kind) if each is not type(None)), kind)  # of X | None the X
        model = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
    yield from model.model_fields if model else ()
