"""Frames as messages of the wire, beyond what the suite of transports shows."""

from __future__ import annotations

import dataclasses
import re
from importlib import resources

import pytest

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.ports import ASSIGNMENT_REQUESTS, HANDLER_REQUESTS, MANAGER_REQUESTS
from woodpecker.streaming.transport import grpc_frames
from woodpecker.streaming.transport.grpc_frames import (
    FILES,
    STREAMS,
    UNARY,
    decode_refusal,
    encode_refusal,
)
from woodpecker.streaming.transport.services import StreamKind
from woodpecker.streaming.v1 import assignment_pb2, handler_pb2, values_pb2
from woodpecker.testing.conformance import stream_samples as samples

PRODUCE = STREAMS[StreamKind.PRODUCE]
CONSUME = STREAMS[StreamKind.CONSUME]
PAIRS = {"SeqRange", "PositionRange", "Property", "Attribute"}
WRAPPERS = {
    wrapper.message.DESCRIPTOR.name
    for method in STREAMS.values()
    for wrapper in (method.up, method.down)
}


def messages():
    return [each for file in FILES for each in file.DESCRIPTOR.message_types_by_name.values()]


def test_all_requests_have_a_method():
    assert set(UNARY) == {*HANDLER_REQUESTS, *MANAGER_REQUESTS, *ASSIGNMENT_REQUESTS}
    assert set(STREAMS) == set(StreamKind)


def test_fields_of_messages_and_dataclasses_are_the_same():
    for message in messages():
        if message.name in PAIRS | WRAPPERS | {"Messages"}:
            continue
        cls = grpc_frames._CLASSES[message.name]
        assert {f.name for f in message.fields} == {f.name for f in dataclasses.fields(cls)}, cls


def test_a_default_other_than_zero_is_an_optional_field():
    """Or what other languages leave out would mean something else."""
    for message in messages():
        cls = grpc_frames._CLASSES.get(message.name)
        for field in dataclasses.fields(cls) if cls else ():
            default = grpc_frames._default(field)
            if default is grpc_frames._MISSING or (not default and default is not None):
                continue
            sent = message.fields_by_name.get(field.name)
            if sent is not None and not grpc_frames._is_many(sent):
                is_first = sent.enum_type is not None and sent.enum_type.values[0].number == 0
                assert sent.has_presence or is_first, (message.name, field.name)


def test_generated_code_is_that_of_the_proto_files():
    folder = resources.files("woodpecker.streaming") / "proto/woodpecker/streaming/v1"
    for file in FILES:
        name = file.DESCRIPTOR.name.rpartition("/")[2]
        text = re.sub(r"//.*", "", (folder / name).read_text())
        said = set(
            re.findall(r"^\s*(?:\w[\w.]* )?(?:[\w.]+|map<.*>) (\w+) = (\d+);", text, re.MULTILINE)
        )
        made = {
            (field.name, str(field.number))
            for message in file.DESCRIPTOR.message_types_by_name.values()
            for field in message.fields
        }
        made |= {
            (value.name, str(value.number))
            for enum in file.DESCRIPTOR.enum_types_by_name.values()
            for value in enum.values
        }
        said |= set(re.findall(r"^\s*(\w+) = (\d+);", text, re.MULTILINE))
        assert made == said, f"{name}: run `make proto`"


def test_a_frame_of_a_newer_version_is_ignored_unless_it_is_required():
    unknown = b"\xf2\x03\x01x"  # field 62, one byte
    message = handler_pb2.ProduceUp.FromString(unknown)
    assert PRODUCE.up.decode(message) is None
    message.required = True
    with pytest.raises(Refused) as caught:
        PRODUCE.up.decode(message)
    assert caught.value.refusal.kind is Class.INVALID


def test_a_field_of_a_newer_version_is_ignored():
    data = handler_pb2.ProduceUp(close=values_pb2.Close()).SerializeToString() + b"\xf2\x3f\x01x"
    message = handler_pb2.ProduceUp.FromString(data)
    assert PRODUCE.up.decode(message) == frames.Close()


def test_what_is_missing_is_refused():
    message = handler_pb2.ConsumeUp(subscribe=handler_pb2.Subscribe(consumer=1, vcid=2))
    with pytest.raises(Refused, match="start") as caught:
        CONSUME.up.decode(message)
    assert caught.value.refusal.kind is Class.INVALID


def test_a_start_without_a_form_is_refused():
    subscribe = handler_pb2.Subscribe(consumer=1, vcid=2, start=values_pb2.Start(value=3))
    with pytest.raises(Refused, match="StartForm 0"):
        CONSUME.up.decode(handler_pb2.ConsumeUp(subscribe=subscribe))


def test_what_is_left_out_means_the_default():
    method = UNARY[requests.SetPolicy]
    assert method.decode_request(assignment_pb2.SetPolicyRequest()) == requests.SetPolicy()
    subscribe = handler_pb2.Subscribe(start=values_pb2.Start(form=values_pb2.START_FORM_LATEST))
    frame = CONSUME.up.decode(handler_pb2.ConsumeUp(subscribe=subscribe))
    assert frame.credit_bytes == 4 << 20
    assert frame.start.low == -1


@pytest.mark.parametrize(
    "columns",
    [
        {"payloads": [b"a", b"b"], "keys": [b"k"]},
        {"payloads": [b"a"], "types": ["x", "y"]},
        {"payloads": [b"a"], "property_counts": [2], "property_names": [b"n"]},
        {"payloads": [b"a"], "property_names": [b"n"], "property_values": [b"v"]},
        {"payloads": [b"a"], "property_counts": [1], "property_names": [b"n"]},
    ],
)
def test_columns_that_do_not_fit_are_refused(columns):
    batch = handler_pb2.Batch(messages=values_pb2.Messages(**columns))
    with pytest.raises(Refused) as caught:
        PRODUCE.up.decode(handler_pb2.ProduceUp(batch=batch))
    assert caught.value.refusal.kind is Class.INVALID


def test_a_class_of_refusal_of_a_newer_version_means_unknown():
    data = values_pb2.Refusal(message="m").SerializeToString() + b"\x08\x63"
    assert decode_refusal(data).kind is Class.UNKNOWN
    assert decode_refusal(encode_refusal(samples.REFUSAL)) == samples.REFUSAL
