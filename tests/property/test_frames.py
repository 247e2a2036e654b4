"""Frames: what was sent arrives, in whatever pieces; whatever else arrives is an error and nothing worse."""

from __future__ import annotations

import dataclasses
import itertools
import struct
import tracemalloc
import types
import typing
from enum import Enum
from zlib import crc32

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from woodpecker.codec import frames, messages
from woodpecker.codec.frames import HEADER_BYTES, Frame, Parser, encode
from woodpecker.codec.messages import AnyMessage, Append, Blocks, Done, Status, Tell
from woodpecker.errors import Corrupt, InvalidRequest

KINDS = typing.get_args(AnyMessage)
MIB = 1 << 20


def values(kind):
    """A strategy for a type that messages are made of."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return st.one_of(*map(values, args))
    if origin is tuple:
        if args[-1] is Ellipsis:
            return st.lists(values(args[0]), max_size=20).map(tuple)
        return st.tuples(*map(values, args))
    if kind is int:
        return st.integers(-1, 2**63 - 1)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    plain = {str: st.text(max_size=40), bytes: st.binary(max_size=40), bool: st.booleans()}
    if kind in plain:
        return plain[kind]
    if kind is types.NoneType:
        return st.none()
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return st.builds(kind, **{name: values(hints[name]) for name in names})


def of_kind(kind):
    return st.builds(
        kind, **{field.name: values(field.type) for field in msgspec.structs.fields(kind)}
    )


MESSAGES = st.one_of(*map(of_kind, KINDS))
PAYLOADS = st.one_of(
    st.just(b""),
    st.binary(max_size=300),
    st.integers(1, 3 * frames.LARGE_BYTES).map(lambda size: bytes([size % 251]) * size),
)
SENT = st.lists(st.tuples(MESSAGES, st.integers(0, 2**64 - 1), PAYLOADS), max_size=6)


def on_wire(sent) -> bytes:
    return b"".join(encode(message, number, len(data)) + data for message, number, data in sent)


def plain(found: list[Frame]):
    return [(frame.message, frame.request_id, bytes(frame.payload)) for frame in found]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=30)
def test_every_message_comes_back_as_it_was(kind, data):
    message = data.draw(of_kind(kind))
    (frame,) = Parser().feed(encode(message, 7))
    assert frame == Frame(message, 7, memoryview(b""))


@given(sent=SENT, cuts=st.lists(st.integers(0, 2**20), max_size=10))
@settings(max_examples=150)
def test_pieces_of_any_size_make_the_same_frames(sent, cuts):
    data = on_wire(sent)
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    parser, found = Parser(), []
    for start, end in itertools.pairwise(edges):
        found += plain(list(parser.feed(data[start:end])))
    assert found == sent


@given(sent=st.lists(st.tuples(MESSAGES, st.just(1), st.binary(max_size=60)), max_size=3))
@settings(max_examples=50)
def test_byte_by_byte(sent):
    parser, found = Parser(), []
    for byte in on_wire(sent):
        found += plain(list(parser.feed(bytes([byte]))))
    assert found == sent


def test_two_parsers_may_share_the_place_where_they_receive():
    scratch = memoryview(bytearray(1024))
    parsers = [Parser(scratch=scratch), Parser(scratch=scratch)]
    wires = [on_wire([(Tell(name=name * 50), 1, b"p" * 2000)] * 3) for name in "ab"]
    found: list[list[Frame]] = [[], []]
    for at in range(0, max(map(len, wires)), 700):
        for parser, wire, frames_of in zip(parsers, wires, found, strict=True):
            frames_of.extend(parser.feed(wire[at : at + 700]))
    assert [[frame.message for frame in one] for one in found] == [
        [Tell(name="a" * 50)] * 3, [Tell(name="b" * 50)] * 3,
    ]  # fmt: skip


def test_a_payload_is_received_where_it_belongs():
    place = memoryview(bytearray(MIB))
    asked = []

    def allocate(message: AnyMessage, size: int) -> memoryview:
        asked.append((message, size))
        return place

    parser = Parser(allocate)
    head = encode(Done(), 3, MIB)
    parser.buffer()[: len(head)] = head
    assert list(parser.received(len(head))) == []
    assert asked == [(Done(), MIB)]
    rest = parser.buffer()
    assert (rest.obj, len(rest)) == (place.obj, MIB)
    rest[:] = b"x" * MIB
    (frame,) = parser.received(MIB)
    assert frame.payload is place
    assert len(parser.buffer()) == frames.PEEK_BYTES  # of the next one little goes elsewhere
    assert [one.message for one in parser.feed(encode(Done()))] == [Done()]
    assert len(parser.buffer()) == frames.SCRATCH_BYTES


def test_what_was_whole_before_the_damage_is_given():
    frames_there = Parser().feed(encode(Done(), 1) + b"GET / HTTP/1.1\r\n\r\n" * 2)
    assert next(frames_there).message == Done()
    with pytest.raises(Corrupt, match="magic"):
        next(frames_there)


def header(meta: bytes, *, magic=b"WP", version=1, flags=0, size=None, payload=0) -> bytes:
    """A frame with a right checksum, whatever it says."""
    size = len(meta) if size is None else size
    covered = struct.pack("<2sBBIIQ", magic, version, flags, size, payload, 1)
    return covered + struct.pack("<I", crc32(meta, crc32(covered))) + meta


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (header(b"\xc0", magic=b"WQ"), Corrupt, "magic"),
        (header(b"\xc0", version=2), InvalidRequest, "newer version"),
        (header(b"\xc0", flags=1), InvalidRequest, "newer version"),
        (header(b"", size=2**32 - 1), Corrupt, "claims"),
        (header(b"", payload=2**32 - 1), Corrupt, "claims"),
        (header(b""), Corrupt, "no message"),
        (header(b"\xc0"), Corrupt, "no message"),
        (header(b"\x92\xa4nope\x01"), Corrupt, "no message"),
        (header(b"\x92\xa4tell\x01"), Corrupt, "no message"),
        (header(b"\x91\xa4tell"), Corrupt, "no message"),
        (header(b"\x92\xa4tell\xa2\xff\xfe"), Corrupt, "no message"),  # no UTF-8
        (header(b"\x93\xa4tell\xa1x" + b"\x91" * 200_000), Corrupt, "no message"),  # nested
        (header(b"\xdd\xff\xff\xff\xff\xa4tell\xa1x"), Corrupt, "no message"),
        (header(b"\x95\xa6blocks\x00\xdd\xff\xff\xff\xff\x00\x00"), Corrupt, "no message"),
        (header(b"\x92\xa6status\xc6\xff\xff\xff\xff"), Corrupt, "no message"),
        (encode(Done())[:-1] + b"\xff", Corrupt, "checksum"),
    ],
)  # fmt: skip
def test_what_is_no_frame_is_an_error(data, error, text):
    with pytest.raises(error, match=text):
        list(Parser().feed(data + bytes(100)))


def test_fields_that_a_later_version_added_are_passed_over():
    later = header(msgspec.msgpack.encode(("tell", "orders", 5, {"new": [1, 2]})))
    assert [frame.message for frame in Parser().feed(later)] == [Tell(name="orders")]


def test_fields_that_an_earlier_version_lacks_have_their_defaults():
    earlier = header(msgspec.msgpack.encode(("blocks", 0, (), 3, None)))
    (frame,) = Parser().feed(earlier)
    assert frame.message == Blocks(first=0, sizes=(), last=3, visible=None, is_fenced=False)


def test_limits_can_be_narrowed():
    parser = Parser()
    parser.max_meta_bytes, parser.max_payload_bytes = 100, 0
    assert len(list(parser.feed(encode(Tell(name="x" * 80))))) == 1
    for data in (encode(Tell(name="x" * 100)), encode(Done(), 1, 1)):
        with pytest.raises(Corrupt, match="claims"):
            list(parser.feed(data))


def test_what_no_receiver_takes_is_not_sent():
    with pytest.raises(InvalidRequest, match="at most"):
        encode(Status(text=bytes(frames.MAX_META_BYTES)))
    with pytest.raises(InvalidRequest, match="at most"):
        encode(Done(), 1, frames.MAX_PAYLOAD_BYTES + 1)


@given(message=MESSAGES, at=st.integers(0, 2**20), bit=st.integers(0, 7))
@settings(max_examples=300)
def test_a_flipped_bit_is_noticed_or_waits_for_more(message, at, bit):
    """Of lengths only the limits are known before all is there: such a frame may never be whole."""
    data = bytearray(encode(message, 9))
    data[at % len(data)] ^= 1 << bit
    parser = Parser()
    try:
        found = list(parser.feed(data))
    except (Corrupt, InvalidRequest):
        return
    assert found == []
    assert 4 <= at % len(data) < 12  # in one of the lengths


@given(message=MESSAGES, keep=st.integers(0, 2**20))
@settings(max_examples=100)
def test_a_truncated_frame_is_none(message, keep):
    data = encode(message, 9, 5) + b"12345"
    assert list(Parser().feed(data[: keep % len(data)])) == []


@given(data=st.binary(max_size=400), frame_it=st.booleans())
@example(data=b"WP", frame_it=False)
@settings(max_examples=500)
def test_random_bytes_are_an_error_or_wait_for_more(data, frame_it):
    try:
        for frame in Parser().feed(header(data) if frame_it else data):
            assert isinstance(frame.message, KINDS)  # a lucky one
    except (Corrupt, InvalidRequest):
        pass


@given(
    message=of_kind(Append),
    at=st.integers(0, 2**20),
    junk=st.binary(min_size=1, max_size=8),
)
@settings(max_examples=300)
def test_damaged_messages_under_a_right_checksum(message, at, junk):
    meta = bytearray(encode(message)[HEADER_BYTES:])
    at %= len(meta)
    meta[at : at + len(junk)] = junk
    try:
        (frame,) = Parser().feed(header(bytes(meta)))
    except Corrupt:
        return
    assert isinstance(frame.message, KINDS)


def test_hostile_lengths_allocate_nothing():
    tracemalloc.start()
    try:
        parser = Parser()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for data in (
            header(b"", size=2**32 - 1, payload=2**32 - 1),
            header(b"\x95\xa6blocks\x00\xdd\xff\xff\xff\xff\x00\x00"),
            header(b"", size=frames.MAX_META_BYTES),  # allowed, but it does not come
        ):
            try:
                assert list(parser.feed(data)) == []
            except Corrupt:
                parser = Parser(scratch=memoryview(bytearray(1024)))
        assert tracemalloc.get_traced_memory()[1] - before < 100_000
    finally:
        tracemalloc.stop()


def test_all_messages_are_in_the_unions_once():
    defined = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, messages.Message)
    } - {messages.Message}
    assert set(KINDS) == defined
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS)
