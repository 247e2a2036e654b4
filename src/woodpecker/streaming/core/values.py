"""What users and all parts of the service speak of: positions, messages, places to start and end, filters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

Properties = tuple[tuple[bytes, bytes], ...]

TYPE_MAX_CHARS = 256  # of a message


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a message is delivered in its channel; positions of one channel order by (seq, index).

    Attributes:
        seq: effective seq: of the message itself, or of the last entry of its transaction's commit.
        index: place within a transaction, from 0; 0 for all others.
        tick: time of the delivery, microseconds, growing along a pchannel; no part of the order. -1: not known.
        low: reading must begin at or below this seq to see all of the message; no part of the order. -1: not known.
        term: of the owner that told it; no part of the order. 0: not known.
    """

    seq: int
    index: int = 0
    tick: int = field(default=-1, compare=False)
    low: int = field(default=-1, compare=False)
    term: int = field(default=0, compare=False)

    def after(self) -> Position:
        """The place right behind it, to go on from: whatever is delivered later is at or above it."""
        return replace(self, index=self.index + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A filter; all that is given must hold. Judged per message, after a transaction is whole."""

    type: str | None = None
    key: bytes | None = None
    properties: Properties = ()


ANYTHING = Where()


class StartForm(StrEnum):
    """How a place to start is given; ``value`` of ``Start`` is in the form's unit."""

    EARLIEST = "earliest"
    LATEST = "latest"
    SEQ = "seq"  # value: seq, inclusive
    AFTER = "after"  # value, index: first message above that position
    POSITION = "position"  # value, index: first message at or above it
    TICK = "tick"  # value: first message with a tick at or above it
    TIME = "time"  # value: microseconds since 1970; as TICK, ticks are such times


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a consumer begins. ``term``: of the owner that told the position; 0: unknown.

    ``low``: a seq at or below which reading must begin to see all of it (section on resuming); -1: unknown.
    ``ranges``: (first, last) effective seqs above the position that are already acknowledged.
    """

    form: StartForm
    value: int = 0
    index: int = 0
    term: int = 0
    low: int = -1
    ranges: tuple[tuple[int, int], ...] = ()


class EndForm(StrEnum):
    """How the end of a consumer is given; exclusive."""

    NEVER = "never"
    POSITION = "position"
    TICK = "tick"
    TAIL = "tail"  # the tail when the consumer started


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Where a consumer ends."""

    form: EndForm = EndForm.NEVER
    value: int = 0
    index: int = 0


NO_STOP = Stop()
