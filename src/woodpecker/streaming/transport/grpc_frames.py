"""Frames, requests and replies as messages of ``woodpecker.streaming.v1``, and back.

A dataclass and its message have the same name (requests end in ``Request`` there) and the same fields, so
the converters are made from the descriptors, once. A field with a default other than zero is ``optional``
there: not set means the default. Columns are handed over whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from itertools import chain
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core import refusals, values
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import EndForm, StartForm
from woodpecker.streaming.requests import Request
from woodpecker.streaming.transport.grpc_bounds import Parser
from woodpecker.streaming.transport.services import StreamKind
from woodpecker.streaming.v1 import (
    assignment_pb2,
    broadcast_pb2,
    handler_pb2,
    manager_pb2,
    values_pb2,
)

Put = Callable[[Any, Any], None]  # (message, value): sets one field
Get = Callable[[Any], Any]  # message -> value of one field
Shape = tuple[Put, Get]  # of a whole message

FILES = (values_pb2, handler_pb2, manager_pb2, assignment_pb2, broadcast_pb2)
ENUMS: Mapping[str, tuple[type[StrEnum], StrEnum | None]] = {
    "StartForm": (StartForm, None),
    "EndForm": (EndForm, None),
    "RefusalClass": (Class, Class.UNKNOWN),  # of a newer server: nothing is known
}
_MISSING = object()


def _named() -> dict[str, type[Any]]:
    found = {
        kind.__name__: kind
        for module in (values, refusals, frames, requests)
        for kind in vars(module).values()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
    }
    asked = [kind for kind in found.values() if issubclass(kind, Request)]
    return found | {f"{kind.__name__}Request": kind for kind in asked}


_CLASSES = _named()
_shapes: dict[str, Shape] = {}


def invalid(text: str) -> Refused:
    """What came does not say what was meant."""
    return Refused(Refusal(kind=Class.INVALID, message=text))


def shape_of(descriptor: Descriptor) -> Shape:
    """How a message of this type is filled and read."""
    if descriptor.full_name not in _shapes:
        _shapes[descriptor.full_name] = _make_shape(descriptor)
    return _shapes[descriptor.full_name]


def _make_shape(descriptor: Descriptor) -> Shape:
    if descriptor.name == "Messages":
        return _put_messages, _get_messages
    cls = _CLASSES.get(descriptor.name)
    if cls is None:
        return _pair_shape(descriptor)
    defaults = {field.name: _default(field) for field in dataclasses.fields(cls)}
    parts = [(field.name, *_field(field, defaults[field.name])) for field in descriptor.fields]
    puts = [(name, put) for name, put, _ in parts]
    gets = [(name, get) for name, _, get in parts]

    def fill(message: Any, value: Any) -> None:
        for name, put in puts:
            put(message, getattr(value, name))

    def read(message: Any) -> Any:
        given = {name: found for name, get in gets if (found := get(message)) is not _MISSING}
        try:
            return cls(**given)
        except TypeError as error:
            raise invalid(f"{descriptor.name}: a field is missing: {error}") from None

    return fill, read


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _MISSING if field.default is dataclasses.MISSING else field.default


def _pair_shape(descriptor: Descriptor) -> Shape:
    """Of a message that stands for a tuple of its fields."""
    parts = [_field(field, _MISSING) for field in descriptor.fields]

    def fill(message: Any, value: Any) -> None:
        for (put, _), each in zip(parts, value, strict=True):
            put(message, each)

    def read(message: Any) -> Any:
        found = tuple(get(message) for _, get in parts)
        if _MISSING in found:
            raise invalid(f"{descriptor.name}: a field is missing")
        return found

    return fill, read


def _field(field: FieldDescriptor, default: Any) -> tuple[Put, Get]:
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return _map_field(name, field.message_type)
    if field.message_type is not None:
        shape = shape_of(field.message_type)
        return _repeated_message(name, shape) if _is_many(field) else _message(name, shape, default)
    if _is_many(field):
        return _column(name)
    if field.enum_type is not None:
        return _enum(name, field.enum_type)
    return _optional(name, default) if field.has_presence else _scalar(name)


def _is_many(field: FieldDescriptor) -> bool:
    whole, owner = DescriptorProto(), field.containing_type  # all versions of protobuf have it so
    assert owner is not None, field.name
    owner.CopyToProto(whole)
    return whole.field[field.index].label == FieldDescriptorProto.LABEL_REPEATED


def _scalar(name: str) -> tuple[Put, Get]:
    def put(message: Any, value: Any) -> None:
        if value:
            setattr(message, name, value)

    return put, lambda message: getattr(message, name)


def _optional(name: str, default: Any) -> tuple[Put, Get]:
    def put(message: Any, value: Any) -> None:
        if value != default:
            setattr(message, name, value)

    def get(message: Any) -> Any:
        return getattr(message, name) if message.HasField(name) else _MISSING

    return put, get


def _enum(name: str, descriptor: EnumDescriptor) -> tuple[Put, Get]:
    cls, unknown = ENUMS[descriptor.name]
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in descriptor.name)
    prefix = prefix.removeprefix("_").upper()
    numbers = {each: descriptor.values_by_name[f"{prefix}_{each.name}"].number for each in cls}
    members = {number: each for each, number in numbers.items()}

    def put(message: Any, value: Any) -> None:
        setattr(message, name, numbers[value])

    def get(message: Any) -> Any:
        number = getattr(message, name)
        found = members.get(number, unknown)
        if found is None:
            raise invalid(f"{name}: {descriptor.name} {number} is not known here")
        return found

    return put, get


def _message(name: str, shape: Shape, default: Any) -> tuple[Put, Get]:
    fill, read = shape

    def put(message: Any, value: Any) -> None:
        if value != default:
            inner = getattr(message, name)
            inner.SetInParent()
            fill(inner, value)

    def get(message: Any) -> Any:
        return read(getattr(message, name)) if message.HasField(name) else _MISSING

    return put, get


def _repeated_message(name: str, shape: Shape) -> tuple[Put, Get]:
    fill, read = shape

    def put(message: Any, value: Any) -> None:
        if value:
            many = getattr(message, name)
            for each in value:
                fill(many.add(), each)

    return put, lambda message: tuple(map(read, getattr(message, name)))


def _column(name: str) -> tuple[Put, Get]:
    def put(message: Any, value: Any) -> None:
        getattr(message, name).extend(value)

    return put, lambda message: tuple(getattr(message, name))


def _map_field(name: str, entry: Descriptor) -> tuple[Put, Get]:
    inner = entry.fields_by_name["value"].message_type
    if inner is None:
        return (
            lambda message, value: getattr(message, name).update(value),
            lambda message: dict(getattr(message, name)),
        )
    fill, read = shape_of(inner)

    def put(message: Any, value: Any) -> None:
        for key, each in value.items():
            fill(getattr(message, name)[key], each)

    return put, lambda message: {key: read(each) for key, each in getattr(message, name).items()}


# ------------------------------------------------------------------------------ messages in columns


def _put_messages(message: Any, value: frames.Messages) -> None:
    message.payloads.extend(value.payloads)
    message.keys.extend(value.keys)
    message.types.extend(value.types)
    if value.properties:
        message.property_counts.extend(map(len, value.properties))
        pairs = list(chain.from_iterable(value.properties))
        message.property_names.extend([pair[0] for pair in pairs])
        message.property_values.extend([pair[1] for pair in pairs])


def _get_messages(message: Any) -> frames.Messages:
    count = len(message.payloads)
    for name in ("keys", "types", "property_counts"):
        if len(getattr(message, name)) not in {0, count}:
            raise invalid(f"Messages: {name} is neither empty nor as long as payloads ({count})")
    return frames.Messages(
        payloads=tuple(message.payloads),
        keys=tuple(message.keys),
        properties=_properties(message),
        types=tuple(message.types),
    )


def _properties(message: Any) -> tuple[values.Properties, ...]:
    counts = message.property_counts
    total = len(message.property_names)
    if sum(counts) != total or len(message.property_values) != total:
        raise invalid("Messages: property_counts, property_names and property_values do not agree")
    if not counts:
        return ()
    pairs = tuple(zip(message.property_names, message.property_values, strict=True))
    found, first = [], 0
    for count in counts:
        found.append(pairs[first : first + count])
        first += count
    return tuple(found)


# ------------------------------------------------------------------------------ streams and requests


class FrameCodec:
    """Frames of one direction of a stream."""

    def __init__(self, wrapper: Descriptor) -> None:
        self.message: type[Message] = GetMessageClass(wrapper)
        self.parse = Parser(self.message)
        self._name = wrapper.name
        self._puts: dict[type[Any], tuple[str, Put]] = {}
        self._gets: dict[str, Get] = {}
        for field in wrapper.oneofs_by_name["frame"].fields:
            assert field.message_type is not None, field.name
            put, get = shape_of(field.message_type)
            self._puts[_CLASSES[field.message_type.name]] = field.name, put
            self._gets[field.name] = get

    @property
    def kinds(self) -> set[type[Any]]:
        """The frames of this direction."""
        return set(self._puts)

    def encode(self, frame: object) -> Message:
        """As a message."""
        message: Any = self.message()
        name, fill = self._puts[type(frame)]
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, frame)
        return message  # type: ignore[no-any-return]  # of a class made at run time

    def decode(self, message: Any) -> Any:
        """The frame; None: one that is not known here and may be ignored.

        Raises: Refused(INVALID): it makes no sense, or is required and not known.
        """
        name = message.WhichOneof("frame")
        if name is not None:
            return self._gets[name](getattr(message, name))
        if message.required:
            raise invalid(f"a required frame of {self._name} is not known to this version")
        return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamMethod:
    """A stream of the services; ``up``: from client to server."""

    path: str
    up: FrameCodec
    down: FrameCodec


class UnaryMethod:
    """A unary request of the services."""

    def __init__(self, path: str, request: Descriptor, reply: Descriptor) -> None:
        self.path = path
        self.request_message: type[Message] = GetMessageClass(request)
        self.parse_request = Parser(self.request_message)
        self.reply_message: type[Message] = GetMessageClass(reply)
        self._request = shape_of(request)
        self._reply = shape_of(reply)

    def encode_request(self, request: Request[Any]) -> Message:
        """As a message."""
        message = self.request_message()
        self._request[0](message, request)
        return message

    def decode_request(self, message: Message) -> Request[Any]:
        """From a message. Raises: Refused(INVALID)."""
        return self._request[1](message)  # type: ignore[no-any-return]  # made from descriptors

    def encode_reply(self, reply: object) -> Message:
        """As a message."""
        message = self.reply_message()
        self._reply[0](message, reply)
        return message

    def decode_reply(self, message: Message) -> Any:
        """From a message. Raises: Refused(INVALID)."""
        return self._reply[1](message)


SERVICES = tuple(service for file in FILES for service in file.DESCRIPTOR.services_by_name.values())
STREAMS: dict[StreamKind, StreamMethod] = {}
UNARY: dict[type[Request[Any]], UnaryMethod] = {}
for _service in SERVICES:
    for _method in _service.methods:
        _path = f"/{_service.full_name}/{_method.name}"
        if _method.client_streaming:
            STREAMS[StreamKind(_method.name)] = StreamMethod(
                path=_path, up=FrameCodec(_method.input_type), down=FrameCodec(_method.output_type)
            )
        else:
            UNARY[_CLASSES[_method.input_type.name]] = UnaryMethod(
                _path, _method.input_type, _method.output_type
            )

_REFUSAL = shape_of(values_pb2.DESCRIPTOR.message_types_by_name["Refusal"])


def encode_refusal(refusal: Refusal) -> bytes:
    """For the trailer of a stream or call that is refused."""
    message = values_pb2.Refusal()
    _REFUSAL[0](message, refusal)
    return message.SerializeToString()


def decode_refusal(data: bytes) -> Refusal:
    """From such a trailer. Raises: google.protobuf.message.DecodeError."""
    refusal: Refusal = _REFUSAL[1](values_pb2.Refusal.FromString(data))
    return refusal
