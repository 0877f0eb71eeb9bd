"""PlaneService: what is configured, without its secrets, and what lies there, page by page."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fileserver.configured import Configured
from fileserver.errors import CallerDenied, InvalidSpec, PlaneNotFound
from fileserver.services.plane import PlaneServicer
from fileserver.v1 import plane_pb2
from planes.errors import Throttled
from planes.limited import LimitedPlane
from planes.opening import parse_settings
from planes.wrapped import find


def servicer(**planes):
    parsed = {name: parse_settings(name, mapping) for name, mapping in planes.items()}
    return PlaneServicer(Configured(parsed, next(iter(parsed))))


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


@settings(deadline=None)
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
