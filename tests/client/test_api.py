from __future__ import annotations

import os

import grpc
import pytest

from client import specs
from client.calls import PATIENCE_SECONDS
from client.connection import read_cookie
from client.errors import Exit, ServerError
from client.words import Location
from fileserver.v1.data_pb2 import ReadResponse
from fileserver.v1.file_pb2 import ListFilesResponse, LogicalFile, RenameFileResponse
from fileserver.v1.plane_pb2 import ListPlanesResponse, Plane
from fileserver.v1.transfer_pb2 import (
    CreateTransferResponse,
    Plan,
    PlannedPart,
    Progress,
    Transfer,
    WatchTransferResponse,
)
from tests.client.scripted import Fault

GONE = Fault(grpc.StatusCode.UNAVAILABLE)
PLANES = ListPlanesResponse(planes=[Plane(name="data")])
SPEC = specs.spray([Location("local", "/a")], "a::b")


def busy(seconds):
    return Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER_BUSY", "busy", retry=seconds)


def seen(state, done=0):
    return WatchTransferResponse(transfer=Transfer(name="transfers/1", state=state, progress=Progress(bytes_done=done)))


# --- who calls


@pytest.fixture
def cookie(tmp_path):
    path = tmp_path / "cookie"
    path.write_text("ab" * 32 + "\n")
    path.chmod(0o600)
    return path


def unknown(path):
    return Fault(grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN", "who?", cookie=str(path))


def test_the_cookie_that_the_server_names_is_read_and_sent_from_then_on(server, client, cookie):
    server.on("ListPlanes", unknown(cookie), PLANES)
    assert client.list_planes() == PLANES
    assert client.list_planes() == PLANES
    assert [m.get("cropduster-cookie") for m in server.metadata] == [None, "ab" * 32, "ab" * 32]


def test_a_wrong_cookie_is_not_sent_twice(server, client, cookie):
    server.on("ListPlanes", unknown(cookie))
    with pytest.raises(ServerError) as caught:
        client.list_planes()
    assert caught.value.exit is Exit.DENIED
    assert str(cookie) in caught.value.message
    assert len(server.requests["ListPlanes"]) == 2


def test_a_cookie_that_nobody_can_read_is_an_error_that_names_it(server, client, tmp_path):
    server.on("ListPlanes", unknown(tmp_path / "none" / "cookie"))
    with pytest.raises(ServerError, match="none/cookie") as caught:
        client.list_planes()
    assert caught.value.exit is Exit.DENIED


def test_only_a_cookie_of_ours_is_ever_read_out(tmp_path, cookie):
    assert read_cookie(cookie) == "ab" * 32
    key = tmp_path / "id_ed25519"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    assert read_cookie(key) is None
    link = tmp_path / "other" / "cookie"
    link.parent.mkdir()
    link.symlink_to(key)
    assert read_cookie(link) is None
    cookie.chmod(0o644)
    assert read_cookie(cookie) is None
    cookie.chmod(0o600)
    cookie.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert read_cookie(cookie) is None
    cookie.unlink()
    os.mkfifo(cookie, 0o600)
    assert read_cookie(cookie) is None


# --- busy is not broken


def test_a_busy_server_is_waited_for_as_long_as_it_asks(server, client, waits):
    server.on("ListPlanes", busy(2.5), busy(0), PLANES)
    assert client.list_planes() == PLANES
    assert waits == [2.5, 0.1]


def test_waiting_ends(server, client, waits):
    server.on("ListPlanes", busy(7))
    with pytest.raises(ServerError, match="busy") as caught:
        client.list_planes()
    assert caught.value.exit is Exit.UNAVAILABLE
    assert PATIENCE_SECONDS - 7 <= sum(waits) <= PATIENCE_SECONDS


def test_a_plane_that_the_server_has_waited_for_is_not_waited_for_again(server, client, waits):
    down = Fault(grpc.StatusCode.UNAVAILABLE, "PLANE_UNAVAILABLE", "it is down", retry=1, plane="cloud")
    server.on("CreateTransfer", down)
    with pytest.raises(ServerError, match="it is down") as caught:
        client.plan_transfer(SPEC)
    assert caught.value.exit is Exit.UNAVAILABLE
    assert waits == []


def test_a_draining_server_is_waited_for(server, client, waits):
    draining = Fault(grpc.StatusCode.UNAVAILABLE, "PLANE_UNAVAILABLE", "draining", retry=1, server="draining")
    server.on("ListPlanes", draining, PLANES)
    assert client.list_planes() == PLANES
    assert waits == [1]


def test_a_plan_of_100000_parts_passes(server, client):
    parts = [PlannedPart(number=n, size=1, route="copied natively", key=f"folder/{n:0100}") for n in range(100_000)]
    server.on("CreateTransfer", CreateTransferResponse(plan=Plan(parts=parts)))
    assert len(client.plan_transfer(SPEC).parts) == 100_000


def test_a_request_that_no_server_takes_is_not_sent(server, client, waits):
    sources = [Location("local", f"/{n:01000}") for n in range(17_000)]
    with pytest.raises(ServerError, match="larger than max") as caught:
        client.create_transfer(specs.spray(sources, "a::b"))
    assert caught.value.exit is Exit.UNAVAILABLE
    assert "CLIENT" in caught.value.message
    assert server.requests["CreateTransfer"] == waits == []


def test_a_message_that_is_too_large_is_not_sent_again(server, client, waits):
    server.on("ListPlanes", Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, message="larger than max"))
    with pytest.raises(ServerError, match="larger than max"):
        client.list_planes()
    assert waits == []


def test_a_create_that_broke_is_repeated_under_the_same_request(server, client):
    server.on("CreateTransfer", GONE, CreateTransferResponse(transfer=Transfer(name="transfers/1")))
    assert client.create_transfer(SPEC).name == "transfers/1"
    first, second = server.requests["CreateTransfer"]
    assert first == second
    assert first.request_id


def test_two_creates_are_two_requests(server, client):
    server.on("CreateTransfer", CreateTransferResponse())
    client.create_transfer(SPEC)
    client.create_transfer(SPEC)
    first, second = server.requests["CreateTransfer"]
    assert first.request_id != second.request_id


def test_what_must_not_be_done_twice_is_not_repeated(server, client, waits):
    server.on("RenameFile", GONE, RenameFileResponse())
    with pytest.raises(ServerError, match="may be done or not") as caught:
        client.rename_file("a", "b")
    assert (caught.value.reason, caught.value.exit) == ("SERVER_UNAVAILABLE", Exit.UNAVAILABLE)
    assert len(server.requests["RenameFile"]) == 1


def test_a_plan_writes_nothing(server, client):
    server.on("CreateTransfer", CreateTransferResponse(plan=Plan(split="deduce")))
    assert client.plan_transfer(SPEC).split == "deduce"
    assert server.requests["CreateTransfer"][0].validate_only


# --- streams and pages


def test_a_watch_outlives_its_server(server, client):
    server.on(
        "WatchTransfer",
        [seen(Transfer.STATE_RUNNING, 1), GONE],
        [seen(Transfer.STATE_RUNNING, 2)],  # a draining server ends the stream
        [seen(Transfer.STATE_SUCCEEDED, 3)],
    )
    states = [t.progress.bytes_done for t in client.watch_transfer("1")]
    assert states == [1, 2, 3]


def test_a_watch_ends_when_the_transfer_stands_still(server, client, waits):
    server.on("WatchTransfer", [seen(Transfer.STATE_RUNNING), seen(Transfer.STATE_PAUSED)])
    assert [t.state for t in client.watch_transfer("1")] == [Transfer.STATE_RUNNING, Transfer.STATE_PAUSED]
    assert waits == []


def test_a_watch_that_broke_while_the_transfer_stood_still_is_taken_up_again(server, client):
    server.on(
        "WatchTransfer",
        [seen(Transfer.STATE_PAUSED), seen(Transfer.STATE_QUEUED)],
        [seen(Transfer.STATE_PAUSED), GONE],
        [seen(Transfer.STATE_SUCCEEDED)],
    )
    states = [t.state for t in client.watch_transfer("1")]
    assert states == [
        Transfer.STATE_PAUSED,
        Transfer.STATE_QUEUED,
        Transfer.STATE_PAUSED,
        Transfer.STATE_SUCCEEDED,
    ]


def test_a_watch_of_a_server_that_stays_away_ends(server, client, waits):
    server.on("WatchTransfer", [GONE])
    with pytest.raises(ServerError) as caught:
        list(client.watch_transfer("1"))
    assert (caught.value.reason, caught.value.exit) == ("SERVER_UNAVAILABLE", Exit.UNAVAILABLE)
    assert sum(waits) <= PATIENCE_SECONDS


def test_patience_begins_anew_with_every_answer(server, client, waits):
    server.on("WatchTransfer", *([seen(Transfer.STATE_RUNNING), busy(50)],) * 3, [seen(Transfer.STATE_FAILED)])
    assert len(list(client.watch_transfer("1"))) == 4
    assert waits == [50, 50, 50]


def test_pages_are_asked_for_one_by_one(server, client):
    server.on(
        "ListFiles",
        ListFilesResponse(files=[LogicalFile(name="a")], next_page_token="t"),
        ListFilesResponse(files=[LogicalFile(name="b")]),
    )
    files = client.list_files("*")
    assert next(files).name == "a"
    assert len(server.requests["ListFiles"]) == 1
    assert [f.name for f in files] == ["b"]
    assert [(r.mask, r.page_token) for r in server.requests["ListFiles"]] == [("*", ""), ("*", "t")]


def piece(offset, data):
    return ReadResponse(offset=offset, data=data)


def test_a_file_is_read_in_pieces(server, client):
    server.on("Read", [piece(3, b"ab"), piece(5, b"c")])
    assert b"".join(client.read_file("a::b", 3)) == b"abc"


def test_a_read_that_broke_before_its_first_byte_is_repeated(server, client):
    server.on("Read", [GONE], [piece(0, b"ab")])
    assert b"".join(client.read_file("a::b")) == b"ab"


def test_a_read_that_broke_later_is_an_error_and_never_a_mix(server, client):
    server.on("Read", [piece(0, b"ab"), GONE], [piece(0, b"xyz")])
    with pytest.raises(ServerError):
        list(client.read_file("a::b"))
    assert len(server.requests["Read"]) == 1


def test_a_gap_in_a_read_is_an_error(server, client):
    server.on("Read", [piece(0, b"ab"), piece(3, b"c")])
    with pytest.raises(ServerError, match="byte 3 instead of 2"):
        list(client.read_file("a::b"))
