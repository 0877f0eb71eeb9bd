"""A watched plane in memory, landing zones of several processes over one database, and transfers that end as told."""

from dataclasses import replace

import sqlalchemy as sa

from fileserver.catalogue import tables
from fileserver.catalogue.clock import moment
from fileserver.catalogue.store import Store
from fileserver.errors import InvalidSpec
from fileserver.landing import arrivals, watches
from fileserver.landing.landing import Landing
from fileserver.landing.watch import Load, Options, Watch
from fileserver.transfer import ledger
from fileserver.transfer.record import Record
from fileserver.transfer.spec import Location, Spec, Sync, spec_to_json
from planes.faulty import FaultyPlane
from planes.memory import MemoryPlane
from tests.fileserver.given import Planes

NOW = Options(include=("**",), settle=0.0, every=0.0)
ENTRY = Watch("w", "lz", "in/", NOW, Load("hdf5://home/x"))


class Jobs:
    """Accepts transfers as the real one does, and ends them when told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refuse = {}
        self.asked = []
        self.lives = 0

    async def start(self):
        self.lives += 1

    async def stop(self):
        self.lives -= 1

    def unfinished(self):
        return 0

    async def create(self, spec, request_id=""):
        key = spec.verb.source.key if isinstance(spec.verb, Sync) else spec.verb.domain
        target = f"object:{key}|" if isinstance(spec.verb, Sync) else f"domain:{request_id}"
        self.asked.append((key, request_id))
        if error := self.refuse.get(key):
            raise error
        asked = spec_to_json(spec)
        known = await self.store.read(lambda c: ledger.by_request(c, request_id))
        assert known is None or known.spec == asked
        record = Record(f"t{len(self.asked)}", asked, "QUEUED", "", 1, 0.0, 0.0)
        return await self.store.write(lambda c: ledger.create(c, record, request_id, target))

    async def get(self, transfer):
        return await self.store.read(lambda c: ledger.get(c, transfer)), 0.0

    async def transfers(self):
        """Keys of the transfers that were accepted, by id, in order."""
        rows = await self.store.read(
            lambda c: list(c.execute(sa.select(tables.transfers.c.id, tables.transfers.c.spec)))
        )
        return {row.id: row.spec["verb"].get("source", {}).get("key", "") for row in rows}

    async def end(self, transfer, error=None, state="", outcome=None):
        state = state or ("FAILED" if error else "SUCCEEDED")
        record = {"reason": error, "message": f"it is {error}", "facts": {}} if error else None
        await self.store.write(lambda c: ledger.end(c, transfer, 1.0, state, error=record, outcome=outcome))


class Syncing:
    """Stands for an ingest: any spec will do. Each arrival has a transfer of its own."""

    def group(self, arrival):
        return arrival.key

    def check(self, watch, arrival):  # noqa: ARG002 - the contract
        if arrival.key == "impossible":
            msg = "that cannot be"
            raise InvalidSpec(msg)

    def spec(self, watch, some):
        [arrival] = some
        source = Location(watch.plane, watch.prefix + arrival.key)
        return Spec(Sync(source, Location("up", arrival.key)), overwrite=arrival.loaded is not None)


class Zone:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.lz = MemoryPlane("lz")
        self.faulty = FaultyPlane(self.lz)
        self.jobs = Jobs(store)
        self.planes = Planes(lz=self.faulty)
        self.made = []

    def process(self, action=None):
        """Landing zones of another process over the same database."""
        self.made.append(Landing(self.store, self.planes, self.jobs, action or Syncing()))
        return self.made[-1]

    async def put(self, *keys, data=b"x"):
        for key in keys:
            await self.lz.put(f"in/{key}", data, upload_id="u", replace=True)

    async def enter(self, **options):
        watch = replace(ENTRY, options=replace(NOW, **options))
        return await self.store.write(lambda c: watches.create(c, watch))

    async def look(self, landing):
        """One look and nothing else."""
        await landing._begin_looks()
        for task in list(landing._looks.values()):
            await task

    async def rounds(self, landing, count=3):
        """Rounds, each with its looks to their end."""
        for _ in range(count):
            await landing.round()
            for task in list(landing._looks.values()):
                await task

    async def states(self):
        found = await self.store.read(lambda c: arrivals.listing(c, "w"))
        return {each.key: each.state.value for each in found}

    async def arrival(self, key):
        return await self.store.read(lambda c: arrivals.get(c, "w", key))

    async def set(self, table, **values):
        await self.store.write(lambda c: c.execute(table.update().values(**values)))

    async def now(self):
        return await self.store.read(moment)
