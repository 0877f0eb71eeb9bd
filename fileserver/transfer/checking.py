"""What a transfer can be told at once: names that are not there or taken, machines that are away. Writes nothing."""

from __future__ import annotations

from functools import partial

from fileserver.catalogue import files
from fileserver.catalogue.files import Catalogue, LogicalFile
from fileserver.catalogue.names import normalise
from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.hosts import host_of
from fileserver.transfer import survey
from fileserver.transfer.addresses import address
from fileserver.transfer.spec import Despray, Ingest, Replicate, Spec, Spray, Sync
from fileserver.transfer.sync_plan import target_of
from planes.errors import AlreadyExists, Unavailable


async def check_names(spec: Spec, planes: Configured, store: Store) -> str:
    """What a call can be told at once: unknown planes and files, a name that is taken. Returns the target to reserve.

    Raises:
        InvalidSpec, PlaneNotFound, FileNotFound, AlreadyExists: as they say.
        Unavailable: the agent of a host is away that is needed.
        Unsupported: that is not done with planes of hosts.
    """
    verb = spec.verb
    assert not isinstance(verb, Ingest), "an ingest says by itself what it reserves"
    if isinstance(verb, Sync):
        planes.refuse_hosts((verb.source.plane, verb.target.plane), "a sync is between planes of the file servers")
        return await target_of(verb, planes)
    if isinstance(verb, Despray):
        await _must_be_readable(verb.file, planes, store)
        planes.plane(verb.target.plane)
        if planes.hosts(verb.target.plane):
            await planes.must_be_here(verb.target.plane, [host_of(verb.target.key)])
        return f"object:{await address(planes, verb.target.plane, survey.key_of(verb.target))}"
    if isinstance(verb, Replicate):
        file = await _must_be_readable(verb.file, planes, store)
        planes.settings(verb.plane)
        await planes.must_be_here(verb.plane)
        return f"copy:{file.name} on {verb.plane}"
    if isinstance(verb, Spray):
        for location in verb.sources:
            planes.plane(location.plane)
            if planes.hosts(location.plane):
                await planes.must_be_here(location.plane, [host_of(location.key)])
        name = normalise(verb.file)
    else:
        await _must_be_readable(verb.file, planes, store)
        name = normalise(verb.new_file)
    if verb.plane:
        planes.settings(verb.plane)
    await planes.must_be_here(verb.plane or (planes.default if isinstance(verb, Spray) else ""))
    if not spec.overwrite and await store.read(lambda c: files.taken(c, name)):
        msg = f"the logical file {name} exists; --overwrite replaces it"
        raise AlreadyExists(msg, file=name)
    return f"file:{name}"


async def _must_be_readable(name: str, planes: Configured, store: Store) -> LogicalFile:
    """The file of a name, of which one copy at least is not on hosts whose agents are away.

    Raises:
        FileNotFound: there is none.
        Unavailable: they are away.
    """
    file = await Catalogue(store).get(name)
    failure: Unavailable | None = None
    for copy in await store.read(lambda c: files.copies(c, file.generation)):
        # Parts are dealt to hosts in turn: a page of them is on all that there are.
        first = await store.read(partial(files.parts, copy=copy.id))
        try:
            for plane in {part.plane for part in first}:
                if planes.hosts(plane):
                    await planes.must_be_here(plane, {host_of(part.key) for part in first if part.plane == plane})
        except Unavailable as error:
            failure = failure or error
        else:
            return file
    if failure is not None:
        raise failure
    return file
