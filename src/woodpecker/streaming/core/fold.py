"""The fold: every table of a pchannel as a pure function of the batches in its log (rules, section 5).

The owner folds its own batches as it sequences them, before they are durable: what rests on those is
answered when they are. ``codec/checkpoint.py`` turns a fold into bytes and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from woodpecker.streaming.core.facts import Facts, TableLimits
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
    dropped: tuple[int, int] = (-1, -1)  # largest (epoch, number) whose verdict was forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class Txn:
    """An open transaction; its id is the seq of its first entry."""

    vcid: int
    producer: str
    epoch: int
    number: int
    keep_alive_ms: int
    entries: int  # messages so far
    size_bytes: int


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
    """Where something was written."""

    seq: int
    tick: int
    low: int


@dataclass(slots=True, kw_only=True)
class Fold:
    """Tables after all batches below ``next_seq``. Values are immutable; only ``apply`` changes a fold.

    Attributes:
        vchannels, deleted: by vcid; those deleted are remembered for ever, so that none comes back.
        sessions: by producer id, longest idle first.
        open: open transactions by id, lowest first.
        broadcasts: by (id, vcid): those at or above ``broadcast_floor``.
        ignored: verdicts that came after another one (should stay 0).
    """

    next_seq: int = 0
    last_tick: int = -1
    limit: int = 0
    term: int = 0
    incarnation: str = ""
    features: int = 0
    is_closed: bool = False
    limits: TableLimits = field(default_factory=TableLimits)
    vchannels: dict[int, Vchannel] = field(default_factory=dict)
    deleted: dict[int, Place] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    open: dict[int, Txn] = field(default_factory=dict)
    broadcasts: dict[tuple[int, int], Place] = field(default_factory=dict)
    broadcast_floor: int = 0
    ignored: int = 0

    @property
    def low(self) -> int:
        """First seq of the oldest open transaction, else the next seq."""
        return next(iter(self.open), self.next_seq)

    def copy(self) -> Fold:
        """A fold of its own; values are shared."""
        raise NotImplementedError

    def apply(self, facts: Facts) -> None:
        """Take the next batch in.

        Raises: Corrupt: it cannot follow: another seq, a tick or term that falls, a batch of a closed or foreign
        term. The fold is unchanged.
        """
        raise NotImplementedError

    def has_room_for_session(self, tick: int) -> bool:
        """Whether a producer not yet known may be introduced by a batch at ``tick``."""
        raise NotImplementedError
