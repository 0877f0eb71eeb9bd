"""What joining files into one domain would do: which elements of each go where, and how. Writes nothing."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

from fileserver.catalogue.store import Store
from fileserver.configured import Configured
from fileserver.errors import from_record
from fileserver.hdf5 import joined
from fileserver.hdf5.dimension import Misfit
from fileserver.hdf5.extension import need_along
from fileserver.hdf5.files import Files, Place
from fileserver.hdf5.hsds.domains import Domain
from fileserver.hdf5.hsds.targets import Targets
from fileserver.hdf5.joined import Looked
from fileserver.hdf5.joint import described
from fileserver.hdf5.load import Loaded
from fileserver.hdf5.storage import Written
from fileserver.transfer.ingest_joined import THERE, fresh_of, measured, misfit
from fileserver.transfer.ingest_plan import Expansion
from fileserver.transfer.ingest_rows import File, Told
from fileserver.transfer.ingest_target import Target
from fileserver.transfer.ingest_told import Saying
from fileserver.transfer.spec import Ingest, Spec
from planes.errors import Error


async def foreseen(
    spec: Spec, planes: Configured, store: Store, targets: Targets
) -> AsyncIterator[tuple[File, list[Told], Error | None]]:
    """What would be told of each file, or why it would not be joined: nothing would, unless such are left out.

    Raises:
        Error: whatever is wrong with the domain or the server.
    """
    ingest = spec.verb
    assert isinstance(ingest, Ingest)
    found = [each async for each in Expansion(ingest, planes).files()]
    files = [File("", i, e.plane, e.key, e.size, e.version, e.domain, error=e.error) for i, e in enumerate(found, 1)]
    bad = [(each, from_record(each.error)) for each in files if each.error is not None]
    for each, error in bad:
        yield each, [], error
    files = [each for each in files if each.error is None]
    if bad and not (files and ingest.skip_bad):
        return
    target = Target(ingest, uuid.uuid4().hex, targets, planes)
    try:
        there, _ = await target.there(ingest.domain)
        before = None if spec.overwrite or there is None or there.is_folder else there
        fresh, is_known = (files, True) if before is None else await fresh_of(store, files, before)
        new = {each.number for each in fresh}
        for each in files:
            if each.number not in new:
                yield each, [THERE], None
        fresh = fresh or files[:1]  # which is looked at
        saying, final = None, False
        while not final:
            held = Files([Place(planes.plane(each.plane), each.key, each.version) for each in fresh])
            try:
                saying, wrong, final = await _looked(held, target, before, is_known=is_known, is_new=bool(new))
            finally:
                await held.aclose()
            final |= not ingest.skip_bad or len(wrong) == len(fresh)
            for number, why in sorted(wrong.items()):
                yield fresh[number], [], misfit(fresh[number], why)
            fresh = [each for number, each in enumerate(fresh) if number not in wrong]
    finally:
        await target.aclose()
    for number, each in enumerate(fresh):
        if saying is not None:
            yield each, saying.of(number), None


async def _looked(
    held: Files, target: Target, before: Domain | None, *, is_known: bool, is_new: bool
) -> tuple[Saying | None, dict[int, Misfit | Error], bool]:
    """What would be told of files; or what is wrong with some; whether there is nothing more to be found out."""
    looked = await joined.look(held, target.ingest.aggregate)
    if looked.wrong:
        return None, dict(looked.wrong), False
    try:
        if before is not None and not is_new:
            await need_along(looked, target.connection, before.path, before.root, target.ingest.aggregate)
            return None, {}, True
        return await _saying(held, target, looked, before, is_known=is_known), {}, True
    except Misfit as error:
        return None, {error.number or 0: error}, True


async def _saying(held: Files, target: Target, looked: Looked, before: Domain | None, *, is_known: bool) -> Saying:
    if before is None:
        made = joined.whole(looked)
        bucket = target.bulk is not None
        survey = described(made.one.survey, made.joints, bucket=bucket)
        first = Loaded("", 0.0, survey, survey.troubles, Written())
        return Saying(made.joints, [(), *(each.troubles for each in looked.others)], "", first, bucket=bucket)
    more = await measured(held, looked, target, before, is_known=is_known)
    troubles, bucket = [more.troubles, *(each.troubles for each in looked.others)], target.bulk is not None
    return Saying(more.joints, troubles, "", bucket=bucket)
