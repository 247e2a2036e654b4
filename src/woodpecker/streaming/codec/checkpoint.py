"""A fold as the bytes of a checkpoint object (docs/formats.md).

Four bytes of magic, one of format, 16 of digest (XXH3-128 of all that follows), then msgpack: the fold's
fields in their order, each row of a table an array.

A full table has a million rows, seconds of work; ``encoding`` and ``decoding`` do it in steps of some
milliseconds, so that an event loop can do other things in between.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from xxhash import xxh3_128

from woodpecker.errors import Corrupt, InvalidRequest
from woodpecker.streaming.core.facts import TableLimits
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.tables import Place, Result, Session, Txn, Vchannel, Verdict
from woodpecker.streaming.core.values import Position

MAGIC = b"WPSC"
FORMAT = 1
ROWS_A_STEP = 200
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
    vchannels: list[msgspec.Raw]  # of _TABLES
    deleted: list[int]
    sessions: list[msgspec.Raw]
    forgotten_tick: int
    open: list[msgspec.Raw]
    broadcasts: list[msgspec.Raw]
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
}
_VALUES = {wire: value for value, wire in _ROWS.items()}
_FLAT: dict[
    type[Any], Callable[[Any], tuple[Any, ...]]
] = {  # rows of plain values: there may be many
    kind: attrgetter(*(one.name for one in fields(kind)))
    for kind in (Position, Result, Txn, Vchannel, Place)
}
_TABLES: dict[str, Callable[[Any], Any]] = {  # a row of each: its key, and what it says
    "vchannels": msgspec.msgpack.Decoder(tuple[int, _Vchannel]).decode,
    "sessions": msgspec.msgpack.Decoder(tuple[str, _Session]).decode,
    "open": msgspec.msgpack.Decoder(tuple[int, _Txn]).decode,
    "broadcasts": msgspec.msgpack.Decoder(tuple[tuple[int, int], _Place]).decode,
}
_decode = msgspec.msgpack.Decoder(_Fold).decode
_encode = msgspec.msgpack.Encoder().encode

Done = TypeVar("Done")


def encode_checkpoint(fold: Fold) -> bytes:
    """The fold as bytes, with a digest; equal folds give equal bytes."""
    return _at_once(encoding(fold))


def decode_checkpoint(data: bytes | memoryview, *, where: str = "checkpoint") -> Fold:
    """Bytes as a fold.

    Raises: Corrupt: not the bytes that were written. InvalidRequest: written by a newer version.
    """
    return _at_once(decoding(data, where=where))


def encoding(fold: Fold) -> Generator[None, None, bytes]:
    """``encode_checkpoint`` in steps; the fold must not change meanwhile."""
    digest, parts = xxh3_128(), [b""]  # the first one is known last

    def add(part: bytes) -> None:
        digest.update(part)
        parts.append(part)

    add(_array_head(len(fields(Fold))))
    for one in fields(Fold):
        value = getattr(fold, one.name)
        if one.name not in _TABLES:
            add(_encode(_wire(value)))
            continue
        add(_array_head(len(value)))
        for number, row in enumerate(value.items(), 1):
            add(_encode(_wire(row)))
            if number % ROWS_A_STEP == 0:
                yield
    parts[0] = MAGIC + bytes((FORMAT,)) + digest.digest()
    return b"".join(parts)


def decoding(data: bytes | memoryview, *, where: str = "checkpoint") -> Generator[None, None, Fold]:
    """``decode_checkpoint`` in steps. Raises: as it does."""
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
        values = {name: _value(getattr(wire, name)) for name in wire.__struct_fields__}
        values["deleted"] = set(values["deleted"])
        for name, decode_row in _TABLES.items():
            table = values[name] = {}
            for number, raw in enumerate(getattr(wire, name), 1):
                key, row = decode_row(raw)
                table[key] = _value(row)
                if number % ROWS_A_STEP == 0:
                    yield
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{where}: checkpoint: {error}", where=where) from error
    return Fold(**values)


def digest_of(data: bytes | memoryview) -> str:
    """Digest for CheckpointRef: 32 hex digits."""
    return xxh3_128(data).hexdigest()


def _at_once(work: Generator[None, None, Done]) -> Done:
    while True:
        try:
            next(work)
        except StopIteration as end:
            done: Done = end.value
            return done


def _array_head(count: int) -> bytes:
    """How msgpack begins an array, as msgspec writes it."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2)
    return b"\xdd" + count.to_bytes(4)


def _wire(value: Any) -> Any:  # noqa: ANN401 - rows of any table
    """A value of the core as what is encoded."""
    flat = _FLAT.get(type(value))
    if flat is not None:
        return flat(value)
    row = _ROWS.get(type(value))
    if row is not None:
        return row(*(_wire(getattr(value, one.name)) for one in fields(value)))
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
    if kind in _FLAT:
        return kind(**msgspec.structs.asdict(wire))
    return kind(**{name: _value(getattr(wire, name)) for name in wire.__struct_fields__})
