"""The catalogue held against the planes: what is ours stays ours, and nothing else becomes it."""

from __future__ import annotations

import json
import os

import pytest

from fileserver.catalogue import files, tables
from fileserver.catalogue.files import FilePart, LogicalFile
from fileserver.catalogue.names import MANIFEST, folder, part_key
from fileserver.errors import TargetChanged
from fileserver.transfer import garbage, renamed, survey
from fileserver.transfer.custody import Custody
from fileserver.transfer.spec import Csv, Fixed, Location, format_from_json, format_to_json
from planes import checksum
from planes.errors import Changed, NotFound, Refused, Unavailable
from planes.faulty import Fault, FaultyPlane, Hold, Raise
from planes.memory import MemoryPlane
from planes.posix import PosixPlane, PosixSettings
from tests.fileserver.given import Planes

BYTES = b"0123456789"


@pytest.fixture
def plane():
    return MemoryPlane("data")


@pytest.fixture
def custody(store, plane):
    return Custody(store, Planes(data=plane), retire_after=100.0)


async def write(plane, name="a::x", generation="g1", count=3, **changes) -> dict:
    """The objects and the manifest of a generation, as a spray leaves them."""
    crc = checksum.to_hex(checksum.compute(BYTES))
    parts = []
    for number in range(1, count + 1):
        key = part_key(name, generation, number, count)
        await plane.put(key, BYTES, upload_id="setup", replace=True)
        parts.append({"number": number, "key": key, "size": len(BYTES), "checksum": {"crc64nvme": crc}})
    whole = checksum.to_hex(checksum.compute(BYTES * count))
    manifest = {
        "cropduster": 1,
        "name": name,
        "generation": generation,
        "created": 5.0,
        "size": count * len(BYTES),
        "format": {"kind": "fixed", "record_size": 5},
        "evidence": "compared",
        "crc64nvme": whole,
        "parts": parts,
        "sources": [{"plane": "in", "key": "x", "size": count * len(BYTES), "version": "1"}],
    } | changes
    await put_manifest(plane, manifest, name, generation)
    return manifest


async def put_manifest(plane, manifest, name="a::x", generation="g1") -> None:
    key = f"{folder(name, generation)}/{MANIFEST}"
    await plane.put(key, json.dumps(manifest).encode(), upload_id="m", replace=True)


async def rebuild(custody):
    return await custody.rebuild("data", validate_only=False)


async def test_a_plane_with_names_that_are_no_text_is_rebuilt_from(store, tmp_path):
    (tmp_path / os.fsdecode(b"x\xff")).touch()
    data = PosixPlane("data", PosixSettings(path=tmp_path))
    await write(data)
    assert (await rebuild(Custody(store, Planes(data=data), retire_after=0.0))).restored == ["a::x"]


async def test_a_lost_catalogue_is_rebuilt_and_twice_changes_nothing(custody, plane):
    await write(plane)
    assert (await custody.rebuild("data", validate_only=True)).restored == ["a::x"]
    assert (await rebuild(custody)).restored == ["a::x"]
    file = await custody.catalogue.get("a::x")
    assert (file.size, file.part_count, file.evidence, file.created) == (30, 3, "compared", 5.0)
    assert file.crc64nvme == checksum.compute(BYTES * 3)
    parts = await custody.catalogue.all_parts("g1")
    assert all(p.owned and p.checksums == {"crc64nvme": checksum.compute(BYTES)} for p in parts)
    again = await rebuild(custody)
    assert (again.restored, again.present, again.skipped) == ([], ["a::x"], [])


async def test_the_youngest_generation_of_a_name_counts(custody, plane):
    await write(plane)
    await write(plane, generation="g2", created=6.0)
    assert (await rebuild(custody)).restored == ["a::x"]
    assert (await custody.catalogue.get("a::x")).generation == "g2"


@pytest.mark.parametrize("form", [None, Fixed(5), Csv(), Csv((b"|", b"\xff"), escapes=(b"\\",), split="exact")])
async def test_every_format_comes_back_as_it_was(custody, plane, form):
    await write(plane, format=format_to_json(form))
    await rebuild(custody)
    assert format_from_json((await custody.catalogue.get("a::x")).format) == form


@pytest.mark.parametrize(
    "key", ["secret/payroll.dat", "a/x/~g1/deeper/x._1_of_3", "a/x/~g10/x._1_of_3", f"a/x/~g1/{MANIFEST}", "a/x/~g1/"]
)
async def test_a_manifest_makes_no_foreign_object_ours(custody, plane, key):
    manifest = await write(plane)
    if key != "a/x/~g1/" and not key.endswith(MANIFEST):
        await plane.put(key, BYTES, upload_id="theirs")
    manifest["parts"][0]["key"] = key
    await put_manifest(plane, manifest)
    found = await rebuild(custody)
    assert found.restored == []
    assert len(found.skipped) == 1
    assert "a/x/~g1/_manifest.json" in found.skipped[0]


async def test_after_a_rename_the_file_is_present_and_its_old_name_is_free(custody, plane):
    await write(plane)
    await rebuild(custody)
    await custody.rename("a::x", "b::y")
    found = await rebuild(custody)
    assert (found.restored, found.present, found.skipped) == ([], ["b::y"], [])
    await write(plane, generation="g2", created=9.0)
    found = await rebuild(custody)
    assert (found.restored, found.present, found.skipped) == (["a::x"], ["b::y"], [])


async def test_what_was_deleted_on_purpose_does_not_come_back(custody, plane, store):
    await write(plane)
    await rebuild(custody)
    await custody.delete("a::x", with_parts=False, validate_only=False)
    found = await rebuild(custody)
    assert (found.restored, found.present) == ([], [])
    assert "deleted or replaced" in found.skipped[0]
    await garbage.collect(store, Planes(data=plane), files.now() + 101)
    assert await rebuild(custody) == type(found)([], [], [])


@pytest.mark.parametrize(
    "wrong",
    [
        {"parts": [{"number": 1, "size": 10, "checksum": {}}]},
        {"parts": [{"number": "1", "key": "a/x/~g1/x._1_of_3", "size": 10, "checksum": {}}]},
        {"parts": [{"number": 1, "key": "a/x/~g1/x._1_of_3", "size": "10", "checksum": {}}]},
        {"parts": [{"number": 1, "key": "a/x/~g1/x._1_of_3", "size": 10, "checksum": {"crc64nvme": "zz"}}]},
        {"parts": [{"number": 1, "key": "a/x/~g1/x._1_of_3", "size": 10, "checksum": {"crc64nvme": "f" * 17}}]},
        {"parts": [{"number": 1, "key": "a/x/~g1/x._1_of_3", "size": 10, "checksum": {"md5": "00"}}]},
        {"parts": [{"number": 1, "key": "a/x/~g1/x._1_of_3", "size": -1, "checksum": {}}]},
        {"parts": []},
        {"parts": {}},
        {"parts": 7},
        {"name": 7},
        {"name": "A::X"},
        {"name": "a::::x"},
        {"generation": "../../b"},
        {"created": "yesterday"},
        {"created": float("nan")},
        {"size": 31},
        {"size": 1 << 70},
        {"format": {"kind": "fixed"}},
        {"format": {"kind": "fixed", "record_size": "5"}},
        {"format": {"kind": "fixed", "record_size": 0}},
        {"format": {"kind": "xml"}},
        {"format": {"kind": "csv", "separators": [","]}},
        {"format": "fixed:5"},
        {"evidence": None},
        {"evidence": "trust me"},
        {"crc64nvme": "not hex"},
        {"crc64nvme": 12},
        {"sources": None},
        {"sources": [{"plane": "in"}]},
        {"sources": [{"plane": "in", "key": 7, "size": 1, "version": ""}]},
    ],
    ids=str,
)
async def test_a_malformed_manifest_is_skipped_and_stops_no_other(custody, plane, wrong):
    manifest = await write(plane)
    await put_manifest(plane, manifest | wrong)
    await write(plane, "z::good", "g9")
    found = await rebuild(custody)
    assert found.restored == ["z::good"]
    assert [s.split(":")[0] for s in found.skipped] == ["a/x/~g1/_manifest.json"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
async def test_what_is_no_manifest_at_all_is_skipped(custody, plane, data):
    await plane.put(f"a/x/~g1/{MANIFEST}", data, upload_id="m")
    assert len((await rebuild(custody)).skipped) == 1


async def test_a_plane_that_fails_at_one_file_stops_no_other(store, plane):
    await write(plane)
    await write(plane, "z::good", "g9")
    faulty = FaultyPlane(plane, [Fault("stat", 1, Raise(Unavailable("reset")))])
    found = await Custody(store, Planes(data=faulty), retire_after=0.0).rebuild("data", validate_only=False)
    assert found.restored == ["z::good"]
    assert "reset" in found.skipped[0]


async def test_a_part_with_another_checksum_is_not_restored(custody, plane):
    manifest = await write(plane)
    await plane.put(manifest["parts"][1]["key"], BYTES[::-1], upload_id="theirs", replace=True)
    found = await rebuild(custody)
    assert found.restored == []
    assert manifest["parts"][1]["key"] in found.skipped[0]


# --- delete ---------------------------------------------------------------------------------------------------------


async def test_a_file_that_was_replaced_while_it_is_deleted_stays(custody, plane, monkeypatch):
    await write(plane)
    await rebuild(custody)
    listed = custody.catalogue.all_copies

    async def replaced(generation):
        found = await listed(generation)
        parts = [FilePart(1, "data", "a/x/~g2/x._1_of_1", 1, "", {}, owned=True)]
        file = LogicalFile("a::x", "g2", 1, None, "compared", None, 1, "g2", 0.0)

        def work(c) -> None:
            files.enter_parts(c, "g2", parts)
            files.publish(c, file, overwrite=True, retire_at=0.0)

        await custody.catalogue.store.write(work)
        return found

    monkeypatch.setattr(custody.catalogue, "all_copies", replaced)
    with pytest.raises(TargetChanged, match="a::x"):
        await custody.delete("a::x", with_parts=True, validate_only=False)
    assert (await custody.catalogue.get("a::x")).generation == "g2"


async def registered(custody, plane, count=3) -> list[str]:
    """A file of objects that are not ours; their keys."""
    keys = [f"theirs/{number}" for number in range(count)]
    for key in keys:
        await plane.put(key, BYTES, upload_id="theirs")
    await custody.register("a::theirs", [Location("data", key) for key in keys], None, natural=False)
    return keys


async def keys_of(plane) -> list[str]:
    return [info.key async for info in plane.list()]


async def test_foreign_objects_stay_unless_they_are_asked_for_and_go_at_once_then(custody, plane):
    keys = await registered(custody, plane)
    gone, kept = await custody.delete("a::theirs", with_parts=False, validate_only=False)
    assert ([p.key for p in gone], [p.key for p in kept]) == ([], keys)
    assert await keys_of(plane) == keys
    await custody.register("a::theirs", [Location("data", key) for key in keys], None, natural=False)
    gone, kept = await custody.delete("a::theirs", with_parts=True, validate_only=False)
    assert ([p.key for p in gone], [p.key for p in kept]) == (keys, [])
    assert await keys_of(plane) == []
    assert await garbage.collect(custody.catalogue.store, Planes(data=plane), files.now()) == 0


class Crash(BaseException):
    """The process dies here."""


@pytest.fixture
async def crashed(custody, plane, monkeypatch):
    """A file of strangers' objects was to be destroyed, and the server died behind the catalogue; their keys."""

    async def die(*_args):
        raise Crash

    keys = await registered(custody, plane)
    monkeypatch.setattr(garbage, "destroy", die)
    with pytest.raises(Crash):
        await custody.delete("a::theirs", with_parts=True, validate_only=False)
    assert await keys_of(plane) == keys
    return keys


async def test_foreign_objects_that_were_to_be_destroyed_go_after_a_crash_too(custody, plane, store, crashed):
    assert await garbage.collect(store, Planes(data=plane), files.now()) == len(crashed)
    assert await keys_of(plane) == []


async def test_a_foreign_object_that_was_written_again_since_is_spared(custody, plane, store, crashed):
    await plane.put(crashed[1], b"new", upload_id="again", replace=True)
    await garbage.collect(store, Planes(data=plane), files.now())
    assert await keys_of(plane) == [crashed[1]]
    await garbage.collect(store, Planes(data=plane), files.now() + 1000)
    assert await keys_of(plane) == [crashed[1]]


async def test_what_is_about_to_go_cannot_be_registered(custody, crashed):
    with pytest.raises(NotFound, match="about to go"):
        await custody.register("b::y", [Location("data", crashed[0])], None, natural=False)


async def test_a_plane_that_does_not_delete_is_told_and_tried_again(custody, plane, store):
    keys = await registered(custody, plane)
    faulty = FaultyPlane(plane, [Fault("delete", 2, Raise(Refused("it is locked")))])
    with pytest.raises(Refused, match=r"a::theirs is deleted, but 1 of its objects.*it is locked"):
        await Custody(store, Planes(data=faulty), retire_after=0.0).delete(
            "a::theirs", with_parts=True, validate_only=False
        )
    assert len(await keys_of(plane)) == 1
    assert set(await keys_of(plane)) < set(keys)
    assert await garbage.collect(store, Planes(data=faulty), files.now()) == 1
    assert await keys_of(plane) == []


async def test_nothing_happens_if_a_plane_does_not_say_what_is_there(custody, plane, store):
    keys = await registered(custody, plane)
    faulty = FaultyPlane(plane, [Fault("stat", 0, Raise(Unavailable("reset")))])
    with pytest.raises(Unavailable):
        await Custody(store, Planes(data=faulty), retire_after=0.0).delete(
            "a::theirs", with_parts=True, validate_only=False
        )
    assert (await custody.catalogue.get("a::theirs")).part_count == len(keys)


# --- rename -----------------------------------------------------------------------------------------------------------


async def lose_catalogue(store) -> None:
    for table in reversed(tables.metadata.sorted_tables):
        await store.write(lambda c, table=table: c.execute(table.delete()).close())


async def test_a_renamed_file_comes_back_under_its_new_name(custody, plane, store):
    await write(plane)
    await rebuild(custody)
    await custody.rename("a::x", "b::y")
    before = await custody.catalogue.get("b::y")
    await lose_catalogue(store)
    assert (await rebuild(custody)).restored == ["b::y"]
    assert await custody.catalogue.get("b::y") == before
    assert len(await custody.catalogue.all_parts("g1")) == 3
    await custody.rename("b::y", "c::z")
    await lose_catalogue(store)
    assert (await rebuild(custody)).restored == ["c::z"]


@pytest.mark.parametrize("names", [["b::y"], ["b::y", "c::z"]])
async def test_a_manifest_that_could_not_be_written_is_written_later(custody, plane, store, names):
    await write(plane)
    await rebuild(custody)
    faulty = FaultyPlane(plane, [Fault("put", 0, Raise(Unavailable("down")))])
    old = "a::x"
    for name in names:
        await Custody(store, Planes(data=faulty), retire_after=0.0).rename(old, name)
        old = name
    await renamed.rewrite_all(store, Planes(data=plane), files.now())
    assert await stale(store) == ["g1"], "whoever renamed it is at it for a minute"
    await renamed.rewrite_all(store, Planes(data=plane), files.now() + renamed.PATIENCE)
    assert await stale(store) == []
    await lose_catalogue(store)
    assert (await rebuild(custody)).restored == [names[-1]]


async def stale(store) -> list[str]:
    return await store.read(lambda c: files.stale_manifests(c, files.now() + 2 * renamed.PATIENCE))


async def test_a_file_that_is_renamed_again_meanwhile_is_not_forgotten(custody, plane, store, monkeypatch):
    await write(plane)
    await rebuild(custody)
    written = renamed.write_manifest

    async def slowly(*args, **more):
        await written(*args, **more)
        monkeypatch.setattr(renamed, "write_manifest", written)
        await store.write(lambda c: files.note_stale_manifests(c, files.rename(c, "b::y", "c::z"), 0.0))

    monkeypatch.setattr(renamed, "write_manifest", slowly)
    await custody.rename("a::x", "b::y")
    assert await stale(store) == ["g1"]
    await renamed.rewrite_all(store, Planes(data=plane), files.now())
    await lose_catalogue(store)
    assert (await rebuild(custody)).restored == ["c::z"]


async def test_a_manifest_that_is_written_behind_a_delete_goes_too(custody, plane, store, monkeypatch):
    await write(plane)
    await rebuild(custody)
    written = renamed.write_manifest

    async def deleted_first(*args, **more):
        await custody.delete("b::y", with_parts=False, validate_only=False)
        await garbage.collect(store, Planes(data=plane), files.now() + 101)
        await written(*args, **more)

    monkeypatch.setattr(renamed, "write_manifest", deleted_first)
    await custody.rename("a::x", "b::y")
    await garbage.collect(store, Planes(data=plane), files.now() + 101)
    assert await keys_of(plane) == []
    assert await stale(store) == []


async def test_a_rename_does_not_wait_for_a_plane_that_is_down(custody, plane, store, monkeypatch):
    await write(plane)
    await rebuild(custody)
    monkeypatch.setattr("fileserver.transfer.custody._SOON", 0.0)
    faulty = FaultyPlane(plane, [Fault("put", 0, Hold())])
    renamed_file = await Custody(store, Planes(data=faulty), retire_after=0.0).rename("a::x", "b::y")
    assert renamed_file.name == "b::y"
    assert await stale(store) == ["g1"]


async def test_a_registered_file_has_no_manifest_to_write(custody, plane):
    keys = await registered(custody, plane)
    await custody.rename("a::theirs", "b::y")
    assert await keys_of(plane) == keys


@pytest.fixture
async def directory(tmp_path):
    """A plane that keeps no checksums."""
    (tmp_path / "plane").mkdir()
    made = PosixPlane("data", PosixSettings(path=tmp_path / "plane", durability="os"))
    yield made
    await made.aclose()


async def test_what_was_read_and_is_the_same_is_known_from_then_on(store, directory):
    plane = directory
    custody = Custody(store, Planes(data=plane), retire_after=100.0)
    await write(plane)
    await rebuild(custody)
    keys = [part.key for part in await custody.catalogue.all_parts("g1")]
    for key, data in zip(keys, (BYTES, b"9" * 10, BYTES), strict=True):
        await plane.put(key, data, upload_id="again", replace=True)
    assert [v.verdict for v in await custody.verify("a::x", read=False)] == ["touched"] * 3
    assert [v.verdict for v in await custody.verify("a::x", read=True)] == ["read", "different", "read"]
    assert [v.verdict for v in await custody.verify("a::x", read=False)] == ["size", "touched", "size"]
    assert (await survey.still(plane, (await custody.catalogue.all_parts("g1"))[0])).key == keys[0]


async def test_the_only_plane_of_a_file_says_itself_why_it_does_not_answer_whatever_folders_the_parts_are_in(
    store, plane
):
    for key in ("one/x", "two/x"):
        await plane.put(key, BYTES, upload_id="theirs")
    faulty = FaultyPlane(plane)
    custody = Custody(store, Planes(data=faulty), retire_after=100.0)
    await custody.register("a::x", [Location("data", "one/x"), Location("data", "two/x")], None, natural=False)
    faulty.script.faults = [Fault("stat", 0, Raise(Refused("the key is wrong")))]
    with pytest.raises(Refused, match="the key is wrong"):
        await custody.verify("a::x", read=False)


async def test_what_was_read_and_has_no_checksum_to_compare_is_not_known(store, directory):
    plane = directory
    custody = Custody(store, Planes(data=plane), retire_after=100.0)
    await plane.put("x", BYTES, upload_id="u")
    await custody.register("a::x", [Location("data", "x")], None, natural=False)
    await plane.put("x", b"9" * 10, upload_id="v", replace=True)
    for read, verdict in ((False, "touched"), (True, "read"), (False, "touched")):
        assert [v.verdict for v in await custody.verify("a::x", read=read)] == [verdict]


# --- is it still the part ---------------------------------------------------------------------------------------------


def part(info, **changes) -> FilePart:
    facts = {"size": info.size, "version": info.version, "checksums": {}} | changes
    return FilePart(4, "data", info.key, facts["size"], facts["version"], facts["checksums"], owned=True)


@pytest.fixture
async def info(plane):
    await plane.put("p", BYTES, upload_id="u")
    return await plane.stat("p")


CRC = checksum.compute(BYTES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"checksums": {"crc64nvme": CRC}},
        {"version": "older", "checksums": {"crc64nvme": CRC}},
        {"version": "older", "checksums": {"crc32": 7}},
        {"version": ""},
    ],
    ids=str,
)
async def test_a_part_that_is_still_the_one_is_pinned_to_what_is_there(plane, info, changes):
    assert (await survey.still(plane, part(info, **changes))).version == info.version
    (source,) = await survey.pin_parts(Planes(data=plane), [[part(info, **changes)]])
    assert source.version == info.version
    assert source.checksums == {"crc64nvme": CRC} | changes.get("checksums", {})


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 11},
        {"size": 11, "version": "older"},
        {"checksums": {"crc64nvme": 7}},
        {"version": "older", "checksums": {"crc64nvme": 7}},
        {"version": "older"},
    ],
    ids=str,
)
async def test_a_part_that_is_another_now_is_refused(plane, info, changes):
    with pytest.raises(Changed, match=r"part 4 .*files verify") as caught:
        await survey.still(plane, part(info, **changes))
    assert caught.value.facts["part"] == "4"
    with pytest.raises(Changed, match=r"part 4 .*files verify"):
        await survey.pin_parts(Planes(data=plane), [[part(info, **changes)]])


async def test_a_part_that_is_gone_is_named(plane, info):
    await plane.delete("p")
    with pytest.raises(Changed, match="part 4 is gone: data:p"):
        await survey.still(plane, part(info))
