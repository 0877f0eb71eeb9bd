from __future__ import annotations

import grpc
import pytest

from client.errors import BY_CODE, BY_REASON, Code, Exit, Reason, ServerError, from_failure
from fileserver import errors as server_errors
from fileserver import status
from fileserver.v1.plane_pb2 import ListPlanesResponse
from fileserver.v1.transfer_pb2 import Failure
from tests.client.scripted import Fault


@pytest.mark.parametrize("kind", sorted(server_errors.BY_REASON.values(), key=lambda kind: kind.reason))
def test_every_error_of_the_server_arrives_whole_and_has_an_exit_code(kind, server, client):
    error = kind("the thing at the place", plane="cloud")
    fault = Fault(grpc.StatusCode.INTERNAL, "x")
    fault.status = status.to_status(error)
    server.on("ListPlanes", fault)
    with pytest.raises(ServerError) as caught:
        client.list_planes()
    found = caught.value
    assert found.reason == kind.reason
    assert found.reason in BY_REASON
    assert found.metadata.get("plane") == "cloud"
    assert found.code == status.code(error).value[0]
    if kind.reason != "CALLER_UNKNOWN":  # told in words of the client's own
        assert found.message == "the thing at the place"


def test_reason_and_code_agree_on_the_exit_code():
    for reason, kind in server_errors.BY_REASON.items():
        code = Code(status.code(kind("x")).value[0])
        assert BY_REASON[reason] == BY_CODE.get(code, Exit.BUG), reason


def test_every_reason_has_an_exit_code():
    assert set(BY_REASON) == set(Reason)


def test_all_violations_arrive(server, client):
    wrong = {"spray.parts": "too many", "spray.file": "no name"}
    server.on("ListPlanes", Fault(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", violations=wrong))
    with pytest.raises(ServerError) as caught:
        client.list_planes()
    assert caught.value.violations == wrong
    assert caught.value.exit is Exit.BAD_REQUEST


def test_a_reason_of_another_domain_is_not_ours(server, client):
    server.on("ListPlanes", Fault(grpc.StatusCode.NOT_FOUND, "TARGET_EXISTS", domain="envoyproxy.io"))
    with pytest.raises(ServerError) as caught:
        client.list_planes()
    assert caught.value.reason == ""
    assert caught.value.exit is Exit.NOT_FOUND


def test_a_code_without_details_still_has_an_exit_code(server, client):
    server.on("ListPlanes", Fault(grpc.StatusCode.DEADLINE_EXCEEDED, message="late"), ListPlanesResponse())
    with pytest.raises(ServerError, match="late") as caught:
        client.list_planes()
    assert caught.value.exit is Exit.TOO_SLOW


def test_a_stored_failure_is_the_error_that_the_call_would_have_answered():
    failure = Failure(code=10, reason="SOURCE_CHANGED", message="it changed", metadata={"key": "a"})
    error = from_failure(failure, "transfers/1")
    assert (error.exit, error.code, error.message) == (Exit.CHANGED, Code.ABORTED, "it changed")
    assert error.metadata == {"key": "a", "transfer": "transfers/1"}


def test_a_failure_of_a_newer_server_is_a_bug_at_worst():
    assert from_failure(Failure(code=99, reason="NEW", message="?"), "t").exit is Exit.BUG
