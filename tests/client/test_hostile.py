"""A server that means harm: whatever it answers, a command ends, and nothing that it says steers the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from client import app
from client.errors import Exit
from fileserver.v1 import (
    data_pb2,
    domain_pb2,
    exchange_pb2,
    file_pb2,
    hdf5_pb2,
    landing_pb2,
    plane_pb2,
    transfer_pb2,
)
from tests.client.scripted import Scripted

TEXT = "a\x1b]0;owned\x07\x1b[2J[bold]\r\n\u202e::../../x"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal acts upon; a new line and a tab are ours."""

WORST = {
    "negative": (-1, -1.0, TEXT, -7),
    "huge": (2**63 - 1, float("inf"), TEXT * 50, 2**31 - 1),
    "nothing": (0, float("nan"), "", 0),
}
COMMANDS = [
    "files list",
    "files show a::b",
    "files show a::b --uris",
    "files verify a::b",
    "files rename a::b c::d",
    "files delete a::b",
    "files rebuild data",
    "transfers list",
    "transfers show 1",
    "transfers show 1 --timeline",
    "transfers watch 1",
    "transfers cancel 1",
    "transfers pause 1",
    "transfers resume 1",
    "planes list",
    "planes show data",
    "planes objects data",
    "planes check data",
    "planes sweep data",
    "inventory list lz",
    "inventory watches",
    "inventory show lz a.h5",
    "hdf5 ls hdf5://home/x",
    "hdf5 info hdf5://home/x",
    "hdf5 acl hdf5://home/x",
    "hdf5 diff data:x.h5 hdf5://home/x",
    "hdf5 inspect data:x.h5",
    "hdf5 relink hdf5://home/x",
    "spray data:x a::b",
    "spray data:x a::b --dry-run",
    "copy a::b c::d",
    "despray a::b data:out",
    "sync data:x/ data:y/ --dry-run",
    "ingest data:x.h5 hdf5://home/ --dry-run",
    "cat a::b",
    "head a::b -n 2",
    "doctor",
]


def filled(kind: Descriptor, worst: tuple[int, float, str, int], depth: int = 4) -> Message:
    """A message with every field set to the worst that its type holds."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if field.message_type is not None and (not depth or field.message_type.GetOptions().map_entry):
            continue
        value = _value(field, worst, depth)
        if field.message_type is not None:
            target = getattr(message, field.name)
            (target.add() if field.is_repeated else target).CopyFrom(value)
        elif field.is_repeated:
            getattr(message, field.name).extend([value, value])
        else:
            setattr(message, field.name, value)
    return message


def _value(field: FieldDescriptor, worst: tuple[int, float, str, int], depth: int) -> object:
    whole, number, text, enum = worst
    if field.message_type is not None:
        return filled(field.message_type, worst, depth - 1)
    if field.cpp_type in {field.CPPTYPE_INT32, field.CPPTYPE_INT64}:
        return max(min(whole, 2**31 - 1), -(2**31)) if field.cpp_type == field.CPPTYPE_INT32 else whole
    if field.cpp_type in {field.CPPTYPE_UINT32, field.CPPTYPE_UINT64}:
        return abs(whole) % 2**32
    if field.cpp_type in {field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE}:
        return number
    if field.cpp_type == field.CPPTYPE_BOOL:
        return bool(whole)
    if field.cpp_type == field.CPPTYPE_ENUM:
        return enum
    return text.encode() if field.type == field.TYPE_BYTES else text


@pytest.fixture(scope="module")
def hostile(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    """Answers everything with the worst."""
    server = Scripted()
    for module in (data_pb2, domain_pb2, exchange_pb2, file_pb2, hdf5_pb2, landing_pb2, plane_pb2, transfer_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                answer = filled(method.output_type, WORST[request.param])
                if method.name == "WatchTransfer":  # one that never ends is watched for ever
                    answer.transfer.state = transfer_pb2.Transfer.STATE_SUCCEEDED
                server.on(method.name, [answer] if method.server_streaming else answer)
    yield server
    server.stop()


@pytest.mark.parametrize("hostile", WORST, indirect=True)
@pytest.mark.parametrize("flags", ["", " --json"], ids=["table", "json"])
@pytest.mark.parametrize("words", COMMANDS)
def test_whatever_it_answers_the_command_ends_and_the_terminal_is_left_alone(
    hostile: Scripted,
    words: str,
    flags: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = app.run([*words.split(), *flags.split(), "--server", hostile.address, "--state", str(tmp_path)])
    out, err = capsys.readouterr()
    said = out + err
    assert code in set(Exit), said
    assert not STEERS.search(said), ascii(said)
    assert list(tmp_path.iterdir()) == []
    for line in out.splitlines() if flags and not code else ():
        json.loads(line)
