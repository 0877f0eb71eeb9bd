"""The server from outside: up, guarded, drained, idle; in this process and as one of its own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode, aio
from grpc._cython.cygrpc import ExecuteBatchError  # what gRPC raises: it has no public name
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from fileserver import state
from fileserver.auth import METADATA_KEY, Cookies
from fileserver.away import work
from fileserver.calls import wrap
from fileserver.errors import CallerUnknown, InvalidSpec, ServerUnavailable
from fileserver.server import OPTIONS, Listener, Server, Service, first
from fileserver.status import around, from_call
from fileserver.transfer import dispatch
from fileserver.v1 import file_pb2, plane_pb2, plane_pb2_grpc, transfer_pb2
from planes.errors import Unavailable
from planes.plane import MIB
from tests.e2e.preloaded import Background

ROOT = Path(__file__).parents[2]
COOKIE = "ab" * 32
ALLOWED = ((METADATA_KEY, COOKIE),)
LARGE = (("grpc.max_receive_message_length", 64 * MIB),)
"""What the command line takes."""


class Jobs:
    """Transfers that only count."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.gate.set()
        self.left = 0
        self.asked = 0
        self.events = []
        self.begun = asyncio.Event()
        self.bug = None

    async def start(self):
        self.events.append("start")
        self.begun.set()
        await self.gate.wait()

    async def stop(self):
        self.events.append("stop")
        if self.bug:
            raise self.bug

    def unfinished(self):
        self.asked += 1
        return self.left


class Slow(grpc.GenericRpcHandler):
    """`/t.T/one` answers when let, `/t.T/large` with 60 MiB; `/t.T/many` and `/t.T/flood` stream for ever."""

    def __init__(self):
        self.let = asyncio.Event()
        self.begun = asyncio.Event()

    def service(self, handler_call_details):
        async def one(request, _context):
            self.begun.set()
            await self.let.wait()
            return request

        async def large(_request, _context):
            return bytes(60 * MIB)

        async def many(_request, _context):
            yield b"first"
            await asyncio.Event().wait()

        async def flood(_request, _context):
            while True:
                yield bytes(MIB)

        return {
            "/t.T/flood": grpc.unary_stream_rpc_method_handler(flood),
            "/t.T/large": grpc.unary_unary_rpc_method_handler(large),
            "/t.T/one": grpc.unary_unary_rpc_method_handler(one),
            "/t.T/many": grpc.unary_stream_rpc_method_handler(many),
        }.get(handler_call_details.method)


# ruff: noqa: N802, ARG002 - names and arguments of calls are the wire's
class Planes(plane_pb2_grpc.PlaneServiceServicer):
    async def ListPlanes(self, request, context):
        return plane_pb2.ListPlanesResponse(default_plane="data")

    async def GetPlane(self, request, context): ...
    async def CheckPlane(self, request, context): ...
    async def ListObjects(self, request, context): ...


class Running:
    """A server in this process and a channel to it."""

    def __init__(self, tmp_path, external=()):
        self.jobs, self.slow = Jobs(), Slow()
        self.socket = tmp_path / "s.sock"
        services = [
            Service("PlaneService", lambda server: plane_pb2_grpc.add_PlaneServiceServicer_to_server(Planes(), server)),
            Service("Slow", lambda server: server.add_generic_rpc_handlers((self.slow,)), external=False),
        ]
        cookies = Cookies(COOKIE, tmp_path / "cookie").around
        listeners = [Listener([f"unix:{self.socket}", "127.0.0.1:0"], [cookies])]
        if external:
            listeners.append(Listener(external, [cookies], internal=False, reflect=False))
        self.server = Server(services, self.jobs, listeners)
        self.channel = aio.insecure_channel(f"unix:{self.socket}")
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def status(self, service=""):
        return (await self.health.Check(health_pb2.HealthCheckRequest(service=service))).status

    def one(self, **options):
        return self.channel.unary_unary("/t.T/one")(b"x", metadata=ALLOWED, **options)

    def many(self):
        return self.channel.unary_stream("/t.T/many")(b"x", metadata=ALLOWED)


@pytest.fixture
async def running(tmp_path):
    made = Running(tmp_path)
    yield made
    await made.channel.close()
    await made.server.stop(0)


async def test_nobody_is_listened_to_before_all_that_a_call_needs_is_there(running, monkeypatch):
    real = type(aio.server())
    listen, said = real.start, []

    async def start(listener):
        await listen(listener)
        running.jobs.events.append("listen")
        said.append(await running.status())

    monkeypatch.setattr(real, "start", start)
    await running.server.start()
    assert running.jobs.events == ["start", "listen"]
    assert said == [health_pb2.HealthCheckResponse.NOT_SERVING]
    assert await running.status() == health_pb2.HealthCheckResponse.SERVING
    assert await running.status("fileserver.v1.PlaneService") == health_pb2.HealthCheckResponse.SERVING


async def test_every_listener_asks_for_the_cookie(running):
    bound = await running.server.start()
    assert bound[0] == f"unix:{running.socket}"
    assert running.socket.stat().st_mode & 0o777 == 0o600
    for address in bound:
        async with aio.insecure_channel(address) as channel:
            stub = plane_pb2_grpc.PlaneServiceStub(channel)
            with pytest.raises(aio.AioRpcError) as caught:
                await stub.ListPlanes(plane_pb2.ListPlanesRequest())
            assert type(from_call(caught.value)) is CallerUnknown
            answer = await stub.ListPlanes(plane_pb2.ListPlanesRequest(), metadata=ALLOWED)
            assert answer.default_plane == "data"


async def test_the_external_listener_offers_less(tmp_path):
    running = Running(tmp_path, external=["127.0.0.1:0"])
    bound = await running.server.start()
    async with running.channel, aio.insecure_channel(bound[-1]) as outside:
        stub = plane_pb2_grpc.PlaneServiceStub(outside)
        assert (await stub.ListPlanes(plane_pb2.ListPlanesRequest(), metadata=ALLOWED)).default_plane == "data"
        for method, channel in (("one", outside), ("reflection", outside)):
            path = "/t.T/one" if method == "one" else "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary(path)(b"", metadata=ALLOWED)
            assert caught.value.code() is StatusCode.UNIMPLEMENTED
        running.slow.let.set()
        assert await running.one() == b"x"
    await running.server.stop(0)


async def test_reflection_describes_what_is_offered(running):
    await running.server.start()
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)

    def requests():
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="fileserver.v1.PlaneService")

    listed, described = [a async for a in stub.ServerReflectionInfo(requests(), metadata=ALLOWED)]
    names = {s.name for s in listed.list_services_response.service}
    assert {"fileserver.v1.PlaneService", "grpc.health.v1.Health"} <= names
    found = FileDescriptorProto.FromString(described.file_descriptor_response.file_descriptor_proto[0])
    assert found.name == "fileserver/v1/plane.proto"


async def test_draining_refuses_ends_streams_and_lets_answers_finish(running):
    await running.server.start()
    watching = running.many()
    assert await watching.read() == b"first"
    asked = running.one()
    await running.slow.begun.wait()
    stopping = asyncio.create_task(running.server.stop(20))
    with pytest.raises(aio.AioRpcError) as caught:
        await watching.read()
    error = from_call(caught.value)
    assert type(error) is ServerUnavailable
    assert error.facts == {"server": "draining"}
    assert error.retry_after is not None
    running.slow.let.set()
    assert await asked == b"x"
    await stopping
    assert running.jobs.events == ["start", "stop"]
    assert not running.socket.exists()


async def test_a_caller_who_hangs_up_in_the_middle_is_no_bug(running, caplog):
    await running.server.start()
    with capture_logs() as lines:
        for number in range(20):
            async with aio.insecure_channel(f"unix:{running.socket}") as channel:
                flood = channel.unary_stream("/t.T/flood")(b"x", metadata=ALLOWED)
                for _ in range(number % 4 + 1):
                    assert await flood.read() == bytes(MIB)
        while running.server.calls.active:
            await asyncio.sleep(0)
    assert lines == []
    # What gRPC had to tell the loop of an earlier test, which is closed, is told to asyncio's log whenever it is read.
    assert [row for row in caplog.records if "PollerCompletionQueue" not in row.getMessage()] == []


UNAVAILABLE = Unavailable("not now")


class Gone:
    """The context of a call whose caller hung up."""

    async def write(self, _response):
        raise ExecuteBatchError

    async def abort(self, *_details):
        raise ExecuteBatchError


@pytest.mark.parametrize("streams", [True, False], ids=["in the middle of a stream", "before an error is told"])
async def test_what_cannot_be_written_any_more_ends_the_call_as_a_cancelled_one(streams):
    async def answers(_request, _context):
        yield b"first"

    async def fails(_request, _context):
        raise UNAVAILABLE

    made = grpc.unary_stream_rpc_method_handler(answers) if streams else grpc.unary_unary_rpc_method_handler(fails)
    handler = wrap(made, "/t.T/x", around)
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await (handler.unary_stream or handler.unary_unary)(b"", Gone())
    assert lines == []


async def test_the_listeners_stop_even_if_the_transfers_cannot(running):
    bound = await running.server.start()
    running.jobs.bug = RuntimeError("the store has gone")
    with capture_logs() as lines:
        await running.server.stop(20)
    assert [(row["event"], row["log_level"]) for row in lines] == [("transfers did not stop in good order", "error")]
    assert not running.socket.exists()
    host, _, port = bound[1].rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


async def test_jobs_that_did_not_start_are_stopped_too(running):
    running.jobs.gate.clear()
    starting = asyncio.create_task(running.server.start())
    await running.jobs.begun.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await running.server.stop(20)
    assert running.jobs.events == ["start", "stop"]
    assert not running.socket.exists()


async def test_large_plans_and_requests_pass_and_larger_requests_do_not(running):
    await running.server.start()
    running.slow.let.set()
    one = running.channel.unary_unary("/t.T/one")
    big = bytes(15 * MIB)
    with pytest.raises(aio.AioRpcError) as caught:
        await one(bytes(17 * MIB), metadata=ALLOWED)
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    async with aio.insecure_channel(f"unix:{running.socket}", options=LARGE) as channel:
        assert await channel.unary_unary("/t.T/one")(big, metadata=ALLOWED) == big
        plan = await channel.unary_unary("/t.T/large")(b"", metadata=ALLOWED)
        assert len(plan) == 60 * MIB


@pytest.mark.parametrize("callers", [work.OPTIONS, dispatch.OPTIONS])
def test_the_pings_of_agents_and_file_servers_are_not_taken_for_abuse(callers):
    # gRPC breaks a connection off where pings come more often than the server has it, by default every five minutes.
    bound = dict(OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"]
    assert dict(callers)["grpc.keepalive_time_ms"] >= 2 * bound
    assert dict(callers)["grpc.http2.max_pings_without_data"] == 0  # else they come once a minute


async def test_a_draining_server_says_so_to_new_calls(running):
    await running.server.start()
    held = running.one()
    await running.slow.begun.wait()
    running.server.calls.drain()
    with pytest.raises(aio.AioRpcError) as caught:
        await running.one()
    assert type(from_call(caught.value)) is ServerUnavailable
    running.slow.let.set()
    assert await held == b"x"


async def test_idle_waits_for_calls_and_transfers(running):
    await running.server.start()
    running.jobs.left = 1
    watching = running.many()
    assert await watching.read() == b"first"
    idle = asyncio.create_task(running.server.idle(0))
    await running.status()
    assert running.server.calls.active == 1  # a stream in progress is a call, a health check is none
    assert running.jobs.asked == 0
    assert not idle.done()
    watching.cancel()
    while not running.jobs.asked:
        await asyncio.sleep(0)
    assert not idle.done()
    running.jobs.left = 0
    await idle
    assert running.server.calls.active == 0


async def test_health_checks_keep_nobody_awake(running):
    await running.server.start()
    before = running.server.calls.idle
    await running.status()
    assert running.server.calls.idle > before


async def test_probes_are_told_of_health_and_of_nothing_else(tmp_path):
    made = Running(tmp_path)
    made.server._wanted.append(Listener(["127.0.0.1:0"], [], internal=False, reflect=False, only_health=True))
    *_, address = await made.server.start()
    async with aio.insecure_channel(address) as channel:
        serving = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert serving.status == health_pb2.HealthCheckResponse.SERVING
        for method in ("/fileserver.v1.PlaneService/ListPlanes", "/t.T/one"):
            with pytest.raises(aio.AioRpcError) as caught:
                await channel.unary_unary(method)(b"", metadata=ALLOWED)
            assert caught.value.code() is StatusCode.UNIMPLEMENTED
    await made.channel.close()
    await made.server.stop(0)


async def test_an_address_in_use_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        own = tmp_path / "s.sock"
        server = Server([], Jobs(), [Listener([f"unix:{own}", address], [])])
        with pytest.raises(InvalidSpec, match=f"can't listen on {address}"):
            await server.start()
        await server.stop(0)
        assert not own.exists()


async def test_the_socket_of_a_living_server_is_not_taken_over(running):
    await running.server.start()
    address = f"unix:{running.socket}"
    second = Server([], Jobs(), [Listener([address], [])])
    with pytest.raises(InvalidSpec, match="in use"):
        await second.start()
    await second.stop(0)
    assert await running.status() == health_pb2.HealthCheckResponse.SERVING


async def test_first_cancels_the_rest_and_raises_what_was_raised():
    never = asyncio.ensure_future(asyncio.Event().wait())

    async def fails():
        raise KeyError

    with pytest.raises(KeyError):
        await first(never, fails())
    assert never.cancelled()


# --- as a process -----------------------------------------------------------------------------------------------


class Process:
    """`serve` as a process, with folders of its own."""

    def __init__(self, tmp_path):
        self.state = tmp_path / "state"
        runtime = tmp_path / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("CROPDUSTER_")}
        self.environ |= {"XDG_RUNTIME_DIR": str(runtime), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        self.started = []

    def start(self, *arguments):
        process = Background("server", ["serve", "--state", str(self.state), *arguments], ROOT, self.environ)
        self.started.append(process)
        return process

    def installed(self, *arguments):
        """The same as Python loads it."""
        command = [sys.executable, "-m", "fileserver", "serve", "--state", str(self.state), *arguments]
        process = subprocess.Popen(
            command, env=self.environ, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.started.append(process)
        return process

    def channel(self):
        return grpc.insecure_channel(f"unix:{state.socket_path(self.state, self.environ)}")

    def serving(self, process):
        """Wait until it says SERVING; fail with its log if it ends instead."""
        with self.channel() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while process.poll() is None:
                try:
                    answer = stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=1)
                except grpc.RpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        raise AssertionError(process.communicate())


@pytest.fixture
def process(tmp_path):
    made = Process(tmp_path)
    yield made
    for started in made.started:
        if started.poll() is None:
            started.kill()
            started.communicate()


def test_serve_listens_answers_its_user_and_ends_clean(process):
    server = process.installed("--listen", "127.0.0.1:0")
    line = server.stdout.readline()
    assert line.startswith("cropduster serve: listening on unix:")
    port = int(line.rpartition(":")[2])
    process.serving(server)
    cookie = (process.state / "cookie").read_text().strip()
    assert state.holder(process.state).pid == server.pid
    for target in (f"127.0.0.1:{port}", f"unix:{state.socket_path(process.state, process.environ)}"):
        with grpc.insecure_channel(target) as channel:
            stub = plane_pb2_grpc.PlaneServiceStub(channel)
            answer = stub.ListPlanes(plane_pb2.ListPlanesRequest(), metadata=((METADATA_KEY, cookie),))
            assert [(p.name, p.type, p.category, p.location) for p in answer.planes] == [
                ("data", "posix", "data", str(process.state / "data"))
            ]
            checked = stub.CheckPlane(plane_pb2.CheckPlaneRequest(name="data"), metadata=((METADATA_KEY, cookie),))
            assert checked.ok
            assert checked.results
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate()
    assert server.returncode == 0
    assert not state.socket_path(process.state, process.environ).exists()
    assert state.holder(process.state) is None
    events = [json.loads(row)["event"] for row in log.splitlines()]
    assert {"serving", "draining"} <= set(events)
    assert cookie not in log


@pytest.fixture
def outside(process, tmp_path):
    """A server with an external listener: a channel to that, one to the internal one, and the cookie."""
    path = tmp_path / "config.yaml"
    path.write_text("planes: {data: {type: memory}}\nlisten: {external: '127.0.0.1:0'}\n")
    server = process.start("--listen", "127.0.0.1:0", "--config", str(path))
    port = int(server.stdout.readline().rpartition(":")[2])
    process.serving(server)
    cookie = ((METADATA_KEY, (process.state / "cookie").read_text().strip()),)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as external, process.channel() as internal:
        yield external, internal, cookie, port


OFFERED = [
    ("TransferService", "ListTransfers", transfer_pb2.ListTransfersResponse),
    ("FileService", "ListFiles", file_pb2.ListFilesResponse),
    ("PlaneService", "ListPlanes", plane_pb2.ListPlanesResponse),
]
KEPT = [("PartService", "Partition"), ("PartService", "Pull"), ("DataService", "QueryWrite"), ("DataService", "Read")]


def test_the_external_listener_answers_for_transfers_files_and_planes_to_its_user_alone(outside):
    external, _, cookie, _ = outside
    for service, method, answer in OFFERED:
        call = external.unary_unary(f"/fileserver.v1.{service}/{method}", response_deserializer=answer.FromString)
        assert isinstance(call(b"", metadata=cookie), answer)
        for metadata in ((), ((METADATA_KEY, "00" * 32),)):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", metadata=metadata)
            assert type(from_call(caught.value)) is CallerUnknown
    described = external.unary_unary("/fileserver.v1.PlaneService/ListPlanes")(b"", metadata=cookie)
    assert [p.name for p in plane_pb2.ListPlanesResponse.FromString(described).planes] == ["data"]
    health = health_pb2_grpc.HealthStub(external)
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_the_external_listener_moves_no_bytes_without_a_grant(outside):
    external, internal, cookie, _ = outside
    for service, method in KEPT:
        codes = []
        for channel in (external, internal):
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.unary_stream(f"/fileserver.v1.{service}/{method}")(b"", metadata=cookie))
            codes.append(caught.value.code())
        assert codes[0] is StatusCode.UNIMPLEMENTED, method
        assert codes[1] is not StatusCode.UNIMPLEMENTED, f"{method} is offered inside"


def test_the_external_listener_is_on_loopback_alone(outside, process, tmp_path):
    *_, port = outside
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))  # it would answer there if it listened everywhere
    for address in ("0.0.0.0:0", "[::]:0", "example.org:7300"):
        path = tmp_path / "open.yaml"
        path.write_text(f"planes: {{data: {{type: memory}}}}\nlisten: {{external: '{address}'}}\n")
        refused = process.start("--state", str(tmp_path / "other"), "--config", str(path))
        _, told = refused.communicate()
        assert refused.returncode == 2
        assert "listen.external" in told
        assert "loopback" in told


def test_an_idle_embedded_server_ends_itself(process):
    server = process.start("--embedded", "--idle-exit", "0")
    out, log = server.communicate()
    assert (server.returncode, out) == (0, "")
    assert "idle" in log


def test_a_second_server_of_one_state_directory_gives_way(process):
    server = process.start("--embedded")
    process.serving(server)
    second = process.start("--embedded")
    _, log = second.communicate()
    assert second.returncode == 8
    assert f"process {server.pid}" in log
    process.serving(server)


def test_a_killed_server_leaves_nothing_in_the_way(process):
    server = process.start("--embedded")
    process.serving(server)
    server.kill()
    server.communicate()
    process.serving(process.start("--embedded"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--listen", "0.0.0.0:7300"], 2, "until TLS and tokens are configured"),
        (["--config", "/nowhere/config.yaml"], 2, "/nowhere/config.yaml can't be read"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(process, arguments, code, said):
    server = process.start(*arguments)
    _, log = server.communicate()
    assert server.returncode == code
    assert said in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            "listen: {internal: {address: '127.0.0.1:0', allow: [x], tls: {certificate: /c, key: /k, clients: /ca}}}",
            "listen.internal.tls: /c cannot be read",
        ),
        (
            "listen: {external: '127.0.0.1:0'}\ntokens: {keys: {k: /etc/passwd}}",
            "tokens.keys.k: /etc/passwd holds no public key",
        ),
        ("audit: {file: /nowhere/audit.log}", "audit.file: /nowhere/audit.log cannot be written"),
    ],
)
def test_what_guards_cannot_use_is_told_in_a_sentence(process, tmp_path, section, said):
    path = tmp_path / "config.yaml"
    path.write_text(f"planes: {{data: {{type: memory}}}}\n{section}\n")
    server = process.start("--listen", "127.0.0.1:0", "--config", str(path))
    _, log = server.communicate()
    assert server.returncode == 2
    assert said in log
    assert "Traceback" not in log


def test_help_loads_nothing():
    code = "import sys; sys.argv = ['x', 'serve', '--help']\nfrom fileserver.__main__ import main\ntry: main()\n"
    code += "except SystemExit: print('grpc' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False"
