"""How many values a frame may have, looked at before it is taken apart.

The size of a frame does not bound what it costs: an empty payload is two bytes on the wire, and many times as
much in memory. So whoever serves strangers counts values first, along the descriptors, allocating nothing.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from woodpecker.streaming.core.refusals import Class, Refusal, Refused

VALUES_MAX = 2_500_000  # a batch within the limits of the service has fewer
VARINT, LENGTH_DELIMITED = 0, 2  # wire types
FIXED_BYTES = {1: 8, 5: 4}
ONE_BYTE = 127  # a varint up to here


Inner = dict[int, Any]  # by field number: the ``Inner`` of a message; None: numbers, packed


class Parser:
    """Makes messages of one type of what strangers send."""

    def __init__(self, message: type[Message]) -> None:
        self._message = message
        self._inner = inner_of(message.DESCRIPTOR)

    def __call__(self, data: bytes) -> Message:
        """The message. Raises: Refused(INVALID): it has too many values, or is not well formed."""
        check_values(data, self._inner)
        try:
            return self._message.FromString(data)
        except DecodeError:
            raise _malformed() from None


def inner_of(descriptor: Any) -> Inner:  # a Descriptor, of either implementation
    """What ``check_values`` must know of messages of this type, none of which contains itself."""
    found: Inner = {}
    for field in descriptor.fields:
        if field.message_type is not None:
            found[field.number] = inner_of(field.message_type)
        elif field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
            found[field.number] = None
    return found


def check_values(data: bytes, inner: Inner, most: int = VALUES_MAX) -> None:
    """Whether a message on the wire has at most so many values, counted in all that it contains.

    Raises: Refused(INVALID): it has more, or is not well formed.
    """
    if len(data) <= most:  # a value takes a byte at least
        return
    try:
        left = _count(data, 0, len(data), inner, most)
    except IndexError:
        raise _malformed() from None
    if left < 0:
        text = f"a frame of more than {most} values: send smaller batches"
        raise Refused(Refusal(kind=Class.INVALID, message=text))


def _count(data: bytes, at: int, end: int, inner: Inner, left: int) -> int:
    """What is left of ``left`` after the fields from ``at`` to ``end``; below 0: too many.

    Numbers of one byte, which most are, cost no call: this may look at millions.
    """
    while at < end and left >= 0:
        tag = data[at]
        at += 1
        if tag > ONE_BYTE:
            tag, at = _varint(data, at - 1)
        left -= 1
        wire = tag & 7
        if wire == LENGTH_DELIMITED:
            size = data[at]
            at += 1
            if size > ONE_BYTE:
                size, at = _varint(data, at - 1)
            if at + size > end:
                raise _malformed()
            if tag >> 3 in inner:
                below = inner[tag >> 3]
                left = left - size if below is None else _count(data, at, at + size, below, left)
            at += size
        elif wire == VARINT:
            _, at = _varint(data, at)
        elif wire in FIXED_BYTES:
            at += FIXED_BYTES[wire]
        else:
            raise _malformed()
    return left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises: IndexError: it does not; Refused."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte <= ONE_BYTE:
            return value, at
    raise _malformed()


def _malformed() -> Refused:
    return Refused(Refusal(kind=Class.INVALID, message="a frame that is not well formed"))
