"""ReadResponse and WriteRequest by hand: the same bytes on the wire, without the copies of the generated classes.

Decoding slices the received message (`data` is a view of it), encoding joins once. The rules are those of protobuf's
own parser, and hypothesis holds the two against each other: fields in any order, the last value of a field counts,
unknown fields and known numbers with a foreign wire type are skipped, varints may be longer than they need to be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from typing_extensions import Buffer

from fileserver.v1 import data_pb2

if TYPE_CHECKING:
    import grpc

READ: Final = "/fileserver.v1.DataService/Read"
WRITE: Final = "/fileserver.v1.DataService/Write"

_VARINT, _FIXED64, _BYTES, _GROUP, _END, _FIXED32 = range(6)
_MASK: Final = (1 << 64) - 1
_DEEPEST: Final = 100  # groups within groups, as protobuf has it
_FIXED: Final = struct.Struct("<I")

_Value = int | memoryview


@dataclass(frozen=True, slots=True)
class ReadResponse:
    """A message of a Read; `data` of a received one is a view of the message."""

    offset: int = 0
    crc32c: int = 0
    data: Buffer = b""


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A message of a Write; `data` of a received one is a view of the message."""

    write_id: str = ""
    plane: str = ""
    key: str = ""
    overwrite: bool = False
    offset: int = 0
    crc32c: int = 0
    data: Buffer = b""
    finish: bool = False
    crc64nvme: str = ""


def encode_read(message: ReadResponse) -> bytes:
    """The message on the wire."""
    head = bytearray()
    _put_integer(head, 0x08, message.offset)
    _put_fixed(head, 0x15, message.crc32c)
    size = memoryview(message.data).nbytes
    if not size:
        return bytes(head)
    _put_length(head, 0x1A, size)
    return b"".join((head, message.data))


def decode_read(raw: bytes) -> ReadResponse:
    """The message of the wire's bytes; raises DecodeError."""
    offset, crc32c, data = 0, 0, memoryview(b"")
    for number, kind, value in _fields(memoryview(raw)):
        if isinstance(value, memoryview):
            if number == 3:
                data = value
        elif number == 1 and kind == _VARINT:
            offset = _signed(value)
        elif number == 2 and kind == _FIXED32:
            crc32c = value
    return ReadResponse(offset, crc32c, data)


def encode_write(message: WriteRequest) -> bytes:
    """The message on the wire."""
    head, tail = bytearray(), bytearray()
    _put_text(head, 0x0A, message.write_id)
    _put_text(head, 0x12, message.plane)
    _put_text(head, 0x1A, message.key)
    _put_integer(head, 0x20, int(message.overwrite))
    _put_integer(head, 0x28, message.offset)
    _put_fixed(head, 0x35, message.crc32c)
    _put_integer(tail, 0x40, int(message.finish))
    _put_text(tail, 0x4A, message.crc64nvme)
    size = memoryview(message.data).nbytes
    if not size:
        return bytes(head + tail)
    _put_length(head, 0x3A, size)
    return b"".join((head, message.data, tail))


def decode_write(raw: bytes) -> WriteRequest:
    """The message of the wire's bytes; raises DecodeError."""
    texts: dict[int, str] = {}
    numbers: dict[int, int] = {}
    data = memoryview(b"")
    for number, kind, value in _fields(memoryview(raw)):
        if isinstance(value, memoryview):
            if number == 7:
                data = value
            elif number in {1, 2, 3, 9}:
                texts[number] = _text(value)
        elif (number in {4, 5, 8} and kind == _VARINT) or (number == 6 and kind == _FIXED32):
            numbers[number] = value
    return WriteRequest(
        write_id=texts.get(1, ""),
        plane=texts.get(2, ""),
        key=texts.get(3, ""),
        overwrite=bool(numbers.get(4)),
        offset=_signed(numbers.get(5, 0)),
        crc32c=numbers.get(6, 0),
        data=data,
        finish=bool(numbers.get(8)),
        crc64nvme=texts.get(9, ""),
    )


def read_call(channel: grpc.Channel) -> grpc.UnaryStreamMultiCallable[data_pb2.ReadRequest, ReadResponse]:
    """DataService.Read of a synchronous channel with this codec; bulk streams are driven from threads."""
    return channel.unary_stream(READ, data_pb2.ReadRequest.SerializeToString, decode_read)


def write_call(channel: grpc.Channel) -> grpc.StreamStreamMultiCallable[WriteRequest, data_pb2.WriteResponse]:
    """DataService.Write of a synchronous channel with this codec."""
    return channel.stream_stream(WRITE, encode_write, data_pb2.WriteResponse.FromString)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_integer(out: bytearray, tag: int, value: int) -> None:
    if value:
        out.append(tag)
        _put_varint(out, value & _MASK)


def _put_fixed(out: bytearray, tag: int, value: int) -> None:
    if value:
        out.append(tag)
        out += _FIXED.pack(value)


def _put_length(out: bytearray, tag: int, size: int) -> None:
    out.append(tag)
    _put_varint(out, size)


def _put_text(out: bytearray, tag: int, text: str) -> None:
    if text:
        data = text.encode()
        _put_length(out, tag, len(data))
        out += data


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(view: memoryview) -> str:
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError as error:
        msg = "a text field is not UTF-8"
        raise DecodeError(msg) from error


def _fields(view: memoryview) -> Iterator[tuple[int, int, _Value]]:
    """Number, wire type and value of each field outside of groups."""
    position, depth, groups = 0, 0, [0]
    while position < len(view):
        tag, position = _tag(view, position)
        number, kind = tag >> 3, tag & 7
        if kind == _GROUP:
            depth += 1
            groups.append(number)
            if depth > _DEEPEST:
                msg = "groups are nested too deep"
                raise DecodeError(msg)
            continue
        if kind == _END:
            if not depth or groups.pop() != number:
                msg = f"group {number} ends where none began"
                raise DecodeError(msg)
            depth -= 1
            continue
        value, position = _value(view, position, kind)
        if not depth:
            yield number, kind, value
    if depth:
        raise _truncated()


def _value(view: memoryview, position: int, kind: int) -> tuple[_Value, int]:
    if kind == _VARINT:
        return _varint(view, position)
    size = 8 if kind == _FIXED64 else 4
    if kind == _BYTES:
        size, position = _varint(view, position)
    elif kind not in {_FIXED64, _FIXED32}:
        msg = f"there is no wire type {kind}"
        raise DecodeError(msg)
    end = position + size
    if end > len(view):
        raise _truncated()
    if kind == _BYTES:
        return view[position:end], end
    return int.from_bytes(view[position:end], "little"), end


def _tag(view: memoryview, position: int) -> tuple[int, int]:
    tag, after = _varint(view, position)
    if tag >> 32 or after - position > 5 or not tag >> 3:
        msg = "a field has no number"
        raise DecodeError(msg)
    return tag, after


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A varint of up to ten bytes, cut to 64 bits, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise _truncated()
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, position
    msg = "a varint has more than ten bytes"
    raise DecodeError(msg)


def _truncated() -> DecodeError:
    return DecodeError("the message ends within a field")
