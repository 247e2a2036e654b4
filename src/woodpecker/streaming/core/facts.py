"""What one log batch says of itself: the stream column, and its place in the log (rules, section 5).

Everything an owner or a reader decides, it decides from these facts; payloads are not looked at. Ticks
of a batch's entries follow one another: entry i has ``tick + i``.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_TXN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLimits:
    """Limits that shape the tables of a fold. They travel in term records: every fold obeys the same ones."""

    sessions: int = 65_536
    session_forget_us: int = 24 * 3_600_000_000  # without a batch: forgotten
    session_young_us: int = 15 * 60_000_000  # younger ones make no room for others


# ------------------------------------------------------------------------------ kinds of batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Messages of one producer in one channel, of at most one transaction."""

    producer: str
    epoch: int  # 0: anonymous; else the seq of the Grant
    sequence: int
    size_bytes: int = 0  # of payloads, keys and properties
    txn: int = NO_TXN  # seq of the transaction's first entry
    number: int = -1  # of the transaction, the producer's
    begin: bool = False
    commit: bool = False
    abort: bool = False
    join: bool = False  # with commit: all payloads are one message
    hollow: bool = False  # its only entry is no message
    entries: int = 0  # with commit: messages of the whole transaction
    keep_alive_ms: int = 0  # with begin
    type: str = ""  # of all messages that do not name their own


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A new owner, or the same one anew."""

    incarnation: str
    features: int = 1
    limits: TableLimits = TableLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The owner leaves; the column's limit is exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Only moves the tick limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """The channel ``vcid`` begins."""

    name: str
    retention_age_s: int | None = None
    retention_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """The channel ``vcid`` ends; its open transactions are aborted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """What the channel ``vcid`` delivered below the seq ``before`` is hidden."""

    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A named producer's next epoch: the seq of this batch. Aborts the open transactions of older ones."""

    producer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortTxn:
    """The owner gives a transaction up; the column's vcid is the transaction's."""

    txn: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """One broadcast on the channel ``vcid``: delivered like a message. ``floor``: lowest unfinished id."""

    id: int
    floor: int
    type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Null:
    """Nothing. Also what becomes of a kind that a later version added and that may be passed over."""


Body = (
    Data
    | Term
    | Close
    | Limit
    | Create
    | Delete
    | Trim
    | Grant
    | AbortTxn
    | Broadcast
    | Null
)  # fmt: skip


# --------------------------------------------------------------------------- columns, and facts


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamColumn:
    """The stream column of a log batch.

    Attributes:
        term: of the owner that wrote it.
        limit: un-persisted ticks stay below it, until a batch with another limit is acknowledged.
        low: first seq of the oldest transaction open before this batch, else its own first seq. Reading from
            there shows whole everything delivered at or after this batch.
        vcid: the channel it belongs to; 0: none.
    """

    term: int
    limit: int
    low: int
    body: Body
    vcid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A log batch without its payloads."""

    seq: int  # of its first entry
    count: int  # entries, at least one
    tick: int  # of its first entry
    column: StreamColumn

    @property
    def end(self) -> int:
        """The seq after its last entry."""
        return self.seq + self.count

    @property
    def last_tick(self) -> int:
        """Tick of its last entry."""
        return self.tick + self.count - 1

    @property
    def messages(self) -> int:
        """Entries that are messages: delivered, at once or with their transaction."""
        match self.column.body:
            case Data(hollow=hollow):
                return 0 if hollow else self.count
            case Broadcast():
                return self.count
        return 0
