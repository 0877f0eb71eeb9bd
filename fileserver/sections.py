"""Sections of the configuration that say who may reach the server, and what all sections are made of."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_UNIT: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


KUBERNETES: Final = r"kubernetes:///([a-z0-9-]+)(?:\.([a-z0-9-]+))?:([0-9]{1,5})"
"""How the pods of a service are written: `kubernetes:///SERVICE[.NAMESPACE]:PORT`."""


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        msg = 'a duration is a number and its unit, like "90s", "30m", "1h" or "7d"'
        raise ValueError(msg)
    try:
        return timedelta(seconds=float(found[1]) * _UNIT[found[2]])
    except OverflowError:
        msg = f"{value} is longer than anybody can wait"
        raise ValueError(msg) from None


def _place(path: Path) -> Path:
    if "\0" in str(path):
        msg = "a path holds no zero byte"
        raise ValueError(msg)
    return path


def _whole(path: Path) -> Path:
    if not path.is_absolute():
        msg = f"{path} depends on where the server is started: write an absolute path"
        raise ValueError(msg)
    return _place(path)


def _address(value: str) -> str:
    """HOST:PORT, or the absolute path of a unix socket."""
    if value.startswith("/"):
        return value
    _, separator, port = value.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        msg = f'{value} is no address: write HOST:PORT like "127.0.0.1:7300", or the absolute path of a unix socket'
        raise ValueError(msg)
    return value


def loopback(address: str) -> bool:
    """Whether only this machine can reach an address: a unix socket, or HOST:PORT of loopback."""
    if address.startswith("/"):
        return True
    bare = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def open_to_others(target: str) -> bool:
    """Whether a target as gRPC writes it holds an IP address of another machine, or stands for pods."""
    kind, _, rest = target.partition(":")
    return kind == "kubernetes" or (kind in {"ipv4", "ipv6"} and not all(map(loopback, rest.split(","))))


def check_address(address: str, *, guarded: bool) -> None:
    """Raise ValueError unless it is an address, and one that others may reach only if the listener is guarded."""
    if not loopback(_address(address)) and not guarded:
        msg = f"{address} is not a loopback address: until TLS and tokens are configured, only this machine may call"
        raise ValueError(msg)


OpenAddress = Annotated[str, AfterValidator(_address), Field(pattern="^[^/]")]
"""HOST:PORT for whoever comes, in the clear: nothing that is said there is a secret."""
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Place = Annotated[Path, AfterValidator(_place)]
Reference = Annotated[Path, AfterValidator(_whole)]
"""An absolute path of a file that is read when the server starts, or whenever it changes."""


class Section(BaseModel):
    """Part of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Tls(Section):
    """Certificates of a listener, in PEM; read again whenever the files change."""

    certificate: Reference = Field(description="The server's certificate, and behind it those that signed it.")
    key: Reference = Field(description="The private key of the first of them.")
    clients: Reference | None = Field(default=None, description="Whoever signs certificates of callers.")


def _listener(value: object) -> object:
    return {"address": _address(value)} if isinstance(value, str) else value


class Internal(Section):
    """Where the server's own kind calls."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        description="HOST:PORT, or the path of a unix socket; loopback only, unless `tls` is given."
    )
    tls: Tls | None = Field(default=None, description="Callers must show a certificate that `tls.clients` signed.")
    allow: tuple[str, ...] = Field(
        default=(), description="Names in certificates of those who may call: a URI, a host name, else the common name."
    )

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        check_address(self.address, guarded=self.tls is not None)
        if self.tls is not None and self.tls.clients is None:
            msg = "callers of the internal address show certificates: name who signs them in tls.clients"
            raise ValueError(msg)
        if self.tls is not None and not self.allow:
            msg = 'name the callers in allow, by the names in their certificates (["*"]: whoever has one)'
            raise ValueError(msg)
        if self.tls is None and self.allow:
            msg = "allow is about certificates of callers: configure tls as well"
            raise ValueError(msg)
        return self


class External(Section):
    """Where everybody else calls."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        description="HOST:PORT, or the path of a unix socket; loopback only, unless `tls` and tokens are configured."
    )
    tls: Tls | None = None
    reflection: bool = Field(default=False, description="Whether callers may ask which services there are.")

    @model_validator(mode="after")
    def _asks_for_no_certificate(self) -> Self:
        if self.tls is not None and self.tls.clients is not None:
            msg = "callers from outside show tokens, no certificates: leave tls.clients out"
            raise ValueError(msg)
        return self


class Listen(Section):
    """Where the server answers, beside the socket of its state directory."""

    internal: Annotated[Internal | None, BeforeValidator(_listener, json_schema_input_type=str | Internal | None)] = (
        Field(default=None, description="For the server's own kind; an address, or a section with certificates.")
    )
    external: Annotated[External | None, BeforeValidator(_listener, json_schema_input_type=str | External | None)] = (
        Field(default=None, description="The same for callers from outside; closed if unset.")
    )
    health: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="For probes, in the clear: whether the server serves, and nothing else."
    )


class MetricsSettings(Section):
    """What a Prometheus may ask."""

    listen: OpenAddress = Field(description="HOST:PORT where anybody may ask for numbers, in the clear.")


class TraceSettings(Section):
    """Who collects traces."""

    endpoint: str = Field(
        pattern=r"^https?://[^\s@]+$", description="Where spans are sent by OTLP over HTTP, like http://collector:4318."
    )


def unguarded(listen: Listen, *, tokens: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with the external listener, given whether it can ask for tokens: paths of keys, and why."""
    if listen.external is None:
        return
    try:
        check_address(listen.external.address, guarded=listen.external.tls is not None and tokens)
    except ValueError as error:
        yield "listen.external", str(error)
    else:
        if listen.external.tls is not None and not tokens:
            yield "listen.external.tls", "callers from outside show tokens: configure them, too"
