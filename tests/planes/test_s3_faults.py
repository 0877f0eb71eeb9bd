"""Whatever goes wrong between us and an S3 store: the verb completes or says one clear error, and leaves no litter."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, ClassVar

import pytest

from planes import checksum
from planes.errors import Corrupt, Error, Refused, Throttled
from planes.limited import LimitedPlane
from planes.opening import decorated
from planes.plane import Plane
from planes.s3 import S3Plane, S3Settings
from planes.settings import PlaneLimits
from planes.wrapped import find
from tests.doubles import busy, proxy, seaweedfs
from tests.planes import fault_table
from tests.planes.fault_table import Fault


class S3Site:
    """A bucket of a real store."""

    requests: ClassVar = {
        "stat": {"method": "HEAD"},
        "list": {"method": "GET", "query": "list-type"},
        "read": {"method": "GET"},
        "put": {"method": "PUT"},
        "copy": {"method": "PUT", "header": "x-amz-copy-source"},
        "begin": {"method": "POST", "query": "uploads"},
        "put_step": {"method": "PUT", "query": "partNumber"},
        "copy_step": {"method": "PUT", "query": "partNumber"},
        "commit": {"method": "POST", "query": "uploadId"},
        "abort": {"method": "DELETE", "query": "uploadId"},
        "delete": {"method": "DELETE"},
    }
    source = "origin/source"

    def __init__(self, plane: Plane, between: proxy.Proxy, behind: Any) -> None:
        self.plane = plane
        self.between = between
        self._behind = behind

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies there."""
        found = self._behind.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", [])
        bodies = {each["Key"]: self._behind.get_object(Bucket="lake", Key=each["Key"])["Body"] for each in found}
        return {key: body.read() for key, body in bodies.items()}

    def open_uploads(self, prefix: str) -> list[str]:
        """Keys of open uploads."""
        found = self._behind.list_multipart_uploads(Bucket="lake", Prefix=prefix).get("Uploads", [])
        return [each["Key"] for each in found]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with seaweedfs.running(tmp_path_factory.mktemp("s3")) as running:
        running.create_bucket("lake")
        yield running


@pytest.fixture(scope="module")
def behind(store):
    with contextlib.closing(store.client()) as client:
        proof = checksum.to_s3(checksum.compute(fault_table.SOURCE))
        client.put_object(Bucket="lake", Key=S3Site.source, Body=fault_table.SOURCE, ChecksumCRC64NVME=proof)
        yield client


@pytest.fixture(scope="module")
def between(store):
    with proxy.before(store.endpoint) as running:
        yield running


@pytest.fixture(scope="module")
def undecorated(store, between, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    (folder / "ak").write_text(store.access_key)
    (folder / "sk").write_text(store.secret_key)
    keys = {"access_key": {"file": folder / "ak"}, "secret_key": {"file": folder / "sk"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planes.s3_connection._READ_SECONDS", 1)
        patch.setattr("planes.s3_upload._ABORT_PAUSE", 0)
        settings = S3Settings.model_validate({"bucket": "lake", "endpoint": between.endpoint} | keys)
        plane = S3Plane("cloud", settings, soon=1 << 30)  # the second client for small objects asks again by itself
        yield plane
        asyncio.run(plane.aclose())


@pytest.fixture
def site(undecorated, between, behind):
    """With layers of its own: what went wrong in one case is not remembered in the next."""
    between.clear()
    return S3Site(decorated(undecorated, PlaneLimits(), fault_table.patience()), between, behind)


def _wrong_checksum(answer: proxy.Answer) -> proxy.Answer:
    wrong = checksum.to_s3(5).encode()
    head, tag, rest = answer.body.partition(b"<ChecksumCRC64NVME>")
    body = head + tag + wrong + rest[len(wrong) :] if tag else answer.body
    name = "x-amz-checksum-crc64nvme"
    has = any(header.lower() == name for header, _ in answer.headers)
    changed = proxy.Answer(answer.status, answer.headers, body, answer.length)
    return changed.with_header(name, wrong.decode()) if has else changed


BODIES = frozenset({"list", "read", "stream"})
"""Verbs whose answer has a body that matters."""
SAID = frozenset({"put", "copy", "put_step", "copy_step", "commit"})
"""Verbs whose answer says a checksum."""
FAULTS = {
    "slow-down": Fault(proxy.slow_down, always=Throttled),
    "500": Fault(proxy.fail),
    "500-though-done": Fault(proxy.fail_after),
    "reset-before": Fault(proxy.refuse),
    "answer-lost": Fault(proxy.drop_answer),
    "truncated": Fault(proxy.truncate(50), verbs=BODIES),
    "reset-in-body": Fault(proxy.reset_after(50), verbs=BODIES),
    "slow-body": Fault(proxy.dribble(8000), always=None, verbs=BODIES),
    "stalled-body": Fault(proxy.stall(50), verbs=BODIES),
    "expired-token": Fault(proxy.answer(400, "ExpiredToken"), once=Refused, always=Refused),
    "flipped-on-its-way": Fault(proxy.flip_sent, always=Corrupt, verbs=frozenset({"put", "put_step"})),
    "wrong-checksum": Fault(proxy.change(_wrong_checksum), always=Corrupt, verbs=SAID),
    "delivered-twice": Fault(proxy.twice, always=None),
    "error-in-200": Fault(proxy.error_in_200),
    "lost-then-404": Fault(
        proxy.drop_answer,
        always=None,
        verbs=frozenset({"commit"}),
        then=((proxy.fail, "HEAD"), (proxy.answer(404, "NoSuchUpload"), "POST")),
    ),
}
OTHERWISE: dict[tuple[str, str, bool], type[Error] | None] = {
    # Done, though nobody ever says so: seen by looking at the object.
    **{(verb, name, True): None for verb in ("put", "copy", "commit") for name in ("500-though-done", "answer-lost")},
    # The object that is not there any more needs no deleting.
    ("discard", "500-though-done", True): None,
    ("discard", "answer-lost", True): None,
    # What HEAD says of the object counts, not what the answer to its writing said.
    **{(verb, "wrong-checksum", True): None for verb in ("put", "copy", "commit")},
    # Only the store has seen a copied step. That it lied is found by the commit, which has nobody to ask again.
    ("copy_step", "wrong-checksum", False): Corrupt,
}
"""Cells that differ from their fault's usual outcome."""


CASES = [
    (verb, name, always)
    for name, fault in FAULTS.items()
    for verb in fault_table.VERBS
    for always in (False, True)
    if not fault.verbs or verb in fault.verbs
]


def test_every_cell_that_differs_is_played():
    assert OTHERWISE.keys() <= set(CASES)


@pytest.mark.parametrize(("verb", "name", "always"), CASES)
async def test_a_fault(site, verb, name, always):
    fault = FAULTS[name]
    came = await fault_table.play(site, verb, name, fault, always=always)
    usual = fault.always if always else fault.once
    wanted = OTHERWISE.get((verb, name, always), usual)
    assert (type(came) if came else None) is wanted, came


@pytest.mark.parametrize("verb", ["put", "copy", "commit"])
async def test_a_store_that_asks_to_slow_down_is_not_even_looked_at(site, undecorated, between, verb):
    ticket = site.plane.copy_ticket(await site.plane.stat(site.source))
    upload = await undecorated.upload("slow/commit", upload_id="u")
    step = await upload.put(1, 0, b"x")
    between.clear()
    between.once(proxy.slow_down, **site.requests[verb])
    calls = {
        "put": lambda: undecorated.put("slow/put", b"x", upload_id="u"),
        "copy": lambda: undecorated.copy("slow/copy", ticket, upload_id="u"),
        "commit": lambda: upload.commit([step], 1, None),
    }
    with pytest.raises(Throttled):
        await calls[verb]()
    assert between.seen[-1].status == 503
    await calls[verb]()


@pytest.mark.soak
@pytest.mark.parametrize("callers", [16, 200])
async def test_a_store_of_100_requests_a_second_gets_as_many(undecorated, between, callers):
    """In the time of clocks on walls, unlike its twin in test_limited."""
    count, rate = 2000, busy.Rate(100, burst=10)
    between.clear()
    between.always(rate)
    plane = decorated(undecorated, PlaneLimits())
    limited = find(plane, LimitedPlane)
    assert limited is not None
    begun, todo, widths = time.monotonic(), iter(range(count)), list[float]()

    async def caller() -> None:
        for number in todo:
            await plane.put(f"rate/{callers}/{number}", b"x", upload_id="u")
            widths.append(limited._bounds.window.width)

    await asyncio.gather(*(caller() for _ in range(callers)))
    took = time.monotonic() - begun
    settled = sorted(widths[count // 4 :])
    spread = ", ".join(f"{settled[len(settled) * n // 100]:.2f}" for n in (1, 25, 50, 75, 99))
    print(f"{count} puts in {took:.1f} s, {rate.refused} refused; width at 1, 25, 50, 75, 99 %: {spread}")
    assert count <= rate.taken < 1.05 * count
    assert rate.refused < count / 4
    assert took < 1.5 * count / 100
    assert settled[-1] < 16
    between.clear()
    assert len([info async for info in plane.list(f"rate/{callers}/")]) == count
