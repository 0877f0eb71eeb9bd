"""PlaneService: what is configured, without its secrets, and what lies there, page by page."""

import os
import socket
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.configured import Configured
from fileserver.errors import CallerDenied, InvalidSpec, PlaneNotFound
from fileserver.services import plane as services
from fileserver.services.plane import PlaneServicer
from fileserver.transfer.sweep import Sweep
from fileserver.v1 import plane_pb2
from planes.errors import Refused, Throttled
from planes.limited import LimitedPlane
from planes.opening import parse_settings
from planes.retrying import Patience
from planes.wrapped import find
from tests.doubles import seaweedfs

NO_SWEEP = cast("Sweep", None)  # of no concern here


def servicer(**planes):
    parsed = {name: parse_settings(name, mapping) for name, mapping in planes.items()}
    return PlaneServicer(Configured(parsed, next(iter(parsed))), NO_SWEEP)


async def test_planes_are_described_without_their_secrets(tmp_path):
    asked = servicer(
        data={"type": "posix", "path": str(tmp_path), "default_parts": 4, "limits": {"requests": 7}},
        cloud={
            "type": "s3",
            "bucket": "lake",
            "prefix": "in/",
            "endpoint": "https://me:hunter2@s3.example",
            "access_key": {"env": "NOT_SET_ANYWHERE"},
            "secret_key": {"env": "NOT_SET_EITHER"},
            "category": "lz",
        },
    )
    answer = await asked.ListPlanes(plane_pb2.ListPlanesRequest(), None)
    assert answer.default_plane == "data"
    data, cloud = answer.planes
    assert (data.name, data.type, data.location, data.default_parts, data.requests) == (
        "data",
        "posix",
        str(tmp_path),
        4,
        7,
    )
    assert (cloud.category, cloud.location) == ("lz", "s3://lake/in/ at https://[struck]@s3.example")
    assert "NOT_SET" not in str(answer)
    assert (await asked.GetPlane(plane_pb2.GetPlaneRequest(name="data"), None)).plane == data


async def test_a_plane_that_is_not_configured_is_told_with_those_that_are():
    asked = servicer(data={"type": "memory"})
    for call in (
        asked.GetPlane(plane_pb2.GetPlaneRequest(name="dota"), None),
        asked.UpdateLimits(plane_pb2.UpdateLimitsRequest(name="dota", requests=1), None),
        asked.CheckPlane(plane_pb2.CheckPlaneRequest(name="dota"), None),
        asked.ListObjects(plane_pb2.ListObjectsRequest(plane="dota"), None),
    ):
        with pytest.raises(PlaneNotFound, match="data"):
            await call


async def test_limits_are_changed_one_by_one_and_shown():
    asked = servicer(data={"type": "memory", "limits": {"requests": 40}})
    request = plane_pb2.GetPlaneRequest(name="data")
    before = (await asked.GetPlane(request, None)).plane
    assert (before.requests, before.requests_now, before.bytes_per_second) == (40, 16, 0)
    changed = plane_pb2.UpdateLimitsRequest(name="data", requests=2)
    answer = (await asked.UpdateLimits(changed, None)).plane
    assert (answer.requests, answer.requests_now, answer.bytes_per_second) == (2, 2, 0)
    changed = plane_pb2.UpdateLimitsRequest(name="data", bytes_per_second=10**12)
    answer = (await asked.UpdateLimits(changed, None)).plane
    assert (answer.requests, answer.bytes_per_second) == (2, 10**12)
    assert (await asked.GetPlane(request, None)).plane == answer
    await asked.UpdateLimits(plane_pb2.UpdateLimitsRequest(name="data", bytes_per_second=0), None)
    assert (await asked.GetPlane(request, None)).plane.bytes_per_second == 0


async def test_a_plane_that_asked_to_be_left_alone_says_so_until_an_operator_knows_better():
    asked = servicer(data={"type": "memory"})
    limited = find(asked._planes.plane("data"), LimitedPlane)
    limited._bounds.pause.ask_for(1000)
    request = plane_pb2.GetPlaneRequest(name="data")
    assert 990 < (await asked.GetPlane(request, None)).plane.wait.ToSeconds() <= 1000
    with pytest.raises(Throttled):
        await asked._planes.plane("data").stat("a")
    await asked.UpdateLimits(plane_pb2.UpdateLimitsRequest(name="data"), None)
    assert not (await asked.GetPlane(request, None)).plane.wait.ToSeconds()


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"requests": 0}, {"requests"}),
        ({"requests": 1025, "bytes_per_second": -1}, {"requests", "bytes_per_second"}),
    ],
)
async def test_limits_out_of_range_change_nothing(given, fields):
    asked = servicer(data={"type": "memory"})
    before = asked._describe("data")
    with pytest.raises(InvalidSpec, match="data") as caught:
        await asked.UpdateLimits(plane_pb2.UpdateLimitsRequest(name="data", **given), None)
    assert set(caught.value.violations) == fields
    assert asked._describe("data") == before


@given(keys=st.sets(st.text("ab/é", min_size=1, max_size=4).filter(lambda k: "//" not in k and k.strip("/") == k)))
async def test_pages_follow_each_other_without_gap_or_overlap(keys):
    asked = servicer(data={"type": "memory"})
    plane = asked._planes.plane("data")
    for number, key in enumerate(keys):
        await plane.put(key, b"x", upload_id=f"u{number}")
    found, token, pages = [], "", 0
    while True:
        request = plane_pb2.ListObjectsRequest(plane="data", page_size=2, page_token=token)
        page = await asked.ListObjects(request, None)
        assert len(page.objects) <= 2
        found += [o.key for o in page.objects]
        pages += 1
        token = page.next_page_token
        if not token:
            break
    assert found == sorted(keys, key=str.encode)
    assert pages == max(1, -(-len(keys) // 2))


async def test_a_page_tells_what_is_no_object(tmp_path):
    for name in (b"a", b"b", b"k\xff"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    asked = servicer(data={"type": "posix", "path": tmp_path})
    page = await asked.ListObjects(plane_pb2.ListObjectsRequest(plane="data"), None)
    assert [each.key for each in page.objects] == ["a", "b"]
    assert {(each.name, each.has_data) for each in page.left_out} == {(r"k\xff", True), ("pipe", False)}
    await asked._planes.plane("data").aclose()


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_has_its_bounds(size):
    asked = servicer(data={"type": "memory"})
    with pytest.raises(InvalidSpec) as caught:
        await asked.ListObjects(plane_pb2.ListObjectsRequest(plane="data", page_size=size), None)
    assert set(caught.value.violations) == {"page_size"}


async def test_the_callers_own_files_are_not_listed_for_strangers():
    with pytest.raises(CallerDenied):
        await servicer(data={"type": "memory"}).ListObjects(plane_pb2.ListObjectsRequest(plane="local"), None)


async def test_a_check_tells_what_was_tried():
    answer = await servicer(data={"type": "memory"}).CheckPlane(plane_pb2.CheckPlaneRequest(name="data"), None)
    assert answer.ok
    assert all(r.check for r in answer.results)
    found = {f.fact: (f.found, f.costs) for f in answer.facts}
    assert found["copies ranges by itself"] == ("yes", "")
    assert all(found)


async def test_a_check_of_a_landing_zone_leaves_no_folder_and_takes_none_of_others(tmp_path):
    (tmp_path / "theirs").mkdir()
    plane = {"type": "posix", "path": str(tmp_path), "category": "lz"}
    answer = await servicer(data=plane).CheckPlane(plane_pb2.CheckPlaneRequest(name="data"), None)
    assert answer.ok
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


# --- CheckPlane of planes that do not work ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("s3")) as store:
        store.create_bucket("lake")
        yield store


async def first_trouble(**plane):
    """The one result of a check that fails at the beginning."""
    answer = await servicer(data=plane).CheckPlane(plane_pb2.CheckPlaneRequest(name="data"), None)
    assert not answer.ok
    assert not answer.facts, "of a plane that nothing could be written to nothing is known"
    (result,) = answer.results
    assert not result.ok
    return result


async def test_wrong_credentials_and_a_missing_bucket_are_told_apart_by_a_check(lake, monkeypatch):
    monkeypatch.setenv("RIGHT_KEY", lake.access_key)
    monkeypatch.setenv("RIGHT_SECRET", lake.secret_key)
    monkeypatch.setenv("WRONG", "not-the-right-one")
    keys = {"access_key": {"env": "RIGHT_KEY"}, "secret_key": {"env": "RIGHT_SECRET"}}
    plane = {"type": "s3", "bucket": "lake", "endpoint": lake.endpoint, **keys}
    answer = await servicer(data=plane).CheckPlane(plane_pb2.CheckPlaneRequest(name="data"), None)
    assert answer.ok, answer
    for name in ("access_key", "secret_key"):
        wrong = await first_trouble(**{**plane, name: {"env": "WRONG"}})
        assert wrong.reason == "PLANE_REFUSED"
        assert "environment variable WRONG" in wrong.detail
        assert "not-the-right-one" not in str(wrong)
    unset = await first_trouble(**{**plane, "secret_key": {"env": "NOT_SET_ANYWHERE"}})
    assert (unset.reason, "NOT_SET_ANYWHERE" in unset.detail) == ("PLANE_REFUSED", True)
    missing = await first_trouble(**{**plane, "bucket": "nowhere"})
    assert (missing.reason, "nowhere" in missing.detail) == ("PLANE_MISSING", True)


async def test_a_store_that_does_not_answer_is_not_waited_for_in_a_check(monkeypatch):
    monkeypatch.setenv("KEY", "k")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    patience = []
    real = services.open_plane
    monkeypatch.setattr(services, "open_plane", lambda *args: patience.append(args[2]) or real(*args))
    keys = {"access_key": {"env": "KEY"}, "secret_key": {"env": "KEY"}}
    found = await first_trouble(type="s3", bucket="lake", endpoint=endpoint, **keys)
    assert found.reason == "PLANE_UNAVAILABLE"
    assert endpoint in found.detail
    assert patience[0].seconds < Patience().seconds


async def test_directories_that_cannot_be_used_are_told_apart_by_a_check(tmp_path):
    missing = await first_trouble(type="posix", path=str(tmp_path / "nowhere"))
    assert missing.reason == "PLANE_MISSING"
    assert str(tmp_path / "nowhere") in missing.detail
    (tmp_path / "file").write_bytes(b"x")
    assert (await first_trouble(type="posix", path=str(tmp_path / "file"))).reason == "PLANE_MISSING"
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    where = "/sys/kernel" if os.geteuid() == 0 else str(closed)  # root may write into any directory but the kernel's
    refused = await first_trouble(type="posix", path=where)
    assert refused.reason == "PLANE_REFUSED"
    assert "data:cropduster-check-" in refused.detail


async def test_a_plane_whose_packages_are_missing_is_told_by_a_check(monkeypatch):
    def missing(*_args):
        raise REFUSED

    monkeypatch.setattr(services, "open_plane", missing)
    found = await first_trouble(type="memory")
    assert (found.check, found.detail, found.reason) == ("open", "pip install it", "PLANE_REFUSED")


REFUSED = Refused("pip install it")
