"""The hand-written codec against the generated classes, both ways."""

import hypothesis.strategies as st
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given

from fileserver import codec
from fileserver.v1 import data_pb2

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

READS = st.builds(codec.ReadResponse, offset=INT64, crc32c=UINT32, data=st.binary(max_size=300))
WRITES = st.builds(
    codec.WriteRequest,
    write_id=TEXT,
    plane=TEXT,
    key=TEXT,
    overwrite=st.booleans(),
    offset=INT64,
    crc32c=UINT32,
    data=st.binary(max_size=300),
    finish=st.booleans(),
    crc64nvme=TEXT,
)
READ_NAMES = ("offset", "crc32c", "data")
WRITE_NAMES = ("write_id", "plane", "key", "overwrite", "offset", "crc32c", "data", "finish", "crc64nvme")


def plain(message, names):
    values = {name: getattr(message, name) for name in names}
    return values | {"data": bytes(values["data"])}


def varint(value, padding=0):
    """A varint with `padding` bytes more than it needs."""
    out = bytearray()
    while value > 0x7F or padding > 0:
        out.append(value & 0x7F | 0x80)
        if value <= 0x7F:
            padding -= 1
        value >>= 7
    out.append(value)
    return bytes(out)


@st.composite
def fields(draw, depth=2):
    """One field as a stranger may write it: any number, any wire type, long varints."""
    number = draw(st.integers(1, 12) | st.sampled_from([15, 16, 2047, 2**29 - 1]))
    kind = draw(st.sampled_from([0, 1, 2, 5] + ([3] if depth else [])))
    tag = varint(number << 3 | kind, draw(st.integers(0, 2)))
    if kind == 0:
        return tag + varint(draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2)))
    if kind == 1:
        return tag + draw(st.binary(min_size=8, max_size=8))
    if kind == 5:
        return tag + draw(st.binary(min_size=4, max_size=4))
    if kind == 2:
        data = draw(st.binary(max_size=20) | TEXT.map(str.encode))
        return tag + varint(len(data), draw(st.integers(0, 1))) + data
    inner = b"".join(draw(st.lists(fields(depth - 1), max_size=3)))
    return tag + inner + varint(number << 3 | 4)


@given(READS)
def test_encodes_reads_to_the_same_bytes_as_the_generated_class(message):
    generated = data_pb2.ReadResponse(offset=message.offset, crc32c=message.crc32c, data=message.data)
    assert codec.encode_read(message) == generated.SerializeToString()


@given(WRITES)
def test_encodes_writes_to_the_same_bytes_as_the_generated_class(message):
    generated = data_pb2.WriteRequest(**plain(message, WRITE_NAMES))
    assert codec.encode_write(message) == generated.SerializeToString()


@given(READS)
def test_decodes_what_the_generated_class_writes_for_reads(message):
    generated = data_pb2.ReadResponse(offset=message.offset, crc32c=message.crc32c, data=message.data)
    decoded = codec.decode_read(generated.SerializeToString())
    assert plain(decoded, READ_NAMES) == plain(message, READ_NAMES)


@given(WRITES)
def test_decodes_what_the_generated_class_writes_for_writes(message):
    generated = data_pb2.WriteRequest(**plain(message, WRITE_NAMES))
    decoded = codec.decode_write(generated.SerializeToString())
    assert plain(decoded, WRITE_NAMES) == plain(message, WRITE_NAMES)


CODECS = [
    pytest.param(codec.decode_read, data_pb2.ReadResponse, READ_NAMES, id="read"),
    pytest.param(codec.decode_write, data_pb2.WriteRequest, WRITE_NAMES, id="write"),
]


def same_verdict(decode, generated, names, raw):
    try:
        expected = generated.FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode(raw)
        return
    assert plain(decode(raw), names) == plain(expected, names)


@pytest.mark.parametrize(("decode", "generated", "names"), CODECS)
@given(pieces=st.lists(fields(), max_size=12))
@example(pieces=[b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])
@example(pieces=[b"\x08\x80\x80\x00", b"\x08"])
@example(pieces=[b"\x0a\x02\xff\xfe"])
def test_foreign_fields_in_any_order_mean_what_the_generated_class_says(decode, generated, names, pieces):
    same_verdict(decode, generated, names, b"".join(pieces))


@pytest.mark.parametrize(("decode", "generated", "names"), CODECS)
@given(raw=st.binary(max_size=40))
@example(raw=b"\x00")
@example(raw=b"\x0b\x0c")
@example(raw=b"\x0b\x14")
@example(raw=b"\x0c")
@example(raw=b"\x0b")
@example(raw=b"\x0e")
@example(raw=b"\x1a\x05abc")
@example(raw=b"\x80\x80\x80\x80\x80\x01")
@example(raw=b"\x88\x80\x80\x80\x00\x01")
@example(raw=b"\x88\x80\x80\x80\x80\x00\x01")
@example(raw=b"\xf8\xff\xff\xff\x0f\x01")
@example(raw=b"\xf8\xff\xff\xff\x1f\x01")
@example(raw=b"\x08" + b"\x80" * 10 + b"\x01")
@example(raw=b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(raw=b"\x0b" * 100 + b"\x0c" * 100)
@example(raw=b"\x0b" * 101 + b"\x0c" * 101)
@example(raw=b"\x0b\x08\x0c")
@example(raw=b"\x40\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02")
def test_any_bytes_are_taken_or_refused_as_the_generated_class_does(decode, generated, names, raw):
    same_verdict(decode, generated, names, raw)


def test_data_of_a_received_message_is_not_copied():
    raw = codec.encode_read(codec.ReadResponse(1, 2, b"x" * 1000))
    data = codec.decode_read(raw).data
    assert isinstance(data, memoryview)
    assert data.obj is raw
