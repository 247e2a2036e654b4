"""Rows of the fold's tables, immutable, and the rules that concern one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from woodpecker.streaming.core.facts import Data, Facts
from woodpecker.streaming.core.values import Position

KEPT_RESULTS = 16  # newest batches of a session whose results are kept for repeats
KEPT_VERDICTS = 64  # newest transactions of a producer whose verdicts are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a batch was answered with. ``seq``, ``tick``: of its first entry; of a commit: effective ones."""

    sequence: int
    seq: int
    tick: int
    count: int  # messages; of a commit: of the whole transaction
    low: int
    end: int  # seq after the batch: answered when all below it is acknowledged


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a transaction. ``position`` None: aborted, for ``reason``."""

    epoch: int
    number: int
    position: Position | None = None
    count: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One producer, over all its epochs. Sequences go on from epoch to epoch."""

    epoch: int
    last_tick: int  # of its newest batch
    last_sequence: int = -1
    results: tuple[Result, ...] = ()  # oldest first
    last_number: int = -1  # of transactions, in this epoch
    open: tuple[int, ...] = ()  # its open transactions
    verdicts: tuple[Verdict, ...] = ()  # by (epoch, number)
    dropped: tuple[int, int] = (-1, -1)  # verdicts up to this (epoch, number) may be forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """An open transaction; its id is the seq of its first entry."""

    vcid: int
    producer: str
    epoch: int
    number: int
    keep_alive_ms: int
    tick: int  # of its first entry
    entries: int = 0  # messages so far
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vchannel:
    """One channel as its log knows it."""

    name: str
    seq: int  # of its Create
    tick: int
    trim_before: int = 0
    retention_age_s: int | None = None
    retention_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something was written. ``seq`` -1: it is so, and where is not remembered."""

    seq: int
    tick: int = -1
    low: int = -1


def result_of(facts: Facts, data: Data, total: int | None) -> Result:
    """The answer to a batch; ``total``: messages of the transaction that it committed."""
    is_commit = total is not None
    return Result(
        sequence=data.sequence,
        seq=facts.end - 1 if is_commit else facts.seq,
        tick=facts.last_tick if is_commit else facts.tick,
        count=facts.messages if total is None else total,
        low=facts.column.low,
        end=facts.end,
    )


def with_verdict(session: Session, txn: int, verdict: Verdict) -> Session:
    """The session after one of its transactions was decided."""
    verdicts = sorted((*session.verdicts, verdict), key=order_of)
    dropped = session.dropped
    for old in verdicts[:-KEPT_VERDICTS]:
        dropped = max(dropped, order_of(old))
    return replace(
        session,
        open=tuple(one for one in session.open if one != txn),
        verdicts=tuple(verdicts[-KEPT_VERDICTS:]),
        dropped=dropped,
    )


def order_of(verdict: Verdict) -> tuple[int, int]:
    """Transactions of a producer begin in this order."""
    return verdict.epoch, verdict.number


def idle_since(sessions: Mapping[str, Session], tick: int) -> Iterator[str]:
    """Producers whose newest batch is below ``tick`` and that have no open transaction, longest idle first."""
    for (
        producer,
        session,
    ) in sessions.items():  # by last_tick: each batch moves its session to the end
        if session.last_tick >= tick:
            return
        if not session.open:
            yield producer
