"""One message as a line of JSON, and back: what ``--format jsonl`` means for channels.

``{"seq": 0, "index": 0, "tick": 1, "key": "k", "type": "t", "properties": [["name", "value"]], "payload":
"text"}``. Bytes that are no UTF-8 stand as ``payload_base64``, ``key_base64``, ``properties_base64``.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Any

import msgspec

from woodpecker.errors import InvalidRequest
from woodpecker.streaming.client.messages import Message, TickSignal

_KEYS = {
    "seq", "index", "tick", "ephemeral", "type", "key", "key_base64", "properties",
    "properties_base64", "payload", "payload_base64",
}  # fmt: skip


def as_object(message: Message | TickSignal) -> dict[str, Any]:
    """A message or signal for JSON."""
    if isinstance(message, TickSignal):
        return {"signal": message.tick}
    found: dict[str, Any] = {}
    if message.is_ephemeral:
        found["ephemeral"] = True
    else:
        position = message.position
        found |= {"seq": position.seq, "index": position.index}
    found["tick"] = message.tick
    if message.type is not None:
        found["type"] = message.type
    if message.key is not None:
        _put(found, "key", message.key)
    if message.pairs:
        try:
            found["properties"] = [(n.decode(), v.decode()) for n, v in message.pairs]
        except UnicodeDecodeError:
            found["properties_base64"] = [(_base64(n), _base64(v)) for n, v in message.pairs]
    _put(found, "payload", message.payload)
    return found


def line_of(message: Message | TickSignal) -> bytes:
    """A message or signal as a line."""
    return msgspec.json.encode(as_object(message)) + b"\n"


def message_from_json(line: bytes, number: int) -> Message:
    """The message of line ``number``; its place has no meaning here. Raises: InvalidRequest."""
    try:
        found = msgspec.json.decode(line)
        if not isinstance(found, dict):
            raise TypeError("it is no object")
        unknown = sorted(set(found) - _KEYS)
        if unknown:
            raise ValueError(f"unknown member {unknown[0]!r}")
        payload = _get(found, "payload")
        if payload is None:
            raise ValueError("one of 'payload' and 'payload_base64' is needed")
        return Message(
            payload, key=_get(found, "key"), type=found.get("type"), properties=_pairs(found)
        )
    except (ValueError, TypeError, Base64Error, InvalidRequest) as error:
        raise InvalidRequest(
            f"line {number} is no message as JSON: {error}. Needed is "
            '{"payload": "text", "key": "k", "type": "t", "properties": [["name", "value"]]}; '
            "to keep JSON documents as they are use --format lines"
        ) from None


def key_in(line: bytes, field: str, number: int) -> bytes:
    """The member ``field`` of the JSON object on line ``number``, as a key. Raises: InvalidRequest."""
    try:
        value = msgspec.json.decode(line)[field]
    except (ValueError, TypeError, KeyError):
        raise InvalidRequest(
            f"line {number} is no JSON object with a member {field!r}, which --key-from asks for"
        ) from None
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _put(found: dict[str, Any], name: str, value: bytes) -> None:
    try:
        found[name] = value.decode()
    except UnicodeDecodeError:
        found[f"{name}_base64"] = _base64(value)


def _get(found: dict[str, Any], name: str) -> bytes | None:
    if name in found and f"{name}_base64" in found:
        raise ValueError(f"give {name!r} or '{name}_base64', not both")
    if f"{name}_base64" in found:
        return a2b_base64(found[f"{name}_base64"], strict_mode=True)
    text = found.get(name)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{name!r} must be text")
    return None if text is None else text.encode()


def _pairs(found: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    pairs = [(str.encode(n), str.encode(v)) for n, v in found.get("properties", ())]
    coded = found.get("properties_base64", ())
    return pairs + [
        (a2b_base64(n, strict_mode=True), a2b_base64(v, strict_mode=True)) for n, v in coded
    ]


def _base64(value: bytes) -> str:
    return b64encode(value).decode()
