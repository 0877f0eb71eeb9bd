"""Objects entered as the parts of a file: what is ours already is refused, and many are asked about like few."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from fileserver.catalogue import files, waste
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.errors import InvalidSpec
from fileserver.transfer.custody import Custody
from fileserver.transfer.spec import Location
from planes.errors import NotFound
from planes.memory import MemoryPlane
from tests.fileserver.given import Planes


@pytest.fixture
async def custody(store):
    planes = Planes(one=MemoryPlane("one"), two=MemoryPlane("two"))
    for name in ("one", "two"):
        for number in range(50):
            await planes.plane(name).put(f"in/{number:02}", b"x", upload_id="setup")
    return Custody(store, planes, retire_after=100.0)


async def register(custody, *locations):
    return await custody.register("a::x", [Location(*each.split(":")) for each in locations], None, natural=False)


async def test_many_objects_are_asked_about_in_a_few_statements(custody, store):
    asked = []
    sa.event.listen(store._database._durable, "before_cursor_execute", lambda _c, _cursor, text, *_: asked.append(text))
    file = await register(custody, "one:in/*", "two:in/*")
    assert file.part_count == 100
    assert len(asked) < 20


@pytest.mark.parametrize("plane", ["one", "two"])
async def test_a_part_that_we_wrote_for_another_file_is_refused(custody, store, plane):
    def enter(c) -> None:
        other = "two" if plane == "one" else "one"
        parts = [
            FilePart(1, plane, "in/07", 1, "", {}, owned=True),
            FilePart(2, other, "in/03", 1, "", {}, owned=False),
        ]
        files.enter_parts(c, "g1", parts)
        file = LogicalFile("b::y", "g1", 2, None, "compared", None, 2, "g1", 0.0)
        files.publish(c, file, overwrite=False, retire_at=0.0)

    await store.write(enter)
    with pytest.raises(InvalidSpec, match=rf"{plane}:in/07 is a part of b::y already") as told:
        await register(custody, "one:in/*", "two:in/*")
    assert set(told.value.violations) == {f"parts[{7 if plane == 'one' else 57}]"}


async def test_an_object_that_is_garbage_is_refused(custody, store):
    await store.write(lambda c: waste.discard(c, "two", ["in/09"], 1e12))
    with pytest.raises(NotFound, match="two:in/09 was deleted with its file"):
        await register(custody, "one:in/*", "two:in/*")
    assert (await register(custody, "one:in/*")).part_count == 50
