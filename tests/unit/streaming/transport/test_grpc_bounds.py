"""What a frame may cost whoever takes it apart: values are counted before."""

from __future__ import annotations

import tracemalloc
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.streaming import requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.transport.grpc_bounds import VALUES_MAX, Parser, check_values, inner_of
from woodpecker.streaming.transport.grpc_frames import STREAMS, UNARY
from woodpecker.streaming.transport.grpc_server import GrpcServer
from woodpecker.streaming.transport.services import StreamKind
from woodpecker.streaming.v1 import handler_pb2, values_pb2
from woodpecker.testing.conformance.stream_transport import Service

PRODUCE = STREAMS[StreamKind.PRODUCE]
INNER = inner_of(handler_pb2.DESCRIPTOR.message_types_by_name["ProduceUp"])


def a_batch(messages: values_pb2.Messages) -> bytes:
    return handler_pb2.ProduceUp(batch=handler_pb2.Batch(messages=messages)).SerializeToString()


def is_taken(data: bytes, most: int) -> bool:
    try:
        check_values(data, INNER, most)
    except Refused:
        return False
    return True


@given(
    payloads=st.lists(st.binary(max_size=300), max_size=8),
    keys=st.lists(st.binary(max_size=3), max_size=8),
    types=st.lists(st.text(max_size=3), max_size=4),
    counts=st.lists(st.integers(0, 300), max_size=8),
)
def test_each_value_counts_once(
    payloads: list[bytes], keys: list[bytes], types: list[str], counts: list[int]
) -> None:
    messages = values_pb2.Messages(
        payloads=payloads, keys=keys, types=types, property_counts=counts
    )
    data = a_batch(messages)
    packed = sum(1 if count < 128 else 2 for count in counts)
    wanted = 2 + len(payloads) + len(keys) + len(types) + bool(counts) + packed
    assert is_taken(data, wanted)
    assert wanted == 2 or wanted > len(data) or not is_taken(data, wanted - 1)


@given(data=st.binary(max_size=60))
def test_whatever_can_be_parsed_is_well_formed_and_the_rest_is_refused(data: bytes) -> None:
    most = 1  # so that every frame is looked at
    refused = not is_taken(data, most)
    parser = Parser(handler_pb2.ProduceUp)
    try:
        parser(data)
    except Refused:
        assert refused or len(data) <= VALUES_MAX
    # and nothing but Refused left either of them


def test_what_is_cut_off_is_refused() -> None:
    data = a_batch(values_pb2.Messages(payloads=[b"x" * 1000]))
    for end in (3, 5, 8, len(data) - 1):
        with pytest.raises(Refused, match="well formed"):
            check_values(data[:end], INNER, 1)


def test_millions_of_empty_payloads_are_refused_before_they_cost_anything() -> None:
    messages = b"\x0a\x00" * 5_000_000
    batch = b"\x22" + _varint(len(messages)) + messages
    data = b"\x1a" + _varint(len(batch)) + batch
    tracemalloc.start()
    with pytest.raises(Refused, match="smaller batches") as caught:
        check_values(data, INNER, 100_000)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.refusal.kind is Class.INVALID
    assert most_bytes < 100_000


def test_ranges_of_a_cursor_count_too() -> None:
    method = UNARY[requests.CommitCursor]
    field = method.request_message.DESCRIPTOR.fields_by_name["ranges"]
    data = _varint(field.number << 3 | 2) + b"\x00"
    with pytest.raises(Refused, match="values"):
        method.parse_request(data * (VALUES_MAX + 1))


async def test_a_server_says_so_and_lives_on() -> None:
    server = GrpcServer("127.0.0.1:0", SystemRuntime())
    await server.start(Service().all)
    messages = b"\x0a\x00" * (VALUES_MAX + 1)
    batch = b"\x22" + _varint(len(messages)) + messages
    frame = b"\x1a" + _varint(len(batch)) + batch
    async with grpc.aio.insecure_channel(server.address) as channel:
        for data, said in ((frame, "smaller batches"), (b"\x1a\xff", "well formed")):
            call: Any = channel.stream_stream(PRODUCE.path)()
            await call.write(data)
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert said in await call.details()
    await server.close()


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes((value & 127 | 128,))
        value >>= 7
    return found + bytes((value,))
