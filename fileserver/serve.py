"""A file server process from its configuration to its end: what is built in which order, and taken down again."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import ArgumentError, DatabaseError

from fileserver import config as configuration
from fileserver import log, spool, state, traces
from fileserver.auth import Cookies
from fileserver.catalogue.agents import secret
from fileserver.catalogue.databases import HEAD
from fileserver.catalogue.files import Catalogue
from fileserver.catalogue.store import Store
from fileserver.catalogue.writes import Writes
from fileserver.config import Config, DatabaseSettings
from fileserver.configured import LOCAL, Configured
from fileserver.errors import InvalidSpec
from fileserver.grants import Keys
from fileserver.hdf5.hsds.targets import Targets
from fileserver.server import GRACE, Listener, Server, Service, first
from fileserver.services.data import DataServicer
from fileserver.services.domain import DomainServicer
from fileserver.services.exchange import ExchangeServicer
from fileserver.services.plane import PlaneServicer
from fileserver.tls import Files, Watched
from fileserver.v1 import (
    agent_pb2_grpc,
    domain_pb2_grpc,
    exchange_pb2_grpc,
    file_pb2_grpc,
    hdf5_pb2_grpc,
    landing_pb2_grpc,
    part_pb2_grpc,
    plane_pb2_grpc,
    transfer_pb2_grpc,
)
from planes.posix import PosixSettings
from planes.settings import PlaneSettings

if TYPE_CHECKING:
    from fileserver.agents.dispatch import Agents
    from fileserver.guard.listeners import Rooms
    from fileserver.transfer.dispatch import Replicas
    from fileserver.transfer.jobs import Jobs as Transfers

_SWEEP: Final = 3600.0  # seconds between two looks for abandoned writes
_SWEEP_SPOOL: Final = 60.0  # the same for copies of standard input, which may be large
_PAGE: Final = 100
_RESTORE: Final = "move it away and restore the catalogue with 'cropduster files rebuild PLANE'"
_OWNER: Final = "see that it and its folder are yours to write"
_NO_DATABASE: Final = {
    sqlite3.SQLITE_NOTADB: _RESTORE,
    sqlite3.SQLITE_CORRUPT: _RESTORE,
    sqlite3.SQLITE_CANTOPEN: _OWNER,
    sqlite3.SQLITE_READONLY: _OWNER,
    sqlite3.SQLITE_PERM: _OWNER,
    sqlite3.SQLITE_IOERR: "see whether its disk is sound",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_BUSY: "end the program that has locked it",
}
"""Ways out where a database cannot be opened, by what SQLite says of it."""

_log = structlog.stdlib.get_logger(__name__)


def run(config: Config, *, embedded: bool = False, listen: str | None = None, idle_exit: float | None = None) -> None:
    """Serve until SIGTERM, SIGINT or idleness, and end in good order.

    Args:
        config: what to serve.
        embedded: for one user's command line: on the socket of the state directory alone.
        listen: the internal address, instead of the configured one.
        idle_exit: end after so many seconds without call and without unfinished transfer; None is never.

    Raises:
        InvalidSpec: the state directory or an address can't be used.
        ServerBusy: another server holds the state directory.
    """
    directory = config.state_directory
    if embedded and config.database is not None:
        msg = (
            f"{config.source} names a database, which file servers share that somebody runs: name one of them with "
            "--server HOST:PORT, or start one with `cropduster serve`"
        )
        raise InvalidSpec(msg, {"database": msg})
    state.prepare(directory)
    log.configure(config.log.level, config.log.format, config.log.file)
    with state.hold(directory, version("cropduster"), configuration.digest(config, os.environ)):
        asyncio.run(_serve(config, embedded=embedded, listen=listen, idle_exit=idle_exit))


async def _serve(config: Config, *, embedded: bool, listen: str | None, idle_exit: float | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as closing:
        services, rooms = await _rooms(config, closing, embedded=embedded)
        listeners = _listeners(config, rooms, embedded=embedded, listen=listen or "")
        server = Server(services, rooms.landing, listeners, many=config.database is not None)
        closing.push_async_callback(server.stop, GRACE)
        bound = await server.start()
        _log.info("serving", addresses=bound, state=str(config.state_directory), pid=os.getpid())
        if not embedded:
            print(f"cropduster serve: listening on {' and '.join(bound)}", flush=True)  # noqa: T201  # for people
        waits = [stopped.wait()] + ([server.idle(idle_exit)] if idle_exit is not None else [])
        await first(*waits)
        _log.info("draining", reason="asked to" if stopped.is_set() else "idle")


async def _rooms(config: Config, closing: AsyncExitStack, *, embedded: bool) -> tuple[list[Service], Rooms]:
    """Everything below the listeners; closed in reverse order."""
    # Slow to load (the job engine): a process that can't have its state directory should not wait for it.
    from fileserver.guard.listeners import Rooms  # noqa: PLC0415
    from fileserver.landing.landing import Landing  # noqa: PLC0415
    from fileserver.services.file import FileServicer  # noqa: PLC0415
    from fileserver.services.hdf5 import Hdf5Servicer  # noqa: PLC0415
    from fileserver.services.landing import LandingServicer  # noqa: PLC0415
    from fileserver.services.part import PartServicer  # noqa: PLC0415
    from fileserver.services.transfer import TransferServicer  # noqa: PLC0415
    from fileserver.transfer.custody import Custody  # noqa: PLC0415
    from fileserver.transfer.jobs import Jobs as Transfers  # noqa: PLC0415

    if config.builtin_plane:
        state.make_folder(config.state_directory / "data")
    store = _shared_store(config.database) if config.database else _store(config.state_directory)
    closing.callback(store.close)
    planes = Configured(config.planes, config.default_plane or "")
    closing.push_async_callback(planes.aclose)
    targets = Targets(config.hsds)
    closing.push_async_callback(targets.aclose)
    if config.traces is not None:
        traces.start(config.traces.endpoint)
        closing.push_async_callback(asyncio.to_thread, traces.stop)
    if config.metrics is not None and not embedded:
        from fileserver.metrics import Metrics, answering  # noqa: PLC0415 - only for those who ask for it

        address = await closing.enter_async_context(answering(config.metrics.listen, Metrics(planes, store)))
        _log.info("tells metrics", address=address)
    catalogue = Catalogue(store)
    retire_after = config.retire_after.total_seconds()
    others = _replicas(config)
    jobs = Transfers(store, planes, retire_after=retire_after, memory=config.memory, targets=targets, replicas=others)
    custody = Custody(store, planes, retire_after=retire_after)
    data = DataServicer(planes, catalogue, Writes(store))
    agents = _agents(store, planes, jobs, config.planes)
    sweep_spool = partial(_sweep_spool, config.state_directory, jobs)
    sweeps = ((data.sweep, _SWEEP), (agents.sweep, _SWEEP), (sweep_spool, _SWEEP_SPOOL))
    beside = [_again_and_again(sweep, seconds) for sweep, seconds in sweeps]
    if store.shared:
        from fileserver.agents.telegraph import listen  # noqa: PLC0415 - brings psycopg

        beside.append(listen(agents.assignments))
    for work in beside:
        closing.callback(asyncio.create_task(work).cancel)
    transfer, file, part = TransferServicer(jobs), FileServicer(custody, planes), PartServicer(jobs)
    plane, hdf5 = PlaneServicer(planes, jobs.sweep), Hdf5Servicer(planes, jobs.ingests)
    landing = Landing(store, planes, jobs)
    zones = LandingServicer(landing, targets)
    exchange = ExchangeServicer(planes, targets, config.state_directory)
    services = [
        Service("TransferService", partial(transfer_pb2_grpc.add_TransferServiceServicer_to_server, transfer)),
        Service("FileService", partial(file_pb2_grpc.add_FileServiceServicer_to_server, file)),
        Service("PlaneService", partial(plane_pb2_grpc.add_PlaneServiceServicer_to_server, plane)),
        Service("DomainService", partial(domain_pb2_grpc.add_DomainServiceServicer_to_server, DomainServicer(targets))),
        Service("Hdf5Service", partial(hdf5_pb2_grpc.add_Hdf5ServiceServicer_to_server, hdf5)),
        Service("LandingService", partial(landing_pb2_grpc.add_LandingServiceServicer_to_server, zones)),
        Service("ExchangeService", partial(exchange_pb2_grpc.add_ExchangeServiceServicer_to_server, exchange)),
        Service("PartService", partial(part_pb2_grpc.add_PartServiceServicer_to_server, part), external=False),
        *_for_agents(agents, store, planes, jobs, data, config.rate.agents),
    ]
    return services, Rooms(planes, jobs, landing, agents.keys)


def _agents(store: Store, planes: Configured, jobs: Transfers, settings: Mapping[str, PlaneSettings]) -> Agents:
    """The machines of callers: transfers of their files find them from now on."""
    from fileserver.agents.dispatch import Agents  # noqa: PLC0415 - see `_rooms`
    from fileserver.services.format_shapes import format_message  # noqa: PLC0415

    keys = Keys([secret(store.engine, "grants")], time.time)
    hosted = {name: s for name, s in settings.items() if isinstance(s, PosixSettings) and s.hosts}
    agents = planes.beside = Agents(store, keys, format_message, hosted)
    agents.before(jobs.stages)
    return agents


def _for_agents(
    agents: Agents, store: Store, planes: Configured, jobs: Transfers, data: DataServicer, each: int
) -> list[Service]:
    """What agents call; on the internal address DataService answers without a grant, too."""
    from fileserver.services.agent import AgentServicer  # noqa: PLC0415 - see `_rooms`
    from fileserver.services.granted import GrantedData  # noqa: PLC0415
    from fileserver.services.halves import Halves  # noqa: PLC0415

    halves = Halves(jobs.buffers)
    servicer = AgentServicer(agents, lambda name: planes.plane(name).capabilities.shared, each)
    inside, outside = (GrantedData(agents.keys, store, planes, halves, data, inside=inside) for inside in (True, False))
    return [
        Service("AgentService", partial(agent_pb2_grpc.add_AgentServiceServicer_to_server, servicer)),
        Service("DataService", inside.add_to, external=False),
        Service("DataService", outside.add_to, internal=False),
    ]


def _listeners(config: Config, rooms: Rooms, *, embedded: bool, listen: str) -> list[Listener]:
    """The socket of the state directory, where the user's command line looks, and for `serve` what is configured.

    Raises:
        InvalidSpec: a certificate or a key cannot be used.
    """
    directory = config.state_directory
    cookie, path = state.cookie(directory, _shared_cookie(config)), directory / "cookie"
    own = Cookies(cookie, path, local=config.database is None)
    socket = f"unix:{state.socket_path(directory, os.environ)}"
    if embedded:
        return [Listener([socket], [own.around])]
    from fileserver.guard.listeners import listeners  # noqa: PLC0415 - see `_rooms`

    return listeners(config, rooms, socket, own.around, Cookies(cookie, path, local=False).around, listen)


def _store(directory: Path) -> Store:
    """The database of a state directory; raises InvalidSpec where what is there cannot be one."""
    try:
        return Store(directory)
    except DatabaseError as error:
        # The low byte is the kind of failure. Other kinds are about what is in a sound database: bugs of ours.
        kind = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if kind not in _NO_DATABASE:
            raise
        path = directory / "state.db"
        msg = (
            f"the database {path} cannot be used ({error.orig}): {_NO_DATABASE[kind]}, or name another state directory "
            "with --state"
        )
        raise InvalidSpec(msg, {"state.directory": msg}, path=str(path)) from None
    except _unknown_revision() as error:
        msg = (
            f"the database {directory / 'state.db'} is of another version of Cropduster ({error}): use the newest that "
            "has worked on it, or name another state directory with --state"
        )
        raise InvalidSpec(msg, {"state.directory": msg}, path=str(directory / "state.db")) from None


def _replicas(config: Config) -> Replicas | None:
    """The other file servers; raises InvalidSpec where the certificate that they are shown cannot be used."""
    from fileserver.transfer.dispatch import Replicas  # noqa: PLC0415 - see `_rooms`

    if config.replicas is None:
        return None
    internal = config.listen.internal
    if internal is None or internal.tls is None:
        return Replicas(config.replicas.address, _shared_cookie(config))
    authority = config.replicas.ca or internal.tls.clients
    shown = Watched(Files(internal.tls.certificate, internal.tls.key, authority), "listen.internal.tls")
    return Replicas(config.replicas.address, "", shown, config.replicas.name)


def _shared_cookie(config: Config) -> str:
    """What file servers of one database, and callers, show to any of them; "" for a server of its own."""
    secret = config.replicas.secret if config.replicas else None
    return state.shared_cookie(secret.resolve()) if secret else ""


def _shared_store(database: DatabaseSettings) -> Store:
    """The database that other file servers share; raises Refused, InvalidSpec."""
    with _reached(database, "does not answer"):
        return Store(Path(), database.url.resolve())


def migrate(config: Config) -> str:
    """Make or upgrade the tables of the configured database; a sentence that says what was done.

    Raises:
        InvalidSpec: no database is configured, or it does not answer.
    """
    from fileserver.transfer.jobs import migrate as migrate_all  # noqa: PLC0415 - see `_rooms`

    if config.database is None:
        msg = "no database is configured: set database.url; the one in a state directory is upgraded by the server"
        raise InvalidSpec(msg, {"database": msg})
    with _reached(config.database, "can't be set up"):
        before = migrate_all(config.database.url.resolve())
    if before == HEAD:
        return f"the database is at revision {HEAD} already"
    return f"the database went from {f'revision {before}' if before else 'nothing'} to revision {HEAD}"


@contextmanager
def _reached(database: DatabaseSettings, what: str) -> Iterator[None]:
    """Raise InvalidSpec where the URL is none, or where the database says no: `what` it does then."""
    try:
        yield
    except ArgumentError:  # its words hold the URL, and that a password
        msg = f"the {database.url.reference} holds no URL like postgresql://USER:PASSWORD@HOST/NAME"
        raise InvalidSpec(msg, {"database.url": msg}) from None
    except DatabaseError as error:
        said = str(error.orig).strip().partition("\n")[0]  # without the statement and its values
        msg = f"the database of the {database.url.reference} {what}: {said}"
        raise InvalidSpec(msg, {"database.url": msg}) from None


def _unknown_revision() -> type[Exception]:
    """What the migration tool raises for a database of a newer version; loaded only once something is wrong."""
    from alembic.util import CommandError  # noqa: PLC0415 - slow to import

    return CommandError


async def _again_and_again(sweep: Callable[[], Awaitable[object]], seconds: float) -> None:
    while True:
        try:
            await sweep()
        except Exception:  # noqa: BLE001  # whatever fails now is tried again later; the server lives on
            _log.exception("sweep failed")
        await asyncio.sleep(seconds)


async def _sweep_spool(directory: Path, jobs: Transfers) -> None:
    """Remove copies of standard input that no command and no transfer needs."""
    from fileserver.transfer.spec import Spray, spec_from_json  # noqa: PLC0415 - see `_rooms`

    async def needed(paths: set[str]) -> set[str]:
        found: set[str] = set()
        before: tuple[float, str] | None = None
        while page := await jobs.listing(before, _PAGE, active=True):
            for verb in (spec_from_json(record.spec).verb for record in page):
                if isinstance(verb, Spray):
                    found |= paths & {source.key for source in verb.sources if source.plane == LOCAL}
            before = page[-1].created, page[-1].id
        return found

    if count := await spool.sweep(directory, needed):
        _log.info("removed copies of standard input that nobody needs", count=count)
