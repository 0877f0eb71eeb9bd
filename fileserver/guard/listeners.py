"""The listeners that a configuration asks for, each with what guards it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from fileserver.calls import Around, Gate
from fileserver.config import Config
from fileserver.configured import Configured
from fileserver.errors import InvalidSpec
from fileserver.grants import Keys
from fileserver.guard import audit
from fileserver.guard.access import Access, Place
from fileserver.guard.audit import Audits
from fileserver.guard.certified import Certificates
from fileserver.guard.holders import Holders
from fileserver.guard.rate import Rates
from fileserver.landing import watches
from fileserver.landing.landing import Landing
from fileserver.rules import Rules
from fileserver.sections import External, Internal, Tls
from fileserver.server import Listener
from fileserver.tls import Files, server_credentials
from fileserver.transfer.jobs import Jobs

DEFAULT: Final = "127.0.0.1:7300"
"""The internal address where none is configured."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the server knows that rules are asked about."""

    planes: Configured
    jobs: Jobs
    landing: Landing
    grants: Keys

    @property
    def default_plane(self) -> str:
        """The plane of a spray that names none."""
        return self.planes.default

    async def owner(self, transfer: str) -> str:
        """Who asked for a transfer; raises TransferNotFound."""
        return (await self.jobs.stages.record(transfer)).caller

    async def place(self, watch: str) -> Place:
        """What a watch is about; raises WatchNotFound."""
        found = await self.landing.read(lambda c: watches.get(c, watch))
        return Place(found.plane, found.prefix, found.action.folder)


def listeners(config: Config, rooms: Rooms, socket: str, own: Around, strange: Around, listen: str) -> list[Listener]:
    """Every listener of a server that somebody runs.

    Args:
        config: what is asked for.
        rooms: what rules are asked about.
        socket: the private address of the server's own user.
        own: asks for the cookie.
        strange: the same for callers from outside, whose files are not within reach.
        listen: the internal address instead of the configured one; "" is that.

    Raises:
        InvalidSpec: a certificate or a key cannot be used, or the audit cannot be written.
    """
    inside, outside = _audits(config, rooms)
    settings, holders = config.listen.internal, Gate(Holders(rooms.grants).check)
    address = _target(listen or (settings.address if settings else DEFAULT))
    if settings is not None and settings.tls is not None:
        within = _certified(settings, settings.tls, address, [*inside, holders])
        made = [Listener([socket], [*inside, holders, own]), within]
    else:
        made = [Listener([socket, address], [*inside, holders, own])]
    if config.listen.external is not None:
        made.append(_external(config.listen.external, config, rooms, strange, outside))
    if config.listen.health is not None:
        made.append(Listener([_target(config.listen.health)], [], internal=False, reflect=False, only_health=True))
    return made


def _audits(config: Config, rooms: Rooms) -> tuple[list[Around], list[Around]]:
    """What writes the lines of either side."""
    if not config.audit.enabled:
        return [], []
    try:
        audit.configure(config.audit.file)
    except OSError as error:
        what = f"{config.audit.file} cannot be written ({error.strerror}): name a file in a folder that is yours"
        msg = f"audit.file: {what}"
        raise InvalidSpec(msg, {"audit.file": what}, path=str(config.audit.file)) from error
    sides = (Audits(side, lambda: rooms.default_plane) for side in ("internal", "external"))
    inside, outside = ([each.around] for each in sides)
    return list(inside), list(outside)


def _certified(settings: Internal, tls: Tls, address: str, before: list[Around | Gate]) -> Listener:
    """The internal address with certificates on both sides."""
    files = Files(tls.certificate, tls.key, tls.clients)
    return Listener(
        [address],
        [*before, Certificates(settings.allow).around],
        credentials=server_credentials(files, "listen.internal.tls"),
    )


def _external(settings: External, config: Config, rooms: Rooms, strange: Around, audits: list[Around]) -> Listener:
    """The external address, with tokens if they are configured."""
    files = Files(settings.tls.certificate, settings.tls.key) if settings.tls else None
    holders = Holders(rooms.grants)
    guards: list[Around | Gate] = [Gate(holders.check), strange]
    if config.tokens is not None:
        # PyJWT is loaded, and need be installed, for who takes tokens.
        from fileserver.guard.bearer import Bearers  # noqa: PLC0415
        from fileserver.guard.tokens import Verifier  # noqa: PLC0415

        rules = Rules([each.rule() for each in config.rules]) if config.rules else None
        if rules is None:
            _log.warning(
                "no rules are configured: whoever has a token may do all that is offered outside, but serve a host"
            )
        rates = Rates(config.rate.per_second, config.rate.burst)
        bearers = Bearers(Verifier(config.tokens), rules)
        guards = [Gate(holders.check, bearers.check, rates.check), bearers.around]
    return Listener(
        [_target(settings.address)],
        [*audits, *guards, Access(rooms).around],
        internal=False,
        reflect=settings.reflection,
        credentials=server_credentials(files, "listen.external.tls") if files else None,
    )


def _target(address: str) -> str:
    """An address of the configuration as gRPC writes it."""
    return f"unix:{address}" if address.startswith("/") else address
