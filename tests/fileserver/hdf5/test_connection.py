"""One server's requests: asked again where that helps, no more at once than it takes, errors in our words."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from fileserver.errors import CallerDenied
from fileserver.hdf5.hsds import domains
from fileserver.hdf5.hsds.connection import Connection
from fileserver.hdf5.hsds.settings import HsdsSettings
from planes.errors import AlreadyExists, NotFound, Refused, Throttled, Unavailable, Unsupported
from planes.retrying import Patience
from planes.settings import PlaneLimits, Secret


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def patience(self, **more):
        return Patience(sleep=self.sleep, clock=lambda: self.now, **more)


class Scripted:
    """A server that answers as it is told to, and counts."""

    def __init__(self, answer):
        self.answer = answer
        self.seen = []
        self.requests = []
        self.inside = self.most = 0

    async def handle(self, request):
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            self.requests.append(request)
            self.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
            return await self.answer(len(self.seen), self.inside)
        finally:
            self.inside -= 1


@asynccontextmanager
async def serving(tmp_path, answer, patience, **more):
    """A scripted server on a unix socket, and a connection to it."""
    scripted = Scripted(answer)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    connection = Connection("main", HsdsSettings(endpoint=endpoint(tmp_path / "s"), **more), patience)
    try:
        yield scripted, connection
    finally:
        await connection.aclose()
        await runner.cleanup()


def endpoint(path):
    return f"http+unix://{str(path).replace('/', '%2F')}"


def always(status, **more):
    async def answer(_number, _inside):
        return web.Response(status=status, **more)

    return answer


def first(count, status, then=None):
    async def answer(number, _inside):
        if number <= count:
            return web.Response(status=status)
        return web.json_response({} if then is None else then)

    return answer


async def test_a_request_carries_domain_bucket_and_who_asks(tmp_path):
    (tmp_path / "secret").write_text("hunter2\n")
    who = {"username": "me", "password": Secret(file=tmp_path / "secret"), "bucket": "lake"}
    async with serving(tmp_path, first(0, 0, {"a": 1}), Clock().patience(), **who) as (server, connection):
        answer = await connection.call("PUT", "/x", domain="/home/a b", params={"flush": "1"}, body={"folder": 1})
        assert answer.json() == {"a": 1}
        await connection.call("PUT", "/v", data=memoryview(bytes(range(256)) * 4096))
    assert "hunter2" not in repr(connection.settings)
    method, path, headers, body = server.seen[0]
    assert (method, path, json.loads(body)) == ("PUT", "/x?domain=/home/a+b&bucket=lake&flush=1", {"folder": 1})
    assert headers["Authorization"] == "Basic bWU6aHVudGVyMg=="
    assert server.seen[1][2]["Content-Length"] == str(2**20)
    assert server.seen[1][3] == bytes(range(256)) * 4096


async def test_a_bearer_token_is_read_anew_each_time(tmp_path):
    token = tmp_path / "token"
    token.write_text("one")
    async with serving(tmp_path, first(0, 0), Clock().patience(), token=Secret(file=token)) as (server, connection):
        await connection.call("GET", "/")
        token.write_text("two")
        await connection.call("GET", "/")
    assert [seen[2]["Authorization"] for seen in server.seen] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
async def test_a_full_server_is_asked_again_with_every_verb_each_time_later(tmp_path, method):
    clock = Clock()
    async with serving(tmp_path, first(6, 503), clock.patience()) as (server, connection):
        await connection.call(method, "/")
        assert connection.traffic.refused == 6
    assert len(server.seen) == 7
    assert sum(clock.slept) > 3
    assert len(set(clock.slept)) > 3  # with jitter


async def test_a_server_that_stays_full_is_told_after_a_while(tmp_path):
    clock = Clock()
    async with serving(tmp_path, always(503), clock.patience()) as (server, connection):
        with pytest.raises(Throttled, match="no room for the request now"):
            await connection.call("GET", "/")
    assert len(server.seen) < 40
    assert 100 < clock.now < 200


async def test_a_server_with_room_for_two_is_not_stormed(tmp_path):
    async def answer(_number, inside):
        await asyncio.sleep(0)  # as long as another request takes to come in
        return web.Response(status=503) if inside > 2 else web.json_response({})

    clock = Clock()
    async with serving(tmp_path, answer, clock.patience(), limits=PlaneLimits(requests=16)) as (server, connection):
        await asyncio.gather(*(connection.call("PUT", f"/{n}") for n in range(300)))
        refused = connection.traffic.refused
        assert connection.width < 16
    assert len(server.seen) == 300 + refused
    assert refused < 100


async def test_what_is_not_there_is_told_with_the_bucket_where_it_was_looked_for(tmp_path):
    async with serving(tmp_path, always(404), Clock().patience(), bucket="lake") as (_, connection):
        with pytest.raises(NotFound, match=r"not there in its bucket lake \(PUT /\)"):
            await connection.call("PUT", "/", domain="/home/d")


async def test_a_failing_server_is_asked_four_times(tmp_path):
    async with serving(tmp_path, first(3, 500), Clock().patience()) as (server, connection):
        await connection.call("GET", "/")
        assert len(server.seen) == 4
    async with serving(tmp_path / "..", always(500), Clock().patience()) as (server, connection):
        with pytest.raises(Refused, match="failed with 500 at GET /x, 4 times"):
            await connection.call("GET", "/x")
        assert len(server.seen) == 4


async def test_a_flush_waits_until_all_data_nodes_are_back_and_what_they_lost_is_counted(tmp_path):
    async with serving(tmp_path, first(9, 500, {"dn_ids": ["dn-1"]}), Clock().patience()) as (server, connection):
        assert await domains.flush(connection, "/home/x") == 1
        assert (len(server.seen), connection.traffic.lost) == (10, 9)
    async with serving(tmp_path / "..", always(500), Clock().patience()) as (server, connection):
        with pytest.raises(Unavailable):
            await domains.flush(connection, "/home/x")


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, Refused, r"the server answered 400 \(GET /x: because\)"),
        (401, CallerDenied, "HSDS 'main' does not know nobody or takes another password"),
        (403, CallerDenied, r"hdf5://home/d on HSDS 'main': nobody may not do that \(GET /x\)"),
        (404, NotFound, "not there"),
        (410, NotFound, "not there"),
        (409, AlreadyExists, "exists already"),
        (413, Refused, "413"),
        (501, Unsupported, "cannot do that"),
        (302, Refused, "is no HSDS .* sends us elsewhere"),
    ],
)
async def test_other_answers_are_errors_at_once(tmp_path, status, kind, said):
    async with serving(tmp_path, always(status, reason="because"), Clock().patience()) as (server, connection):
        with pytest.raises(kind, match=said) as error:
            await connection.call("GET", "/x", domain="/home/d")
    assert len(server.seen) == 1
    assert error.value.facts["hsds"] == "main"


async def test_what_is_no_hsds_is_told(tmp_path):
    for text, said in (("<html>", "no JSON"), ("[1]", "no mapping")):
        async with serving(tmp_path, always(200, text=text), Clock().patience()) as (_, connection):
            answer = await connection.call("GET", "/")
            with pytest.raises(Refused, match=said):
                answer.json()
        (tmp_path / "s").unlink(missing_ok=True)


async def test_a_server_that_is_not_there_is_named_with_its_endpoint(tmp_path):
    clock = Clock()
    connection = Connection("main", HsdsSettings(endpoint=endpoint(tmp_path / "none")), clock.patience())
    with pytest.raises(Unavailable, match=r"HSDS 'main' at http\+unix://.* does not answer \(No such file") as error:
        await connection.call("GET", "/")
    await connection.aclose()
    assert clock.now > 25
    assert error.value.facts["endpoint"].startswith("http+unix://")


async def test_a_server_that_breaks_off_and_one_that_is_slow_are_asked_again(tmp_path):
    never = asyncio.Event()

    async def answer(number, _inside):
        if number == 1:
            broken = web.StreamResponse(headers={"Content-Length": "100"})
            await broken.prepare(server.requests[-1])
            await broken.write(b"{")
            server.requests[-1].transport.abort()
            return broken
        if number == 2:
            await never.wait()
        return web.json_response({"number": number})

    async with serving(tmp_path, answer, Clock().patience(), timeout=0.2) as (server, connection):
        assert (await connection.call("GET", "/")).json() == {"number": 3}
        assert connection.traffic.lost == 2
        never.set()
