"""Hosts: machines whose agents keep the files of planes. Which group holds which, and what lies on which. Pure.

A key of a plane with hosts is HOST/PATH: it says by itself whose the file is, whatever becomes of the group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from fileserver.sections import Section
from planes.posix import PosixSettings, wrong_hosts
from planes.settings import PlaneSettings

AGENT_OF: Final = "host:"
"""How agents of hosts are called, before the name of the host; no plane can be called so."""


RESTARTED: Final = "restarted"
"""Why a host does not commit what it was sent: it may have lost some of that since."""


def agent_of(host: str) -> str:
    """What the agent of a host is called where its work is written down."""
    return f"{AGENT_OF}{host}"


def what_waits(agent: str) -> str:
    """What is told of a transfer that stands still because an agent is away, and nobody asked for it."""
    if agent.startswith(AGENT_OF):
        host = agent.removeprefix(AGENT_OF)
        return f"it stands still because no agent of host {host} is connected, and goes on by itself when one is"
    return "it stands still because the command that carries its files has ended: given again, that goes on with it"


def host_of(key: str) -> str:
    """The host that a key of a plane with hosts names, or a token of an upload there; "" if it names none."""
    host, slash, _ = key.partition("/")
    return host if slash else ""


def place(hosts: Sequence[str], number: int) -> str:
    """The host of a part, whose number counts from 1; "" without hosts."""
    return hosts[(number - 1) % len(hosts)] if hosts else ""


def below(host: str, key: str) -> str:
    """A key of a host; the key itself without one."""
    return f"{host}/{key}" if host else key


def not_here(host: str, plane: str) -> str:
    """What is told where the agent of a host is missed."""
    return f"no agent of host {host} is connected: start `cropduster agent --host {host} --plane {plane}=FOLDER` there"


class HostGroup(Section):
    """Hosts by name, or some of another group, turned by some places."""

    hosts: tuple[str, ...] = Field(default=(), description="The hosts in order.")
    host_group: str = Field(default="", description="Instead: the group that they are taken from.")
    count: int | None = Field(
        default=None, ge=1, description="How many of them; all that come after `offset` if unset."
    )
    offset: int = Field(default=0, ge=0, description="The first of them, counted from 0.")
    delta: int = Field(default=0, ge=0, description="By how many places they are turned: 1 makes copies neighbours.")

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := wrong_hosts(value):
            raise ValueError(wrong)
        return value

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if bool(self.hosts) == bool(self.host_group):
            msg = "name hosts, or the host_group that they are taken from"
            raise ValueError(msg)
        if self.hosts and {"count", "offset", "delta"} & self.model_fields_set:
            msg = "count, offset and delta are about a host_group: list the hosts as you want them"
            raise ValueError(msg)
        return self


def members(name: str, groups: Mapping[str, HostGroup], seen: Sequence[str] = ()) -> tuple[str, ...]:
    """The hosts of a group in order: host i of a derived one is base[offset + (i + delta) mod count], as HPCC has it.

    Raises:
        ValueError: there is no such group, or it makes no sense; in words for who wrote it.
    """
    if name in seen:
        msg = f"groups are taken from each other: {' from '.join([*seen, name])}"
        raise ValueError(msg)
    if name not in groups:
        msg = f"no host group is called {name}" + (f"; there are {', '.join(groups)}" if groups else "")
        raise ValueError(msg)
    group = groups[name]
    if group.hosts:
        return group.hosts
    base = members(group.host_group, groups, (*seen, name))
    count = len(base) - group.offset if group.count is None else group.count
    if count < 1 or group.offset + count > len(base):
        msg = f"{group.host_group} has {len(base)} hosts: {name} runs past its end"
        raise ValueError(msg)
    return tuple(base[group.offset + (i + group.delta) % count] for i in range(count))


def settled(
    planes: Mapping[str, PlaneSettings], groups: Mapping[str, HostGroup], violations: dict[str, str]
) -> dict[str, PlaneSettings]:
    """The planes with their hosts by name, and with a part a host where no other number is configured."""
    for name in groups:
        try:
            members(name, groups)
        except ValueError as error:
            violations[f"host_groups.{name}"] = str(error)
    found = dict(planes)
    for name, settings in planes.items():
        if not isinstance(settings, PosixSettings) or settings.path is not None:
            continue
        hosts = settings.hosts
        if settings.host_group:
            try:
                hosts = members(settings.host_group, groups)
            except ValueError as error:
                violations[f"planes.{name}.host_group"] = str(error)
                continue
        usual = settings.default_parts if "default_parts" in settings.model_fields_set else len(hosts)
        found[name] = settings.model_copy(update={"hosts": hosts, "default_parts": usual})
    return found


def hosts_of(settings: PlaneSettings) -> tuple[str, ...]:
    """The hosts of a plane; none if the file servers reach it."""
    return settings.hosts if isinstance(settings, PosixSettings) else ()
