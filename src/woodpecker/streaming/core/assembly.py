"""Assembly: from batches of a pchannel's log to what one channel delivers (rules, sections 8 and 9).

One order: effective positions. A batch outside of transactions is delivered where it stands; a
transaction whole, where its commit stands. Reading begins at ``low``; what has an effective position below
the start is suppressed, by that position alone. **P** Verdicts are the fold's: the first one in the log counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from woodpecker.errors import Corrupt
from woodpecker.streaming.core.facts import (
    AbortTxn,
    Broadcast,
    Data,
    Delete,
    Facts,
    Grant,
    Trim,
)
from woodpecker.streaming.core.values import Position

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(Generic[Content]):
    """Messages of one log batch. ``content`` None: not held; read the batch at ``facts.seq`` again."""

    facts: Facts
    content: Content | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Generic[Content]):
    """What is delivered at once, all or nothing.

    Plain: message i has position (seq + i, 0) and tick + i. Of a transaction: (seq, i), and all have
    ``tick``. Joined: one message at (seq, 0), its payload all payloads in order, key, type and properties those
    of the first. Messages before ``skip`` are below the start: not delivered.
    """

    pieces: tuple[Piece[Content], ...]
    seq: int
    tick: int
    count: int  # messages, after joining
    low: int
    term: int
    is_txn: bool = False
    is_joined: bool = False
    skip: int = 0

    def position(self, index: int) -> Position:
        """Of its message ``index``."""
        if self.is_txn:
            return Position(self.seq, index, self.tick, self.low, self.term)
        return Position(self.seq + index, 0, self.tick + index, self.low, self.term)

    @property
    def end(self) -> Position:
        """Position after its last message."""
        last = self.position(self.count - 1)
        return Position(last.seq, last.index + 1, last.tick, last.low, last.term)


@dataclass(slots=True, kw_only=True)
class _Open(Generic[Content]):
    """A transaction not yet decided, as far as it was read."""

    producer: str
    pieces: list[Piece[Content]] = field(default_factory=list)
    messages: int = 0
    held_bytes: int = 0


class Assembly(Generic[Content]):
    """One consumer's view of one channel, from position ``start`` on.

    Feed it the batches of the pchannel from ``read_from`` on, in order; ``pass_over`` those of other channels.

    Attributes:
        next_seq: seq of the next batch to feed.
        is_gone: the channel's Delete was fed: nothing follows.
        held_bytes: of contents held for open transactions, at most ``assembly_bytes``.
        cut: transactions dropped because their begin lies before ``read_from``, though not below the start.
    """

    def __init__(self, vcid: int, *, start: Position, read_from: int, assembly_bytes: int) -> None:
        """Args: read_from: seq of the first batch that is fed: ``low`` of the start, or where the log begins."""
        self.next_seq = read_from
        self.is_gone = False
        self.held_bytes = 0
        self.cut = 0
        self._vcid = vcid
        self._start = start
        self._read_from = read_from
        self._assembly_bytes = assembly_bytes
        self._open: dict[int, _Open[Content]] = {}

    def feed(self, facts: Facts, content: Content | None) -> Delivery[Content] | None:
        """Take the next batch; what it makes deliverable.

        ``content`` None: only facts were read; the piece is delivered so.
        Raises: Corrupt: batches out of order, or a commit whose count differs from its bodies.
        """
        if facts.seq != self.next_seq:
            raise Corrupt(
                f"stream batch at seq {facts.seq} where {self.next_seq} must follow",
                where=f"seq {facts.seq}",
            )
        self.next_seq = facts.end
        column, body = facts.column, facts.column.body
        match body:
            case Grant(producer=producer):  # of the whole pchannel
                for txn in [id_ for id_, one in self._open.items() if one.producer == producer]:
                    self._drop(txn)
            case AbortTxn(txn=txn):
                self._drop(txn)
            case _ if column.vcid != self._vcid or self.is_gone:
                return None
            case Data() if body.txn >= 0:
                return self._transact(facts, body, content)
            case Data() | Broadcast():
                return self._plain(facts, content)
            case Delete():
                self.is_gone = True
                for txn in list(self._open):
                    self._drop(txn)
            case Trim(before=before):
                self._start = max(self._start, Position(before))
        return None

    def pass_over(self, seq: int) -> None:
        """Batches below ``seq`` that were not fed are of other channels, and no Grants."""
        self.next_seq = max(self.next_seq, seq)

    def _plain(self, facts: Facts, content: Content | None) -> Delivery[Content] | None:
        start = self._start
        return self._delivered(
            Delivery(
                pieces=(Piece(facts=facts, content=content),),
                seq=facts.seq,
                tick=facts.tick,
                count=facts.messages,
                low=facts.column.low,
                term=facts.column.term,
                skip=max(0, start.seq + (start.index > 0) - facts.seq),
            )
        )

    def _transact(
        self, facts: Facts, data: Data, content: Content | None
    ) -> Delivery[Content] | None:
        if data.begin:
            self._open[data.txn] = _Open(producer=data.producer)
        txn = self._open.get(data.txn)
        if txn is None:  # decided before, or begun before what was read
            is_cut = data.commit and data.txn < self._read_from
            self.cut += is_cut and Position(facts.end - 1) >= self._start
            return None
        if facts.messages:
            self._hold(txn, facts, data.size_bytes, content)
        if data.commit:
            return self._commit(facts, data, txn)
        if data.abort:
            self._drop(data.txn)
        return None

    def _hold(
        self, txn: _Open[Content], facts: Facts, size_bytes: int, content: Content | None
    ) -> None:
        if content is not None and self.held_bytes + size_bytes <= self._assembly_bytes:
            txn.held_bytes += size_bytes
            self.held_bytes += size_bytes
        elif not facts.column.body.commit:  # type: ignore[union-attr]
            content = None
        txn.pieces.append(Piece(facts=facts, content=content))
        txn.messages += facts.messages

    def _commit(self, facts: Facts, data: Data, txn: _Open[Content]) -> Delivery[Content] | None:
        self._drop(data.txn)
        if txn.messages != data.entries:
            raise Corrupt(
                f"transaction {data.txn}: {txn.messages} messages, its commit at seq {facts.seq} "
                f"says {data.entries}",
                where=f"seq {facts.seq}",
            )
        seq, start = facts.end - 1, self._start
        count = min(1, txn.messages) if data.join else txn.messages
        return self._delivered(
            Delivery(
                pieces=tuple(txn.pieces),
                seq=seq,
                tick=facts.last_tick,
                count=count,
                low=facts.column.low,
                term=facts.column.term,
                is_txn=True,
                is_joined=data.join,
                skip=count if seq < start.seq else start.index if seq == start.seq else 0,
            )
        )

    def _delivered(self, delivery: Delivery[Content]) -> Delivery[Content] | None:
        return delivery if delivery.skip < delivery.count else None

    def _drop(self, txn_id: int) -> None:
        txn = self._open.pop(txn_id, None)
        if txn is not None:
            self.held_bytes -= txn.held_bytes

    @property
    def next(self) -> Position:
        """Everything below it was delivered (or is not this channel's): where to resume, with its ``low``."""
        low = next(iter(self._open), self.next_seq)
        if self.next_seq > self._start.seq:
            return Position(self.next_seq, low=low)
        start = self._start
        return Position(start.seq, start.index, start.tick, self._read_from, start.term)


def read_from(start: Position, *, earliest: int) -> int:
    """Where reading begins for a start at position ``start`` of a log that is kept from ``earliest`` on.

    Without its ``low`` read the column of the batch at ``start.seq`` first and take that one's: it is
    ``low`` for every position in the batch.
    """
    return max(earliest, start.low if start.low >= 0 else start.seq)


def join(payloads: Sequence[bytes]) -> bytes:
    """The payload of a joined message."""
    return b"".join(payloads)
