"""Errors on the wire: the table is total, the round trip exact, nothing outgrows what gRPC carries."""

import grpc
import hypothesis.strategies as st
import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode, aio
from hypothesis import given

from fileserver import errors, status
from fileserver.status import CODES, ErrorInterceptor, code, from_call, from_status, to_status
from planes import errors as plane_errors


def tree(root):
    yield root
    for child in root.__subclasses__():
        if child.__module__ in {errors.__name__, plane_errors.__name__}:
            yield from tree(child)


CLASSES = list(tree(plane_errors.Error))


def test_every_error_has_a_code_of_its_own_in_the_table():
    assert set(CODES) == set(CLASSES)


def test_reasons_name_one_class_each():
    reasons = [kind.reason for kind in CLASSES]
    assert len(set(reasons)) == len(reasons)
    assert set(errors.BY_REASON.values()) == set(CLASSES)


@pytest.mark.parametrize(
    ("kind", "expected", "reason"),
    [
        (errors.InvalidSpec, StatusCode.INVALID_ARGUMENT, "INVALID_SPEC"),
        (plane_errors.PathEscapes, StatusCode.INVALID_ARGUMENT, "PATH_ESCAPES"),
        (errors.CallerUnknown, StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN"),
        (errors.CallerDenied, StatusCode.PERMISSION_DENIED, "CALLER_DENIED"),
        (plane_errors.NotFound, StatusCode.NOT_FOUND, "OBJECT_NOT_FOUND"),
        (errors.FileNotFound, StatusCode.NOT_FOUND, "FILE_NOT_FOUND"),
        (errors.PlaneNotFound, StatusCode.NOT_FOUND, "PLANE_NOT_FOUND"),
        (errors.TransferNotFound, StatusCode.NOT_FOUND, "TRANSFER_NOT_FOUND"),
        (plane_errors.AlreadyExists, StatusCode.ALREADY_EXISTS, "TARGET_EXISTS"),
        (plane_errors.Changed, StatusCode.ABORTED, "SOURCE_CHANGED"),
        (errors.TargetChanged, StatusCode.ABORTED, "TARGET_CHANGED"),
        (errors.TargetBusy, StatusCode.ABORTED, "TARGET_BUSY"),
        (plane_errors.Refused, StatusCode.FAILED_PRECONDITION, "PLANE_REFUSED"),
        (plane_errors.Missing, StatusCode.FAILED_PRECONDITION, "PLANE_MISSING"),
        (plane_errors.Full, StatusCode.FAILED_PRECONDITION, "PLANE_FULL"),
        (errors.RecordTooLong, StatusCode.FAILED_PRECONDITION, "RECORD_TOO_LONG"),
        (errors.FormatMismatch, StatusCode.FAILED_PRECONDITION, "FORMAT_MISMATCH"),
        (plane_errors.Unsupported, StatusCode.UNIMPLEMENTED, "NOT_SUPPORTED"),
        (plane_errors.OutOfRange, StatusCode.OUT_OF_RANGE, "OFFSET_MISMATCH"),
        (plane_errors.Throttled, StatusCode.RESOURCE_EXHAUSTED, "PLANE_THROTTLED"),
        (errors.ServerBusy, StatusCode.RESOURCE_EXHAUSTED, "SERVER_BUSY"),
        (errors.ServerUnavailable, StatusCode.UNAVAILABLE, "SERVER_UNAVAILABLE"),
        (plane_errors.Unavailable, StatusCode.UNAVAILABLE, "PLANE_UNAVAILABLE"),
        (plane_errors.Corrupt, StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH"),
        (errors.Cancelled, StatusCode.CANCELLED, "CANCELLED"),
        (plane_errors.Error, StatusCode.INTERNAL, "BUG"),
    ],
)
def test_the_table_of_the_design(kind, expected, reason):
    assert code(kind("x")) is expected
    assert kind.reason == reason


FACTS = st.dictionaries(st.from_regex("[a-z_]{1,12}", fullmatch=True), st.text(max_size=30), max_size=4)


@pytest.mark.parametrize("kind", CLASSES)
@given(facts=FACTS, message=st.text(max_size=100), wait=st.none() | st.floats(0, 3600))
def test_the_round_trip_is_exact(kind, facts, message, wait):
    facts = {k: v for k, v in facts.items() if k not in {"message", "retry_after", "violations", "self"}}
    if kind is errors.InvalidSpec:
        error = kind(message, {"planes.a": "wrong", "listen": message}, **facts)
    else:
        error = kind(message, retry_after=wait, **facts)
    back = from_status(to_status(error))
    assert type(back) is kind
    assert (back.message, back.facts) == (error.message, error.facts)
    if kind is errors.InvalidSpec:
        assert back.violations == error.violations
    if code(error) in {StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE}:
        assert back.retry_after == pytest.approx(1.0 if wait is None else wait, abs=1e-9)
    else:
        assert back.retry_after is None


def test_the_details_are_those_of_google_rpc():
    sent = to_status(errors.ServerBusy("full", retry_after=2.5, slots="16"))
    info, wait = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert sent.details[0].Unpack(info)
    assert sent.details[1].Unpack(wait)
    assert (info.reason, info.domain, dict(info.metadata)) == ("SERVER_BUSY", "cropduster", {"slots": "16"})
    assert wait.retry_delay.ToMilliseconds() == 2500


def test_a_reason_of_another_domain_is_not_ours():
    sent = to_status(plane_errors.NotFound("x"))
    info = error_details_pb2.ErrorInfo(reason="OBJECT_NOT_FOUND", domain="example.com")
    sent.details[0].Pack(info)
    assert type(from_status(sent)) is plane_errors.Error


RAISED = {
    "/t.T/Busy": errors.ServerBusy("no room", retry_after=0.25, slots="3"),
    "/t.T/Large": errors.InvalidSpec(
        "ß" * 4000, {f"planes.p{i}.key": "ü" * 500 for i in range(200)}, path="/" + "é" * 5000
    ),
    "/t.T/Bug": RuntimeError("the password is hunter2"),
    "/t.T/Surrogate": plane_errors.NotFound("no object \udcff.csv", key="\udcff.csv"),
}


class Raising(grpc.GenericRpcHandler):
    """Any kind of method; each raises what its name says, streams after one answer."""

    def service(self, handler_call_details):
        method, _, kind = handler_call_details.method.rpartition("/")

        async def unary(_request, _context):
            raise RAISED[method]

        async def generated(_request, _context):
            yield b"first"
            raise RAISED[method]

        async def written(_request, context):
            await context.write(b"first")
            raise RAISED[method]

        return {
            "uu": grpc.unary_unary_rpc_method_handler(unary),
            "us": grpc.unary_stream_rpc_method_handler(generated),
            "us-written": grpc.unary_stream_rpc_method_handler(written),
            "ss": grpc.stream_stream_rpc_method_handler(generated),
            "su": grpc.stream_unary_rpc_method_handler(unary),
        }[kind]


@pytest.fixture
async def channel():
    server = aio.server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((Raising(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


async def call(channel, method, kind):
    path = f"{method}/{kind}"
    if kind in {"uu", "su"}:
        failing = channel.unary_unary(path)(b"")
    else:
        answers = aiter(channel.unary_stream(path)(b""))
        assert await anext(answers) == b"first"
        failing = anext(answers)
    with pytest.raises(aio.AioRpcError) as caught:
        await failing
    return caught.value


@pytest.mark.parametrize("kind", ["uu", "su", "us", "us-written", "ss"])
async def test_errors_of_every_kind_of_method_reach_the_caller_whole(channel, kind):
    raised = await call(channel, "/t.T/Busy", kind)
    assert raised.code() is StatusCode.RESOURCE_EXHAUSTED
    error = from_call(raised)
    assert type(error) is errors.ServerBusy
    assert (error.message, error.facts, error.retry_after) == ("no room", {"slots": "3"}, 0.25)


@pytest.mark.parametrize("kind", ["uu", "ss"])
async def test_an_error_too_large_for_grpc_is_cut_and_still_ours(channel, kind):
    raised = await call(channel, "/t.T/Large", kind)
    error = from_call(raised)
    assert type(error) is errors.InvalidSpec
    assert error.message.endswith("…")
    assert error.violations["planes.p0.key"].startswith("üü")
    assert error.violations["…"].endswith("more")


async def test_a_file_name_that_is_no_text_does_not_hide_the_error(channel):
    error = from_call(await call(channel, "/t.T/Surrogate", "uu"))
    assert type(error) is plane_errors.NotFound
    assert "\\udcff.csv" in error.message


@pytest.mark.parametrize("kind", ["uu", "us"])
async def test_a_bug_tells_the_caller_the_id_of_a_log_line_and_nothing_else(channel, kind, capfd):
    from fileserver import log

    log.configure()
    raised = await call(channel, "/t.T/Bug", kind)
    assert raised.code() is StatusCode.INTERNAL
    assert "hunter2" not in str(raised)
    error = from_call(raised)
    assert error.reason == "BUG"
    logged = capfd.readouterr().err
    assert error.facts["id"] in error.message
    assert error.facts["id"] in logged
    assert "RuntimeError" in logged


async def test_an_answer_that_a_servicer_gave_itself_passes(channel):
    class Aborting(grpc.GenericRpcHandler):
        def service(self, _details):
            async def behaviour(_request, context):
                await context.abort(StatusCode.NOT_FOUND, "gone")

            return grpc.unary_unary_rpc_method_handler(behaviour)

    server = aio.server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((Aborting(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        with pytest.raises(aio.AioRpcError) as caught:
            await opened.unary_unary("/t.T/x")(b"")
    await server.stop(0)
    assert (caught.value.code(), caught.value.details()) == (StatusCode.NOT_FOUND, "gone")


def test_bare_grpc_failures_mean_only_what_grpc_can_know():
    late = aio.AioRpcError(StatusCode.DEADLINE_EXCEEDED, aio.Metadata(), aio.Metadata(), "too slow")
    assert type(from_call(late)) is errors.ServerUnavailable
    broken = aio.AioRpcError(StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "connection reset")
    assert from_call(broken).reason == "SERVER_UNAVAILABLE", "no plane has said anything"
    exhausted = aio.AioRpcError(StatusCode.RESOURCE_EXHAUSTED, aio.Metadata(), aio.Metadata(), "message too large")
    assert type(from_call(exhausted)) is plane_errors.Error
    garbled = aio.AioRpcError(StatusCode.CANCELLED, aio.Metadata(), aio.Metadata((status.DETAILS, b"\xff\xff")), "gone")
    assert type(from_call(garbled)) is errors.Cancelled


@pytest.mark.parametrize("kind", [plane_errors.Unavailable, errors.InvalidSpec])
@pytest.mark.parametrize("name", ["message", "retry_after", "violations", "self"])
def test_however_others_call_their_facts_they_are_facts(kind, name):
    told = to_status(kind("m"))
    info = error_details_pb2.ErrorInfo(reason=kind.reason, domain=status.DOMAIN, metadata={name: "x"})
    told.details[0].Pack(info)
    for error in (from_status(told), errors.from_record({"reason": kind.reason, "message": "m", "facts": {name: "x"}})):
        assert (type(error), error.message, error.facts) == (kind, "m", {name: "x"})
