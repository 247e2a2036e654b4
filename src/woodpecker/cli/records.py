"""One entry as a line of JSON, and back: what ``--format jsonl`` means.

``{"seq": 0, "timestamp_us": 1, "headers": [["name", "value"]], "payload": "text"}``. Bytes that are
no UTF-8 stand as ``payload_base64``, and all headers as ``headers_base64`` if one is such.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Any

import msgspec

from woodpecker.client.batch import Batch
from woodpecker.client.entry import NO_TIME, Entry
from woodpecker.codec.columns import Headers
from woodpecker.errors import InvalidRequest

_KEYS = {"seq", "timestamp_us", "headers", "headers_base64", "payload", "payload_base64"}
_encode = msgspec.json.Encoder().encode_lines


def lines_of(batch: Batch) -> bytes:
    """The entries of a batch, a line each."""
    return _encode([_as_object(entry) for entry in batch])


def _as_object(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"seq": entry.seq}
    if entry.timestamp_us != NO_TIME:
        found["timestamp_us"] = entry.timestamp_us
    if entry.headers:
        found |= _headers(entry.headers)
    try:
        found["payload"] = entry.payload.decode()
    except UnicodeDecodeError:
        found["payload_base64"] = b64encode(entry.payload).decode()
    return found


def _headers(headers: Headers) -> dict[str, Any]:
    try:
        return {"headers": [(name.decode(), value.decode()) for name, value in headers]}
    except UnicodeDecodeError:
        return {
            "headers_base64": [
                (b64encode(name).decode(), b64encode(value).decode()) for name, value in headers
            ]
        }


def entry_from_json(line: bytes, number: int) -> Entry:
    """The entry of line ``number``; ``seq`` has no meaning here. Raises: InvalidRequest."""
    try:
        found = msgspec.json.decode(line)
        if not isinstance(found, dict):
            raise TypeError("it is no object")
        unknown = sorted(set(found) - _KEYS)
        if unknown:
            raise ValueError(f"unknown member {unknown[0]!r}")
        return Entry(
            _payload(found),
            headers=_pairs(found),
            timestamp_us=_time(found),
        )
    except (ValueError, TypeError, Base64Error, InvalidRequest) as error:
        raise InvalidRequest(
            f"line {number} is no entry as JSON: {error}. Needed is "
            '{"payload": "text", "headers": [["name", "value"]], "timestamp_us": 1}; '
            "to keep JSON documents as they are use --format lines"
        ) from None


def _payload(found: dict[str, Any]) -> bytes:
    if ("payload" in found) == ("payload_base64" in found):
        raise ValueError("exactly one of 'payload' and 'payload_base64' is needed")
    if "payload" in found:
        text = found["payload"]
        if not isinstance(text, str):
            raise ValueError("'payload' must be text")
        return text.encode()
    return a2b_base64(found["payload_base64"], strict_mode=True)


def _time(found: dict[str, Any]) -> int | None:
    value = found.get("timestamp_us")
    if value is None or type(value) is int:
        return value
    raise ValueError("'timestamp_us' must be a whole number")


def _pairs(found: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    if "headers" in found and "headers_base64" in found:
        raise ValueError("give 'headers' or 'headers_base64', not both")
    pairs = [(str.encode(name), str.encode(value)) for name, value in found.get("headers", ())]
    coded = found.get("headers_base64", ())
    return pairs or [
        (a2b_base64(name, strict_mode=True), a2b_base64(value, strict_mode=True))
        for name, value in coded
    ]
