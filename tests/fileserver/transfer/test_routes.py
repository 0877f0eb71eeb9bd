"""Which way a part goes, what it is called, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fileserver.transfer import routes
from fileserver.transfer.manifest import Extent, Literal, Part
from fileserver.transfer.record import Plan
from planes.plane import GIB, KIB, MIB, Limits

S3 = Limits(
    min_step=5 * MIB,
    max_step=5 * GIB,
    max_steps=10_000,
    max_object=50_000 * GIB,
    put_size=16 * MIB,
    copy_size=256 * MIB,
    min_copy_source=5 * MIB,
    single_put=16 * MIB,
    whole_copy=5 * GIB,
)


FEW = replace(S3, min_step=1, max_steps=2, min_copy_source=0)


def plan(means: str = routes.RANGES, native: str = "", whole: str | None = None, limits: Limits = S3) -> Plan:
    return Plan(
        plane="to",
        file="a::x",
        format=None,
        split="none",
        size=0,
        parts=1,
        limits=limits,
        native={"from": native},
        overwrite=False,
        whole={"from": native if whole is None else whole},
        means={"from": means},
    )


def cut(start: int, end: int, of: int) -> Extent:
    return Extent("from", "x", "v1", start, end, of)


@pytest.mark.parametrize(
    ("pieces", "given", "route", "why"),
    [
        ([cut(0, MIB, MIB)], plan(), routes.WHOLE, "one request"),
        ([cut(0, 10 * MIB, 40 * MIB)], plan(), routes.RANGES, "not one whole object"),
        ([cut(0, GIB, GIB)], plan(), routes.RANGES, "larger than one request"),
        ([cut(0, 10 * MIB, 10 * MIB)], plan(whole="501 no CopyObject"), routes.RANGES, "501 no CopyObject"),
        ([cut(0, MIB, MIB)], plan(whole="501 no CopyObject"), routes.STREAMED, "501 no CopyObject"),
        ([cut(0, MIB, MIB)], plan(native="no ranges", whole=""), routes.WHOLE, "one request"),
        ([cut(0, 10 * MIB, 40 * MIB)], plan(native="no ranges", whole=""), routes.STREAMED, "no ranges"),
        ([cut(0, KIB, 4 * MIB)], plan(), routes.STREAMED, "objects over 5 MiB"),
        ([cut(0, KIB, 10 * MIB), cut(0, KIB, 10 * MIB)], plan(), routes.STREAMED, "below 5 MiB"),
        ([cut(0, KIB, 10 * MIB), cut(0, 20 * MIB, 20 * MIB)], plan(), routes.MIXED, "copied in ranges: .*; streamed: "),
        ([cut(0, KIB, MIB)] * 3, plan(limits=FEW), routes.MIXED, "more pieces than the 2 steps of one object"),
        ([Literal(b"a")], plan(), routes.STREAMED, "added"),
        ([], plan(), routes.STREAMED, "nothing"),
        ([cut(0, MIB, MIB)], plan(routes.PULLED), routes.PULLED, "to fetches from from by a signed address"),
        ([cut(0, 10 * MIB, 40 * MIB)], plan(routes.PULLED), routes.PULLED, "signed address"),
        ([cut(0, 10 * MIB, 40 * MIB)], plan(routes.KERNEL), routes.KERNEL, "one host"),
    ],
)
def test_the_route_of_a_part_and_its_reason(pieces, given, route, why):
    import re

    way = routes.way_of(Part(1, "k", tuple(pieces)), given)
    assert way.route == route
    assert re.search(why, way.why), way.why
    assert way.native + way.through_us == sum(p.size for p in pieces if isinstance(p, Extent))
    assert (way.through_us > 0) == (
        route == routes.MIXED or (route == routes.STREAMED and any(isinstance(p, Extent) for p in pieces))
    )


@pytest.mark.parametrize(
    ("source", "target", "route"),
    [
        ("s3", "s3", routes.RANGES),
        ("azure", "azure", routes.RANGES),
        ("s3", "azure", routes.PULLED),
        ("posix", "posix", routes.KERNEL),
        ("memory", "memory", routes.RANGES),
    ],
)
def test_what_copies_between_two_planes_are_called(source, target, route):
    assert routes.between(source, target) == route


def test_a_refused_route_closes_itself_and_none_that_is_something_else():
    small, large = Part(1, "k", (cut(0, 6 * MIB, 6 * MIB),)), Part(2, "k", (cut(0, 9 * MIB, 40 * MIB),))
    first = routes.close(plan(), "from", routes.WHOLE, "no CopyObject")
    assert [routes.way_of(p, first).route for p in (small, large)] == [routes.RANGES, routes.RANGES]
    second = routes.close(first, "from", routes.RANGES, "no UploadPartCopy")
    assert [routes.way_of(p, second).route for p in (small, large)] == [routes.STREAMED, routes.STREAMED]
    assert "no CopyObject" in routes.way_of(small, second).why
    assert routes.close(second, "from", routes.RANGES, "no UploadPartCopy") == second
    only_ranges = routes.close(plan(), "from", routes.RANGES, "no UploadPartCopy")
    assert [routes.way_of(p, only_ranges).route for p in (small, large)] == [routes.WHOLE, routes.STREAMED]
    pulled = routes.close(plan(routes.PULLED), "from", routes.PULLED, "403")
    assert {routes.way_of(p, pulled).route for p in (small, large)} == {routes.STREAMED}


def test_what_goes_past_the_file_servers_is_told_from_what_the_agents_store_does_not_get_so():
    up = replace(plan(native="no way"), direct={"to": ""})
    assert routes.way_of(Part(1, "k", (cut(0, MIB, MIB), Literal(b"a"))), up).route == routes.DIRECT
    down = replace(plan(native="no way"), plane="@agent", direct={"from": ""})
    way = routes.way_of(Part(1, "k", (cut(0, MIB, MIB),)), down)
    assert (way.route, way.native, way.through_us) == (routes.DIRECT, 0, MIB)
    assert routes.way_of(Part(1, "k", (Literal(b"a"),)), down).route == routes.STREAMED
    round_about = routes.not_direct(up, {"to": "403 there", "elsewhere": "never meant"})
    assert round_about.direct == {"to": "403 there"}
    assert routes.not_direct(round_about, {"to": "again"}) == round_about
    way = routes.way_of(Part(1, "k", (cut(0, MIB, MIB),)), round_about)
    assert (way.route, way.why) == (routes.STREAMED, "403 there")


def test_a_refusal_is_told_with_what_comes_next():
    assert "copied in ranges" in routes.told("from", routes.WHOLE, "403")
    assert routes.told("from", routes.PULLED, "403") == "from: 403; what was to be pulled from there is streamed"


def test_a_plan_of_an_older_version_still_has_its_routes():
    old = plan().to_json()
    del old["whole"], old["means"]
    given = Plan.from_json(old)
    assert routes.way_of(Part(1, "k", (cut(0, MIB, MIB),)), given).route == routes.WHOLE


def test_the_tally_names_every_part_once_in_runs():
    tally = routes.Tally(plan())
    whole, ranges = (cut(0, MIB, MIB),), (cut(0, 10 * MIB, 40 * MIB),)
    tally.add([Part(n, "k", whole) for n in (1, 2)])
    tally.add([Part(3, "k", ranges), Part(4, "k", whole)])
    tally.add([Part(5, "k", whole)])
    assert [(t.route, t.size, t.part_count, t.parts) for t in tally.taken] == [
        (routes.WHOLE, 4 * MIB, 4, ((1, 2), (4, 5))),
        (routes.RANGES, 10 * MIB, 1, ((3, 3),)),
    ]
    assert routes.phrase(tally.taken) == "4 parts copied whole, 1 copied in ranges"
