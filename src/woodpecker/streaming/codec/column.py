"""Stream columns as bytes, and the entry headers that carry keys and types (docs/formats.md).

A column is one byte of format, one of kind (0x80: who does not know it must not go on), and a msgpack
array: term, tick limit, low, vcid, then the fields of its kind in the order of ``core/facts.py``.
Fields may be added at the end where passing over them does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.streaming.core import facts
from woodpecker.streaming.core.facts import Body, StreamColumn
from woodpecker.streaming.core.values import Properties

FORMAT = 1
REQUIRED = 0x80
KEY_HEADER = b"\x00k"
TYPE_HEADER = b"\x00t"
MAX_NUMBER = (1 << 63) - 1

_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
_Optional = Annotated[int, msgspec.Meta(ge=-1, le=MAX_NUMBER)]  # -1: none


class _Head(msgspec.Struct, array_like=True):
    term: _Number
    limit: _Number
    low: _Number
    vcid: _Number


class _Data(_Head):
    producer: str
    epoch: _Number
    sequence: _Number
    size_bytes: _Number
    txn: _Optional
    number: _Optional
    begin: bool
    commit: bool
    abort: bool
    join: bool
    hollow: bool
    entries: _Number
    keep_alive_ms: _Number
    type: str


class _Term(_Head):
    incarnation: str
    features: _Number
    limits: facts.TableLimits


class _Create(_Head):
    name: str
    retention_age_s: _Number | None
    retention_bytes: _Number | None


class _Trim(_Head):
    before: _Number


class _Grant(_Head):
    producer: str


class _AbortTxn(_Head):
    txn: _Number
    reason: str


class _Broadcast(_Head):
    id: _Number
    floor: _Number
    type: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """How bodies of one kind become bytes, and come back."""

    mark: bytes
    body: type[Any]
    wire: type[Any]
    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    decode: Callable[[Any], Any]


def _kind(number: int, body: type[Any], wire: type[Any] = _Head) -> _Kind:
    names = tuple(one.name for one in fields(body))
    getter = attrgetter(*names) if names else None
    return _Kind(
        mark=bytes((FORMAT, number)),
        body=body,
        wire=wire,
        names=names,
        values=_values_of(getter, len(names)),
        decode=msgspec.msgpack.Decoder(wire).decode,
    )


def _values_of(getter: Callable[[Any], Any] | None, count: int) -> Callable[[Any], tuple[Any, ...]]:
    if getter is None:
        return lambda _: ()
    return getter if count > 1 else lambda body: (getter(body),)


_NULL = 10
_KINDS = (
    _kind(0 | REQUIRED, facts.Data, _Data),
    _kind(1 | REQUIRED, facts.Term, _Term),
    _kind(2 | REQUIRED, facts.Close),
    _kind(3 | REQUIRED, facts.Limit),
    _kind(4 | REQUIRED, facts.Create, _Create),
    _kind(5 | REQUIRED, facts.Delete),
    _kind(6 | REQUIRED, facts.Trim, _Trim),
    _kind(7 | REQUIRED, facts.Grant, _Grant),
    _kind(8 | REQUIRED, facts.AbortTxn, _AbortTxn),
    _kind(9 | REQUIRED, facts.Broadcast, _Broadcast),
    _kind(_NULL, facts.Null),
)
_BY_BODY = {kind.body: kind for kind in _KINDS}
_BY_NUMBER = {kind.mark[1]: kind for kind in _KINDS}
_PASSED_OVER = _BY_NUMBER[_NULL]
_encode = msgspec.msgpack.Encoder().encode


def encode_column(column: StreamColumn) -> bytes:
    """The column as bytes. Raises: InvalidRequest: a number below 0 or above 63 bits, or no text."""
    body = column.body
    kind = _BY_BODY[type(body)]
    wire = kind.wire(column.term, column.limit, column.low, column.vcid, *kind.values(body))
    try:
        data = _encode(wire)
        if kind.body is not facts.Data:  # those were judged (core/admission.py)
            kind.decode(data)  # encoding looks at no bounds, and what nobody can read ends the log
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise InvalidRequest(f"stream column: {error}") from error
    return kind.mark + data


def decode_column(data: bytes, *, where: str = "column") -> StreamColumn:
    """Bytes as a column.

    Raises: Corrupt: no column. InvalidRequest: a format or a required kind of a newer version.
    """
    if len(data) < 2:
        raise Corrupt(f"{where}: a stream column of {len(data)} bytes", where=where)
    if data[0] != FORMAT:
        raise InvalidRequest(
            f"{where}: stream column of format {data[0]}; this version reads {FORMAT}"
        )
    kind = _BY_NUMBER.get(data[1])
    if kind is None:
        if data[1] & REQUIRED:
            raise InvalidRequest(
                f"{where}: stream batch of kind {data[1] & ~REQUIRED} must be understood; use a newer version"
            )
        kind = _PASSED_OVER
    try:
        wire = kind.decode(memoryview(data)[2:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{where}: stream column: {error}", where=where) from error
    body: Body = kind.body(**{name: getattr(wire, name) for name in kind.names})
    return StreamColumn(term=wire.term, limit=wire.limit, low=wire.low, vcid=wire.vcid, body=body)


def entry_headers(properties: Properties, key: bytes = b"", type_: str = "") -> Properties:
    """Headers of the log entry of one message. ``type_``: only where it is not the batch's.

    Raises: InvalidRequest: a property's name begins with a zero byte.
    """
    for name, _ in properties:
        if name[:1] == b"\x00":
            raise InvalidRequest(
                f"property {name!r}: names that begin with a zero byte are reserved"
            )
    if not key and not type_:
        return properties
    own = ((KEY_HEADER, key),) if key else ()
    return (*own, (TYPE_HEADER, type_.encode()), *properties) if type_ else (*own, *properties)


def split_headers(headers: Properties) -> tuple[Properties, bytes, str | None]:
    """(properties, key, type) of an entry; b"": no key; None: the type of the batch. Raises: Corrupt."""
    key, type_, count = b"", None, 0
    for name, value in headers:
        if name[:1] != b"\x00":
            break
        count += 1
        if name == KEY_HEADER:
            key = value
        elif name == TYPE_HEADER:
            type_ = _type(value)
    return headers[count:] if count else headers, key, type_


def _type(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Corrupt(f"the type of a message is not UTF-8: {value!r}") from error
