"""Publishing on a real HSDS: whatever dies at whichever step, the old or the new domain is whole and reachable."""

from dataclasses import replace

import h5pyd
import pytest

from fileserver.errors import CallerDenied, TargetChanged
from fileserver.hdf5.hsds import acls, domains, publish
from fileserver.hdf5.hsds.acls import Permissions
from fileserver.hdf5.hsds.address import previous
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.publish import Outcome
from planes.errors import AlreadyExists, NotFound

READER = Permissions(read=True)


class DiedError(Exception):
    """This process is gone."""


class Dying(Connection):
    """Changes so much and is gone: before the next change is sent, or when it was made and nobody heard of it."""

    left = 10**9
    unheard = False

    async def call(self, method, path, **more):
        if method == "GET":
            return await super().call(method, path, **more)
        self.left -= 1
        if self.left < 0 and not self.unheard:
            raise DiedError
        answer = await super().call(method, path, **more)
        if self.left < 0:
            raise DiedError
        return answer


class DyingInTheGap(Connection):
    """Is gone once it has taken a name away."""

    async def call(self, method, path, **more):
        answer = await super().call(method, path, **more)
        if method == "DELETE":
            raise DiedError
        return answer


async def make(connection, path, value):
    """A domain that holds a value; its root."""
    answer = await connection.call("PUT", "/", domain=path)
    root = answer.json()["root"]
    body = {"type": "H5T_STD_I32LE", "shape": "H5S_SCALAR", "value": value}
    await connection.call("PUT", f"/groups/{root}/attributes/value", domain=path, body=body)
    return root


async def root_of(connection, path):
    found = await domains.find(connection, path)
    return found and found.root


@pytest.fixture
async def replaced(connection, folder):
    """What replaces an old domain that only its owner and bob may read: the plan of it."""
    old = await make(connection, f"{folder}/data", 1)
    await acls.write(connection, f"{folder}/data", "bob", READER)
    await acls.write(connection, folder, "alice", READER)  # whom a new name would let in
    new = await make(connection, f"{folder}/data.loading", 2)
    plan = await publish.prepare(connection, f"{folder}/data", f"{folder}/data.loading", overwrite=True)
    assert (plan.root, plan.replaces) == (new, old)
    return plan


async def check_published(connection, plan):
    assert await root_of(connection, plan.target) == plan.root
    assert await root_of(connection, plan.staging) is None
    assert await root_of(connection, previous(plan.target)) is None
    await check_entries(connection, plan)


async def check_entries(connection, plan):
    found = await acls.read(connection, plan.target)
    assert found["bob"] == READER
    assert found.get("alice", Permissions()) == Permissions()


async def test_a_free_name_is_taken_and_the_staging_name_goes(connection, folder):
    root = await make(connection, f"{folder}/x.loading", 7)
    plan = await publish.prepare(connection, f"{folder}/x", f"{folder}/x.loading", overwrite=False)
    steps = []

    async def did(step):
        steps.append(step)

    assert await publish.publish(connection, plan, did) is Outcome.PUBLISHED
    assert steps == ["named", "unstaged"]
    assert await root_of(connection, f"{folder}/x") == root
    assert await root_of(connection, f"{folder}/x.loading") is None
    assert await publish.publish(connection, plan) is Outcome.PUBLISHED  # again, as after a lost answer


async def test_a_replacement_keeps_who_may_read_and_reads_as_the_new(server, connection, replaced):
    steps = []

    async def did(step):
        steps.append(step)

    assert await publish.publish(connection, replaced, did) is Outcome.PUBLISHED
    assert steps == ["kept", "swapped", "unstaged", "removed the old"]
    await check_published(connection, replaced)
    with h5pyd.File(
        replaced.target, endpoint=server.endpoint, username="bob", password=server.passwords["bob"], use_cache=False
    ) as file:
        assert file.attrs["value"] == 2


@pytest.mark.parametrize("unheard", [False, True])
async def test_a_death_at_any_change_goes_on_forward(connect, connection, folder, unheard):
    deaths, changes = 0, 0
    while True:
        place = f"{folder}/{changes}"
        await make(connection, place, 1)
        await acls.write(connection, place, "bob", READER)
        await make(connection, f"{place}.loading", 2)
        plan = await publish.prepare(connection, place, f"{place}.loading", overwrite=True)
        dying = connect(kind=Dying)
        dying.left, dying.unheard = changes, unheard
        try:
            await publish.publish(dying, plan)
        except DiedError:
            deaths += 1
        else:
            break
        reachable = {await root_of(connection, p) for p in (place, previous(place))}
        assert reachable & {plan.root, plan.replaces}
        assert await publish.publish(connection, plan) is Outcome.PUBLISHED
        await check_published(connection, plan)
        changes += 1
    assert deaths >= 6


@pytest.mark.parametrize("unheard", [False, True])
async def test_a_death_at_any_change_goes_back_if_the_loaded_domain_is_gone(connect, connection, folder, unheard):
    found = set()
    for changes in range(50):
        place = f"{folder}/{changes}"
        old = await make(connection, place, 1)
        await acls.write(connection, place, "bob", READER)
        await make(connection, f"{place}.loading", 2)
        plan = await publish.prepare(connection, place, f"{place}.loading", overwrite=True)
        dying = connect(kind=Dying)
        dying.left, dying.unheard = changes, unheard
        try:
            await publish.publish(dying, plan)
        except DiedError:
            pass
        else:
            break
        await domains.unlink(connection, plan.staging)
        back = connect(kind=Dying)
        back.left = changes % 3  # dies on its way back, too
        try:
            outcome = await publish.publish(back, plan)
        except DiedError:
            outcome = await publish.publish(connection, plan)
        found.add(outcome)
        assert await root_of(connection, place) == (old if outcome is Outcome.RESTORED else plan.root)
        assert await root_of(connection, previous(place)) is None
        assert (await acls.read(connection, place))["bob"] == READER
    assert found == {Outcome.PUBLISHED, Outcome.RESTORED}


async def test_a_server_that_is_killed_in_the_gap_comes_back_to_a_whole_domain(server, connect, connection, replaced):
    with pytest.raises(DiedError):
        await publish.publish(connect(kind=DyingInTheGap), replaced)
    assert await root_of(connection, replaced.target) is None
    server.restart()
    assert await publish.publish(connection, replaced) is Outcome.PUBLISHED
    await check_published(connection, replaced)


async def test_what_somebody_else_has_put_there_stays(connection, folder, replaced):
    other = await make(connection, f"{folder}/other", 3)
    await domains.unlink(connection, replaced.target)
    await domains.link(connection, replaced.target, f"{folder}/other")
    with pytest.raises(TargetChanged, match=r"replaced by somebody else meanwhile; what was loaded is at .*loading"):
        await publish.publish(connection, replaced)
    with pytest.raises(AlreadyExists, match="made by somebody else"):
        await publish.publish(connection, replace(replaced, replaces="", entries=()))
    assert await root_of(connection, replaced.target) == other
    assert await root_of(connection, replaced.staging) == replaced.root


async def test_a_name_that_is_needed_and_taken_stops_it_before_anything_is_done(connection, replaced):
    stranger = await make(connection, previous(replaced.target), 9)
    for attempt in (
        publish.publish(connection, replaced),
        publish.prepare(connection, replaced.target, replaced.staging, overwrite=True),
    ):
        with pytest.raises(AlreadyExists, match=r"data\.previous on HSDS 'main' is there already"):
            await attempt
    assert await root_of(connection, replaced.target) == replaced.replaces
    assert await root_of(connection, previous(replaced.target)) == stranger


async def test_what_cannot_be_published_is_refused_with_nothing_done(connect, connection, folder, replaced):
    with pytest.raises(AlreadyExists, match="--overwrite would replace"):
        await publish.prepare(connection, replaced.target, replaced.staging, overwrite=False)
    with pytest.raises(AlreadyExists, match="a folder"):
        await publish.prepare(connection, folder, replaced.staging, overwrite=True)
    with pytest.raises(NotFound):
        await publish.prepare(connection, replaced.target, f"{folder}/nothing", overwrite=True)
    with pytest.raises(NotFound, match="is a folder"):
        await publish.prepare(connection, replaced.target, folder, overwrite=True)
    with pytest.raises(CallerDenied, match="bob may not do that"):
        await publish.publish(connect("bob"), replaced)
    assert await root_of(connection, replaced.target) == replaced.replaces
    gone = replace(replaced, target=f"{folder}/free", staging=f"{folder}/nothing", replaces="", entries=())
    with pytest.raises(NotFound, match="load it again"):
        await publish.publish(connection, gone)
