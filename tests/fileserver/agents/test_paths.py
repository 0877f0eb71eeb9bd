"""One signed request to a store, and what its answer means: sent, to be sent again, or to be sent another way."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import replace

import grpc
import pytest

from fileserver.away.data import Data
from fileserver.away.direct import Direct, NotReached
from fileserver.away.paths import Paths
from planes import checksum
from planes.direct import Address
from planes.errors import Corrupt, Throttled, Unavailable, Unsupported
from planes.plane import Extent, StepReceipt
from planes.threads import Threads
from tests.doubles import authority, proxy

DATA = b"some bytes of a step"
CRC = checksum.compute(DATA)
SECRET = "X-Amz-Signature=0123456789"
NO_HOST, BROKE = "no such host", "broke"
NOBODY = "http://127.0.0.1:9"
"""Behind the proxy, where nothing is passed on."""


@pytest.fixture
def direct():
    made = Direct(Threads("direct", 2), 2, encrypted=True)
    yield made
    made.close()


def stored(**headers):
    given = {"x-amz-checksum-crc64nvme": checksum.to_s3(CRC), "ETag": '"e1"'} | headers
    return lambda exchange: exchange.send(proxy.Answer(200, tuple(given.items())))


def to(endpoint, method="PUT"):
    return Address(method, f"{endpoint}/lake/x?{SECRET}", {"content-length": str(len(DATA))} if method == "PUT" else {})


async def sent(direct, endpoint):
    return await direct.send(to(endpoint), 3, memoryview(DATA), CRC)


def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (stored(**{"x-amz-checksum-crc64nvme": checksum.to_s3(CRC ^ 1)}), Corrupt, "another checksum of step 3"),
        (stored(**{"x-amz-checksum-crc64nvme": "x"}), NotReached, "without a checksum"),
        (lambda exchange: exchange.send(proxy.Answer(200)), NotReached, "without a checksum"),
        (proxy.answer(403, "SignatureDoesNotMatch"), NotReached, "403 SignatureDoesNotMatch"),
        (proxy.answer(307, "TemporaryRedirect"), NotReached, "307 TemporaryRedirect"),
        (proxy.answer(403, "<b>\x1b[31m"), NotReached, "answers 403$"),
        (proxy.answer(400, "BadDigest"), Corrupt, "other bytes than were sent"),
        (proxy.slow_down, Throttled, "come back"),
        (proxy.fail, Unavailable, "500 InternalError"),
        (proxy.refuse, Unavailable, "broke"),
    ],
)
async def test_what_an_answer_means_is_told_without_the_address(direct, fault, kind, words):
    with proxy.before(NOBODY) as store:
        store.always(fault)
        with pytest.raises(kind, match=words) as raised:
            await sent(direct, store.endpoint)
    assert SECRET not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert getattr(raised.value, "retry_after", None) == (7 if kind is Throttled else None)


async def test_a_store_that_is_not_there_or_not_trusted_is_not_reached(direct, tmp_path):
    with pytest.raises(NotReached, match="takes no connection"):
        await sent(direct, closed_port())
    with proxy.before(NOBODY, authority.make(tmp_path)) as store, pytest.raises(NotReached, match="not trusted"):
        await sent(direct, store.endpoint)


async def test_a_store_whose_authority_the_file_server_names_is_trusted_and_no_other_is(direct, tmp_path):
    own, other = authority.make(tmp_path / "own"), authority.make(tmp_path / "other")
    with proxy.before(NOBODY, own) as store:
        store.always(stored())
        for named, why in ((other.ca.read_text(), "not trusted"), ("-----BEGIN CERTIFICATE-----\nx", "is no certifi")):
            with pytest.raises(NotReached, match=why):
                await direct.send(replace(to(store.endpoint), authorities=named), 3, memoryview(DATA), CRC)
        address = replace(to(store.endpoint), authorities=own.ca.read_text())
        assert (await direct.send(address, 3, memoryview(DATA), CRC)).etag == "e1"
        with pytest.raises(NotReached, match="not trusted"):  # nor for another plane
            await sent(direct, store.endpoint)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"method": "DELETE"}, "no request to a store"),
        ({"url": "ftp://127.0.0.1/x"}, "no request to a store"),
        ({"headers": {"X-aws-ec2-metadata-token-ttl-seconds": "60"}}, "no request to a store"),
        ({"headers": {"Authorization": "Basic eDp5"}}, "no request to a store"),
        ({"url": "http://169.254.169.254/x"}, "in the clear"),
    ],
)
async def test_a_file_server_has_nothing_else_done_by_it(direct, changed, why):
    with proxy.before(NOBODY) as store:
        with pytest.raises(NotReached, match=why):
            await direct.send(replace(to(store.endpoint), **changed), 1, memoryview(DATA), CRC)
        assert not store.seen


async def test_a_step_is_sent_as_it_was_signed_and_what_the_store_says_is_its_receipt(direct):
    with proxy.before(NOBODY) as store:
        store.always(stored())
        assert await sent(direct, store.endpoint) == StepReceipt(3, len(DATA), CRC, "e1", compared=True)
        (request,) = store.seen
    assert (request.method, request.received, request.headers["content-length"]) == ("PUT", len(DATA), str(len(DATA)))
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (proxy.Answer(206, (("ETag", '"v2"'),), DATA), NotReached),
        (proxy.Answer(206, (("ETag", '"v1"'),), DATA + b"x"), NotReached),
        (proxy.Answer(200, (("ETag", '"v1"'),), DATA), NotReached),
        (proxy.Answer(206, (("ETag", '"v1"'),), DATA), None),
    ],
)
async def test_nothing_is_handed_over_but_the_bytes_that_were_asked_for(direct, answer, kind):
    came, extent = [], Extent("x", "v1 id", 5, 5 + len(DATA))
    with proxy.before(NOBODY) as store:
        store.always(lambda exchange: exchange.send(answer))
        fetching = direct.fetch(to(store.endpoint, "GET"), extent, lambda data: came.append(bytes(data)))
        if kind is None:
            await fetching
        else:
            with pytest.raises(kind):
                await fetching
    assert b"".join(came) == (b"" if kind else DATA)


async def test_an_answer_that_breaks_off_may_be_asked_again_from_there(direct):
    came = []
    with proxy.before(NOBODY) as store:
        whole = proxy.Answer(206, (("ETag", '"v1"'),), DATA)
        store.always(lambda exchange: (exchange.send(whole, only=7), exchange.hang_up()))
        with pytest.raises(Unavailable, match="broke"):
            await direct.fetch(
                to(store.endpoint, "GET"), Extent("x", "v1", 0, len(DATA)), lambda d: came.append(bytes(d))
            )
    assert DATA.startswith(b"".join(map(bytes, came)))


async def test_a_way_that_does_not_lead_there_is_not_tried_for_every_step(direct):
    signed = 0

    async def sign():
        nonlocal signed
        signed += 1
        return to(NOBODY)

    async def works(_direct, _address):
        return "well"

    async def lost(_direct, _address):
        raise NotReached(NO_HOST)

    async def breaks(_direct, _address):
        raise Unavailable(BROKE)

    paths = Paths(direct, {"a": "", "b": "", "c": "known not to"})
    assert await paths.go("a", "step", sign, works) == "well"
    assert [await paths.go(name, "step", sign, works) for name in ("c", "elsewhere")] == [None, None]
    assert [await paths.go("a", "step", sign, lost) for _ in range(2)] == [None, None]
    assert signed == 2
    for what in ("step", "step", "1", "2", "3"):
        with pytest.raises(Unavailable):
            await paths.go("b", what, sign, breaks)
    assert await paths.go("b", "step", sign, works) == "well"  # so it is counted from the beginning
    for _ in range(2):
        with pytest.raises(Unavailable):
            await paths.go("b", "step", sign, breaks)
    assert await paths.go("b", "step", sign, breaks) is None
    assert "no such host" in paths.closed["a"]
    assert "broke" in paths.closed["b"]


async def test_the_next_segment_knows_what_was_not_reached_but_not_what_cannot_be_signed(direct):
    async def sign():
        return to(NOBODY)

    async def refuses():
        msg = "not in a folder of ours"
        raise Unsupported(msg)

    async def lost(_direct, _address):
        raise NotReached(NO_HOST)

    paths = Paths(direct, {"a": "", "b": ""})
    assert [await paths.go("a", "step", sign, lost), await paths.go("b", "step", refuses, lost)] == [None, None]
    assert paths.closed["b"] == "not in a folder of ours"
    assert Paths(direct, {"a": "", "b": ""}).closed.keys() == {"a"}


async def test_a_call_that_begins_after_it_was_cancelled_is_ended_at_once():
    begun, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    class Call:
        def cancel(self):
            ended.set()

    def work(_stop, keep):
        begun.set()
        goes_on.wait()
        keep(Call())
        return ended.wait(20)

    with grpc.insecure_channel("127.0.0.1:1") as channel:
        data = Data(channel, 1, encrypted=False)
        task = asyncio.create_task(data._run(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.wait({task}, timeout=0)  # it has heard of it
        await asyncio.wait({task}, timeout=0)
        goes_on.set()
        await asyncio.wait({task})
        data.close()
    assert ended.is_set()
