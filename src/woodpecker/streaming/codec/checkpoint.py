"""A fold as the bytes of a checkpoint object (docs/formats.md).

Four bytes of magic, one of format, 16 of digest (XXH3-128 of all that follows), then msgpack: the fold's
fields in their order, each row of a table an array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

import msgspec
from xxhash import xxh3_128

from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.streaming.core.facts import TableLimits
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.tables import Place, Result, Session, Txn, Vchannel, Verdict
from woodpecker.streaming.core.values import Position

MAGIC = b"WPSC"
FORMAT = 1
_DIGEST_AT = 5
_BODY_AT = 21


class _Position(msgspec.Struct, array_like=True):
    seq: int
    index: int
    tick: int
    low: int
    term: int


class _Result(msgspec.Struct, array_like=True):
    sequence: int
    seq: int
    tick: int
    count: int
    low: int
    end: int


class _Verdict(msgspec.Struct, array_like=True):
    epoch: int
    number: int
    position: _Position | None
    count: int
    reason: str


class _Session(msgspec.Struct, array_like=True):
    epoch: int
    last_tick: int
    last_sequence: int
    results: tuple[_Result, ...]
    last_number: int
    open: tuple[int, ...]
    verdicts: tuple[_Verdict, ...]
    dropped: tuple[int, int]


class _Txn(msgspec.Struct, array_like=True):
    vcid: int
    producer: str
    epoch: int
    number: int
    keep_alive_ms: int
    tick: int
    entries: int
    size_bytes: int


class _Vchannel(msgspec.Struct, array_like=True):
    name: str
    seq: int
    tick: int
    trim_before: int
    retention_age_s: int | None
    retention_bytes: int | None


class _Place(msgspec.Struct, array_like=True):
    seq: int
    tick: int
    low: int


class _Fold(msgspec.Struct, array_like=True):
    next_seq: int
    last_tick: int
    limit: int
    term: int
    incarnation: str
    features: int
    is_closed: bool
    limits: TableLimits
    vchannels: list[tuple[int, _Vchannel]]
    deleted: list[int]
    sessions: list[tuple[str, _Session]]
    forgotten_tick: int
    open: list[tuple[int, _Txn]]
    broadcasts: list[tuple[tuple[int, int], _Place]]
    broadcast_floor: int
    ignored: int


_ROWS: dict[type[Any], type[Any]] = {
    Position: _Position,
    Result: _Result,
    Verdict: _Verdict,
    Session: _Session,
    Txn: _Txn,
    Vchannel: _Vchannel,
    Place: _Place,
    Fold: _Fold,
}
_VALUES = {wire: value for value, wire in _ROWS.items()}
_FLAT: dict[
    type[Any], Callable[[Any], tuple[Any, ...]]
] = {  # rows of plain values: there may be many
    kind: attrgetter(*(one.name for one in fields(kind)))
    for kind in (Position, Result, Txn, Vchannel, Place)
}
_decode = msgspec.msgpack.Decoder(_Fold).decode


def encode_checkpoint(fold: Fold) -> bytes:
    """The fold as bytes, with a digest; equal folds give equal bytes."""
    body = msgspec.msgpack.encode(_wire(fold))
    return MAGIC + bytes((FORMAT,)) + xxh3_128(body).digest() + body


def decode_checkpoint(data: bytes | memoryview, *, where: str = "checkpoint") -> Fold:
    """Bytes as a fold.

    Raises: Corrupt: not the bytes that were written. InvalidRequest: written by a newer version.
    """
    view = memoryview(data)
    if len(view) < _BODY_AT or view[:4] != MAGIC:
        raise Corrupt(f"{where}: no checkpoint", where=where)
    if view[4] != FORMAT:
        raise InvalidRequest(
            f"{where}: checkpoint of format {view[4]}; this version reads {FORMAT}"
        )
    body = view[_BODY_AT:]
    if xxh3_128(body).digest() != view[_DIGEST_AT:_BODY_AT]:
        raise Corrupt(f"{where}: the checkpoint fails its checksum", where=where)
    try:
        wire = _decode(body)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{where}: checkpoint: {error}", where=where) from error
    fold: Fold = _value(wire)
    return fold


def digest_of(data: bytes | memoryview) -> str:
    """Digest for CheckpointRef: 32 hex digits."""
    return xxh3_128(data).hexdigest()


def _wire(value: Any) -> Any:  # noqa: ANN401 - rows of any table
    """A value of the core as what is encoded."""
    flat = _FLAT.get(type(value))
    if flat is not None:
        return flat(value)
    row = _ROWS.get(type(value))
    if row is not None:
        return row(*(_wire(getattr(value, one.name)) for one in fields(value)))
    if isinstance(value, dict):
        return [(key, _wire(item)) for key, item in value.items()]
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, tuple):
        return tuple(map(_wire, value))
    return value


def _value(wire: Any) -> Any:  # noqa: ANN401 - rows of any table
    """The way back."""
    kind = _VALUES.get(type(wire))
    if kind is None:
        return tuple(map(_value, wire)) if isinstance(wire, tuple) else wire
    names = wire.__struct_fields__
    values = {name: _value(getattr(wire, name)) for name in names}
    if kind is Fold:
        for name in ("vchannels", "sessions", "open", "broadcasts"):
            values[name] = {key: _value(row) for key, row in values[name]}
        values["deleted"] = set(values["deleted"])
    return kind(**values)
