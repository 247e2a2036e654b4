"""What a subscription keeps with its cursor of the log, as bytes: one msgpack array (docs/formats.md)."""

from __future__ import annotations

from typing import Any

import msgspec

from woodpecker.errors import Corrupt
from woodpecker.streaming.core.cursors import CursorRecord
from woodpecker.streaming.core.values import Position, Where

FORMAT = 1


def encode_cursor(record: CursorRecord) -> bytes:
    """Same record, same bytes."""
    done, where = record.done, record.where
    plain = [
        FORMAT,
        [done.seq, done.index, done.tick, done.low, done.term],
        record.generation,
        record.holder,
        record.nonce,
        [[a.seq, a.index, b.seq, b.index] for a, b in record.ranges],
        [where.type, where.key, list(where.properties)],
    ]
    return msgspec.msgpack.encode(plain)


def decode_cursor(data: bytes, *, position: int, where: str) -> CursorRecord:
    """The subscription with a cursor at ``position``; without data: new, all below that is done.

    Raises: Corrupt: it is none of ours.
    """
    if not data:
        return CursorRecord(done=Position(position, low=position))
    try:
        plain: list[Any] = msgspec.msgpack.decode(data, type=list[Any])
        number, done, generation, holder, nonce, ranges, (kind, key, properties) = plain
        if number != FORMAT:
            raise ValueError(f"format {number}")
        seq, index, tick, low, term = done
        return CursorRecord(
            done=Position(seq, index, tick, low, term),
            generation=generation,
            holder=holder,
            nonce=nonce,
            ranges=tuple((Position(a, i), Position(b, j)) for a, i, b, j in ranges),
            where=Where(type=kind, key=key, properties=tuple((n, v) for n, v in properties)),
        )
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise Corrupt(f"{where} is no subscription: {error}", where=where) from error
