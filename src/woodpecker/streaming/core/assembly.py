"""Assembly: from batches of a pchannel's log to what one channel delivers (rules, sections 8 and 9).

One order: effective positions. A batch outside of transactions is delivered where it stands; a
transaction whole, where its commit stands. Reading begins at ``low``; what has an effective position below
the start is suppressed, by that position alone. **P**
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from woodpecker.streaming.core.facts import Facts
from woodpecker.streaming.core.values import Position

Content = TypeVar("Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(Generic[Content]):
    """Messages of one log batch. ``content`` None: not held; read entries [seq, seq + count) again."""

    facts: Facts
    content: Content | None

    @property
    def seq(self) -> int:
        """Seq of its first entry."""
        return self.facts.seq

    @property
    def count(self) -> int:
        """Its messages."""
        return self.facts.messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Generic[Content]):
    """What is delivered at once, all or nothing.

    Plain: message i has position (seq + i, 0) and tick + i. Of a transaction: (seq, i), and all have
    ``tick``. Joined: one message at (seq, 0), its payload all payloads in order, key, type and properties of
    the first. Messages before ``skip`` are below the start: not delivered.
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
        raise NotImplementedError

    @property
    def end(self) -> Position:
        """Position after its last message."""
        raise NotImplementedError


class Assembly(Generic[Content]):
    """One consumer's view of one channel, from position ``start`` on.

    Feed it every batch of the pchannel from ``read_from`` on, in order, also those of other channels
    (they are passed over quickly). An effective position needs all batches up to it, nothing after it.
    """

    cut: int  # transactions dropped because their begin lies before what is kept of the log

    def __init__(self, vcid: int, *, start: Position, read_from: int, assembly_bytes: int) -> None:
        """Args: read_from: seq of the first batch that is fed: ``low`` of the start, or the trim point."""
        raise NotImplementedError

    def feed(self, facts: Facts, content: Content | None) -> Delivery[Content] | None:
        """Take the next batch; what it makes deliverable.

        ``content`` None: only facts were read; the piece is delivered so.
        Raises: Corrupt: batches out of order, or a commit whose count differs from its bodies.
        """
        raise NotImplementedError

    @property
    def next(self) -> Position:
        """Everything below it was delivered (or is not this channel's): where to resume, with its ``low``."""
        raise NotImplementedError

    @property
    def next_seq(self) -> int:
        """Seq of the next batch to feed."""
        raise NotImplementedError

    @property
    def is_gone(self) -> bool:
        """The channel's Delete was fed: nothing follows."""
        raise NotImplementedError

    @property
    def held_bytes(self) -> int:
        """Bytes of contents held for open transactions: at most ``assembly_bytes``."""
        raise NotImplementedError


def read_from(start: Position, *, earliest: int) -> int:
    """Where reading begins for a start at position ``start`` (its ``low``, if known), of a log kept from ``earliest``."""
    raise NotImplementedError


def join(payloads: Sequence[bytes]) -> bytes:
    """The payload of a joined message."""
    return b"".join(payloads)
