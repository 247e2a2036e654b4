"""Values behind the golden files of the streaming service: a column of each kind, a checkpoint with every table."""

from __future__ import annotations

from woodpecker.streaming.codec.column import decode_column, encode_column
from woodpecker.streaming.core.facts import (
    AbortTxn,
    Body,
    Broadcast,
    Close,
    Create,
    Data,
    Delete,
    Grant,
    Limit,
    Null,
    StreamColumn,
    TableLimits,
    Term,
    Trim,
)
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.tables import Place, Result, Session, Txn, Vchannel, Verdict
from woodpecker.streaming.core.values import Position

_BODIES: list[Body] = [
    Data(producer="p", epoch=0, sequence=7, size_bytes=300, type="event"),
    Data(producer="billing", epoch=3, sequence=8, size_bytes=10, txn=90, number=2, begin=True,
         commit=True, join=True, entries=5, keep_alive_ms=10_000),
    Data(producer="billing", epoch=3, sequence=9, txn=95, number=3, abort=True, hollow=True),
    Term(incarnation="00ff", features=1, limits=TableLimits(sessions=9, session_forget_us=8, session_young_us=7)),
    Close(),
    Limit(),
    Create(name="orders", retention_age_s=60, retention_bytes=None),
    Delete(),
    Trim(before=55),
    Grant(producer="billing"),
    AbortTxn(txn=95, reason="expired"),
    Broadcast(id=4, floor=3, type="schema"),
    Null(),
]  # fmt: skip
COLUMNS = [
    StreamColumn(term=5, limit=1_700_000_000_000_000, low=90, vcid=vcid, body=body)
    for vcid, body in enumerate(_BODIES)
]

FOLD = Fold(
    next_seq=120,
    last_tick=1_700_000_000_000_000,
    limit=1_700_000_005_000_000,
    term=5,
    incarnation="00ff",
    features=1,
    is_closed=True,
    limits=TableLimits(sessions=9, session_forget_us=8, session_young_us=7),
    vchannels={1: Vchannel(name="orders", seq=1, tick=2, trim_before=55, retention_age_s=60)},
    deleted={2, 3},
    sessions={
        "billing": Session(
            epoch=3,
            last_tick=99,
            last_sequence=8,
            results=(Result(sequence=8, seq=91, tick=98, count=2, low=90, end=92),),
            last_number=2,
            open=(90,),
            verdicts=(
                Verdict(epoch=3, number=0, position=Position(80, 0, 70, 60, 5), count=4),
                Verdict(epoch=3, number=1, reason="expired"),
            ),
            dropped=(3, -1),
        )
    },
    forgotten_tick=44,
    open={
        90: Txn(
            vcid=1, producer="billing", epoch=3, number=2, keep_alive_ms=10_000, tick=97, entries=2,
            size_bytes=77,
        )
    },
    broadcasts={(4, 1): Place(seq=50, tick=51, low=49)},
    broadcast_floor=3,
    ignored=1,
)  # fmt: skip


def encode_columns() -> bytes:
    """Each column behind its length in two bytes."""
    encoded = map(encode_column, COLUMNS)
    return b"".join(len(column).to_bytes(2, "little") + column for column in encoded)


def decode_columns(data: bytes) -> list[StreamColumn]:
    """The way back."""
    columns = []
    while data:
        size = int.from_bytes(data[:2], "little")
        columns.append(decode_column(data[2 : 2 + size]))
        data = data[2 + size :]
    return columns
