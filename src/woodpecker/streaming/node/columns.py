"""Messages as a producer sent them: checked, and turned into what the log takes."""

from __future__ import annotations

from collections.abc import Sequence

from woodpecker.streaming.codec.column import KEY_HEADER, entry_headers
from woodpecker.streaming.core.refusals import Class, Refusal
from woodpecker.streaming.core.values import TYPE_MAX_CHARS, Properties
from woodpecker.streaming.frames import Messages
from woodpecker.streaming.node.pieces import PAIR_OVERHEAD_BYTES
from woodpecker.streaming.settings import StreamSettings

_RESERVED = KEY_HEADER[:1]


def problem_of(messages: Messages, settings: StreamSettings) -> Refusal | None:
    """What is wrong with them, or None. Plain payloads cost nothing."""
    count = len(messages)
    if count > settings.batch_max_messages:
        return _invalid(
            f"a batch of {count} messages; allowed are {settings.batch_max_messages}: send it in parts"
        )
    for column in (messages.keys, messages.properties, messages.types):
        if column and len(column) != count:
            return _invalid(f"a column of {len(column)} for {count} messages")
    longest = max(map(len, messages.types), default=0)
    if longest > TYPE_MAX_CHARS:
        return _invalid(f"a type of {longest} characters; allowed are {TYPE_MAX_CHARS}")
    largest = max(map(len, messages.keys), default=0)
    if largest > settings.key_max_bytes:
        return _invalid(f"a key of {largest} bytes; allowed are {settings.key_max_bytes}")
    for pairs in messages.properties:
        size = 0
        for name, value in pairs:
            size += len(name) + len(value) + PAIR_OVERHEAD_BYTES
            if name.startswith(_RESERVED):
                return _invalid(
                    f"property {name!r}: names that begin with a zero byte are reserved"
                )
        if size > settings.properties_max_bytes:
            return _invalid(
                f"properties of {size} bytes; allowed are {settings.properties_max_bytes} a message"
            )
    return None


def batch_type(messages: Messages) -> str:
    """The type that all of them have, or ""."""
    types = messages.types
    return types[0] if types and list(types).count(types[0]) == len(types) else ""


def headers_of(messages: Messages, type_: str) -> Sequence[Properties] | None:
    """Headers of their log entries; None: none has any. ``type_``: the batch's."""
    has_types = bool(messages.types) and not type_ and any(messages.types)
    if not messages.keys and not messages.properties and not has_types:
        return None
    count = len(messages)
    keys = messages.keys or [b""] * count
    properties = messages.properties or [()] * count
    types = messages.types if has_types else [""] * count
    return [
        entry_headers(pairs, key, own)
        for pairs, key, own in zip(properties, keys, types, strict=True)
    ]


def _invalid(message: str) -> Refusal:
    return Refusal(kind=Class.INVALID, message=message)
