"""What surrounds every call from outside: the token, the rate, the line in the audit."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from client.tokens import make_key, make_token
from fileserver import auth, log
from fileserver.admission import Admission
from fileserver.auth import Caller, caller
from fileserver.callers import RuleSettings, Tokens
from fileserver.calls import GRANT_KEY, Call, Gate, Interceptor
from fileserver.config import Config
from fileserver.errors import CallerDenied, CallerUnknown, FileNotFound, InvalidSpec, ServerBusy
from fileserver.grants import Grant, Keys
from fileserver.guard import audit, rate
from fileserver.guard.audit import Audits, named, plain
from fileserver.guard.bearer import METADATA_KEY, Bearers
from fileserver.guard.holders import Holders
from fileserver.guard.listeners import listeners
from fileserver.guard.rate import Rates
from fileserver.guard.tokens import Verifier
from fileserver.rules import Rules
from fileserver.status import ErrorInterceptor, from_call
from fileserver.transfer.jobs import _request_of
from fileserver.v1 import file_pb2, plane_pb2, plane_pb2_grpc, transfer_pb2, transfer_pb2_grpc


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return make_key(tmp_path_factory.mktemp("keys") / "key")


# ruff: noqa: N802, ARG002 - as the wire has it
class Planes(plane_pb2_grpc.PlaneServiceServicer):
    async def ListPlanes(self, request, context):
        return plane_pb2.ListPlanesResponse(default_plane=caller().name)


class Transfers(transfer_pb2_grpc.TransferServiceServicer):
    async def WatchTransfer(self, request, context):
        yield transfer_pb2.WatchTransferResponse()
        await asyncio.Event().wait()


QUERY = "/fileserver.v1.DataService/QueryWrite"


class Counted(grpc.GenericRpcHandler):
    """`/t.T/x`, and a call of DataService, count the bytes of what they are asked, wherever it is read."""

    taken = 0

    def service(self, handler_call_details):
        def read(data):
            Counted.taken += len(data)
            return data

        async def answer(request, context):
            return b""

        if handler_call_details.method in {"/t.T/x", QUERY}:
            return grpc.unary_unary_rpc_method_handler(answer, request_deserializer=read)
        return None


@pytest.fixture
async def channel(key):
    verifier = Verifier(Tokens(keys={key.id: key.public}, leeway="0s"))
    rules = Rules([RuleSettings(who=("*",), may=("read",), planes=("lz",)).rule()])
    audits, bearers = Audits("external", lambda: "data"), Bearers(verifier, rules)
    holders = Holders(Keys(["of the file servers"], time.time))
    guards = [Interceptor(audits.around), Gate(holders.check, bearers.check), Interceptor(bearers.around)]
    server = aio.server(interceptors=[ErrorInterceptor(), *guards])
    server.add_generic_rpc_handlers((Counted(),))
    plane_pb2_grpc.add_PlaneServiceServicer_to_server(Planes(), server)
    transfer_pb2_grpc.add_TransferServiceServicer_to_server(Transfers(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


def listing(channel, *shown):
    stub = plane_pb2_grpc.PlaneServiceStub(channel)
    return stub.ListPlanes(plane_pb2.ListPlanesRequest(), metadata=[(METADATA_KEY, each) for each in shown])


async def test_the_bearer_of_a_token_is_known(channel, key):
    token = make_token(key.private, "alice", [], 60)
    assert (await listing(channel, f"Bearer {token}")).default_plane == "alice"
    assert (await listing(channel, f"bearer  {token}")).default_plane == "alice"


@pytest.mark.parametrize("shown", [[], ["Bearer "], ["Basic YTpi"], ["TOKEN"], ["Bearer TOKEN", "Bearer TOKEN"]])
async def test_without_one_token_nobody_gets_in(channel, key, shown):
    token = make_token(key.private, "alice", [], 60)
    with pytest.raises(aio.AioRpcError) as caught:
        await listing(channel, *(each.replace("TOKEN", token) for each in shown))
    assert caught.value.code() is StatusCode.UNAUTHENTICATED
    error = from_call(caught.value)
    assert type(error) is CallerUnknown
    assert "--token-file" in error.message
    assert error.facts == {}  # no path of a cookie


async def test_nothing_of_what_a_stranger_asks_is_read(channel, key, monkeypatch):
    monkeypatch.setattr(Counted, "taken", 0)
    ask = channel.unary_unary("/t.T/x")
    with pytest.raises(aio.AioRpcError) as caught, capture_logs() as lines:
        await ask(bytes(2 << 20), metadata=[(METADATA_KEY, "Bearer x.y.z")])
    assert type(from_call(caught.value)) is CallerUnknown
    assert Counted.taken == 0
    assert [(line["who"], line["result"]) for line in lines] == [("", "CALLER_UNKNOWN")]
    await ask(bytes(2 << 20), metadata=[(METADATA_KEY, f"Bearer {make_token(key.private, 'alice', [], 60)}")])
    assert Counted.taken == 2 << 20


async def test_nothing_of_what_comes_with_a_grant_is_read_before_that_counts(channel, monkeypatch):
    monkeypatch.setattr(Counted, "taken", 0)
    ask = channel.unary_unary(QUERY)
    good = Grant("write", "t", 1, "u", 0, 1, 1, time.time() + 60)
    minted = {name: Keys([name], time.time) for name in ("of the file servers", "of somebody else")}
    old = minted["of the file servers"].mint(replace(good, expires=time.time() - 1))
    for shown in ("", "x.y.z", "x" * 5000, old, minted["of somebody else"].mint(good)):
        with pytest.raises(aio.AioRpcError) as caught, capture_logs() as lines:
            await ask(bytes(2 << 20), metadata=[(GRANT_KEY, shown)])
        assert type(from_call(caught.value)) is CallerDenied
        assert [line["result"] for line in lines] == ["CALLER_DENIED"]
    assert Counted.taken == 0
    await ask(bytes(2 << 20), metadata=[(GRANT_KEY, minted["of the file servers"].mint(good))])
    assert Counted.taken == 2 << 20


async def test_grants_are_looked_at_before_all_else_at_the_internal_address_too(tmp_path):
    keys = Keys(["secret"], time.time)
    rooms = SimpleNamespace(grants=keys, default_plane="data")
    inside = listeners(Config(planes={}, state_directory=tmp_path), rooms, "unix:/none", Interceptor, Interceptor, "")[
        0
    ]
    (gate,) = [each for each in inside.around if isinstance(each, Gate)]

    async def serves(details):
        return auth.holder()

    good = keys.mint(Grant("write", "t1", 1, "u", 0, 1, 1, time.time() + 60))
    for shown, known in ((), ""), (((GRANT_KEY, good),), "t1"):
        details = SimpleNamespace(method=QUERY, invocation_metadata=shown)
        assert await gate.intercept_service(serves, details) == known
    details = SimpleNamespace(method=QUERY, invocation_metadata=((GRANT_KEY, "x.y.z"),))
    assert (await gate.intercept_service(serves, details)).stream_stream  # which refuses


async def test_who_comes_with_a_grant_has_places_of_its_transfer():
    keys, inside, leave = Keys(["secret"], time.time), asyncio.Event(), asyncio.Event()
    admission = Admission(each_beside=(1, 0))

    class Held(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            async def answer(request, context):
                inside.set()
                await leave.wait()
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    guards = [ErrorInterceptor(), Gate(Holders(keys).check), Interceptor(admission.around)]
    server = aio.server(interceptors=guards, handlers=(Held(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(20), aio.insecure_channel(f"127.0.0.1:{port}") as opened:

        def ask(transfer, part):
            token = keys.mint(Grant("write", transfer, part, "u", 0, 1, 1, time.time() + 60))
            return opened.unary_unary(QUERY)(b"", metadata=[(GRANT_KEY, token)])

        first = ask("t1", 1)
        await inside.wait()
        with pytest.raises(aio.AioRpcError) as caught:
            await ask("t1", 2)
        assert type(from_call(caught.value)) is ServerBusy
        inside.clear()
        second = ask("t2", 1)
        await inside.wait()
        leave.set()
        assert await asyncio.gather(first, second) == [b"", b""]
    await server.stop(0)


async def test_a_bug_in_a_check_tells_strangers_nothing(channel, monkeypatch):
    async def fails(_self, _token):
        return {}["a secret"]

    monkeypatch.setattr(Verifier, "identity", fails)
    with capture_logs(), pytest.raises(aio.AioRpcError) as caught:
        await listing(channel, "Bearer x")
    assert caught.value.code() is StatusCode.INTERNAL
    assert "secret" not in str(caught.value)


async def test_a_stolen_token_counts_no_longer_than_it_says_and_neither_does_an_answer_that_goes_on(channel, key):
    token = make_token(key.private, "alice", [], 4)  # seconds: enough to begin with it on any machine
    stub = transfer_pb2_grpc.TransferServiceStub(channel)
    metadata = [(METADATA_KEY, f"Bearer {token}")]
    watching = stub.WatchTransfer(transfer_pb2.WatchTransferRequest(name="t"), metadata=metadata)
    await watching.read()
    with pytest.raises(aio.AioRpcError) as caught:
        await watching.read()
    assert "expired while" in from_call(caught.value).message
    with pytest.raises(aio.AioRpcError) as caught:
        await listing(channel, f"Bearer {token}")
    assert "has expired" in from_call(caught.value).message


def test_a_request_id_that_is_guessed_finds_nobody_elses_transfer():
    assert _request_of("alice", "r1") == _request_of("alice", "r1") != _request_of("bob", "r1")
    assert _request_of("", "r1") == "r1"
    assert _request_of("alice", "") != _request_of("alice", "")
    assert len(_request_of("alice", "r" * 1000)) <= 128


# --- rates ------------------------------------------------------------------------------------------------------


def test_a_caller_may_call_so_often_and_each_for_itself():
    clock = [0.0]
    rates = Rates(2.0, 3, lambda: clock[0])
    for _ in range(3):
        rates.take("a")
    with pytest.raises(ServerBusy) as caught:
        rates.take("a")
    assert caught.value.retry_after == pytest.approx(0.5)
    rates.take("b")
    clock[0] += 0.5
    rates.take("a")
    with pytest.raises(ServerBusy):
        rates.take("a")
    clock[0] += 3600
    for _ in range(3):
        rates.take("a")
    with pytest.raises(ServerBusy):
        rates.take("a")


def test_callers_are_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr(rate, "MOST", 10)
    rates = Rates(1.0, 1, lambda: 0.0)
    for number in range(100):
        rates.take(str(number))
    assert len(rates._left) == 10
    with pytest.raises(ServerBusy):
        rates.take("99")


# --- audit ------------------------------------------------------------------------------------------------------


def call_of(method, request):
    return Call(f"/fileserver.v1.{method}", False, SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:9"), request)


async def line(method, request, error=None):
    with capture_logs() as lines:
        async with AsyncExitStack() as outside:
            outside.callback(auth.set_caller, auth._STRANGER)
            if error is not None:
                outside.enter_context(pytest.raises(type(error)))
            audits = Audits("external", lambda: "data", iter([1.0, 1.25]).__next__)
            await outside.enter_async_context(audits.around(call_of(method, request)))
            auth.set_caller(Caller(local=False, name="alice"))
            if error is not None:
                raise error
    (found,) = lines
    return found


async def test_a_call_leaves_a_line():
    request = plane_pb2.ListObjectsRequest(plane="lz", prefix="in/")
    assert await line("PlaneService/ListObjects", request) == {
        "event": "call",
        "log_level": "info",
        "side": "external",
        "who": "alice",
        "peer": "ipv4:127.0.0.1:9",
        "method": "PlaneService/ListObjects",
        "named": ["read lz:in/*"],
        "result": "OK",
        "ms": 250.0,
    }


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (FileNotFound("x"), "FILE_NOT_FOUND"),
        (InvalidSpec("x"), "INVALID_SPEC"),
        (asyncio.CancelledError(), "CANCELLED"),
        (KeyError("a secret"), "BUG"),
    ],
)
async def test_however_it_ends(error, result):
    found = await line("FileService/GetFile", file_pb2.GetFileRequest(name="A::b"), error)
    assert (found["result"], found["named"]) == (result, ["read a::b"])
    assert "secret" not in str(found)


async def test_names_are_plain_and_few(tmp_path):
    sources = [{"plane": "lz", "key": f"in/{n}\x1b[2J\u202e\n"} for n in range(50)]
    spec = transfer_pb2.TransferSpec(spray=transfer_pb2.Spray(sources=sources, file="a::b", parts=1))
    found = named(call_of("TransferService/CreateTransfer", transfer_pb2.CreateTransferRequest(spec=spec)), "data")
    assert len(found) == audit.MOST + 1
    assert found[0] == "read lz:in/0\\x1b[2J\\u202e\\n"
    assert found[-1] == "and 32 more"
    assert all(each.isprintable() for each in found)
    assert plain("\u202e" + "x" * 300) == "\\u202e" + "x" * 199 + "…"
    wrong = file_pb2.GetFileRequest(name="::")
    assert named(call_of("FileService/GetFile", wrong), "") == ["…"]
    assert named(call_of("FileService/None", wrong), "") == []


async def test_the_lines_can_have_a_file_of_their_own(tmp_path):
    log.configure("error", "json", tmp_path / "server.log")
    audit.configure(tmp_path / "audit.log")
    try:
        auth.set_caller(Caller(local=True))
        async with Audits("internal", lambda: "").around(
            call_of("FileService/GetFile", file_pb2.GetFileRequest(name="a"))
        ):
            pass
        (text,) = (tmp_path / "audit.log").read_text().splitlines()
        made = json.loads(text)
        assert (made["who"], made["named"], made["result"]) == ("own user", ["read a"], "OK")
        assert made["timestamp"]
        assert (tmp_path / "server.log").read_text() == ""
    finally:
        auth.set_caller(auth._STRANGER)
        audit.configure(None)
        log.configure()
