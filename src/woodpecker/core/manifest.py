"""The manifest: the one record of a log, as plain frozen values (log protocol, section 1).

A log is the chain of its segments. Old segments spill into immutable pages so that the record stays
small however long the log. ``transitions.py`` is the only place that makes a new manifest from an
old one; ``codec/records.py`` turns it into bytes.

Invariants (checked by ``transitions.check``):
- at most one segment is OPEN, and it is the last; the rest are CLOSED or SEALED, and have an end;
- base_seq of a segment = end.seq of its predecessor; the last end = (next_seq, digest);
- segment ids grow and are below next_segment_id; trim_point <= next_seq of the closed part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.register import EMPTY_REGISTER, Register

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end E of a closed segment: its last block, the seq after it, and the chain digest there."""

    block: int
    seq: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlace:
    """Where the file of a ``file`` segment lies: host, boot and buffer directory, by identity."""

    host: str
    boot: str
    buffer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node of an ensemble, in the incarnation it had then: another one knows nothing of it."""

    node: str
    incarnation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """The nodes that hold a ``quorum`` segment, and how many of them must have a block (A)."""

    members: tuple[Member, ...]
    acks: int


Place = FilePlace | Ensemble
"""What ``SegmentStore.prepare`` found: goes into the CAS that opens the segment, fixed for its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The sealed object of a segment: key, size in bytes, XXH3-128 of its bytes."""

    key: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment. ``end`` is None exactly while OPEN; ``sealed`` is set exactly when SEALED."""

    id: int
    kind: Kind
    state: State
    epoch: int
    token: str  # of the writer that opened it; names marks and copies, decides nothing by itself
    base_seq: int
    prev_digest: str  # the chain digest its first block links to
    storage: int = 0  # index into Manifest.storages: where it is (to be) sealed, and its blocks are
    place: FilePlace | None = None  # kind file only
    ensemble: Ensemble | None = None  # kind quorum only
    end: End | None = None
    sealed: Sealed | None = None
    bytes: int = 0  # of its blocks as stored, without padding; known once closed
    first_timestamp_us: int = 0
    last_timestamp_us: int = 0
    opened_at_ms: int = 0
    closed_at_ms: int = 0


def placed(segment: Segment, place: Place | None) -> Segment:
    """The segment with the place that was prepared for it."""
    if isinstance(place, Ensemble):
        return replace(segment, ensemble=place)
    return replace(segment, place=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRef:
    """An immutable page object holding older segments (level 0) or older pages (level above 0)."""

    key: str
    level: int
    first_segment: int
    last_segment: int
    base_seq: int
    end_seq: int
    bytes: int
    last_timestamp_us: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What precedes the first kept segment: where ``verify`` and the fold of the register start."""

    first_segment: int = 0  # segments with a smaller id are gone
    seq: int = 0
    digest: str = ZERO_DIGEST
    register: Register = EMPTY_REGISTER
    register_key: str | None = None  # set when the register lies in an object of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who owns the log in a layer above: a number that never falls, and its holder."""

    number: int
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grave:
    """A deleted incarnation of this name whose end marks still stand (until 30 days have passed)."""

    log_id: str
    deleted_at_ms: int
    storages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A person accepted that entries from ``from_seq`` of a segment are lost; recorded for ever."""

    segment: int
    from_seq: int
    reason: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of one log; units are in the names, bounds in ``core/options.py``."""

    mode: Kind = Kind.OBJECT
    segment_max_bytes: int = 256 << 20
    segment_max_age_s: int = 3600
    segment_max_blocks: int = 10_000
    queue_max_bytes: int = 64 << 20
    linger_ms: int = 0
    compression: str = "none"
    retention_age_s: int | None = None
    retention_bytes: int | None = None
    timestamps: str = "prefer"
    append_timeout_ms: int = 60_000
    max_producers: int = 1024
    replicas: int = 3  # this and all below: kind quorum only
    placement: str = "multi-az-multi-rg"
    affinity: str = "soft"
    placement_zones: str | None = None  # names joined by commas; None: any
    placement_groups: str | None = None
    max_cost_per_month: int | None = None  # kind object only; set: a record of format 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """State of one log, or the tombstone of a deleted one (``deleted_at_ms`` set)."""

    format: int = FORMAT
    name: str
    log_id: str  # 32 hex digits, new for each incarnation of the name
    created_at_ms: int
    nonce: str = ""  # changes with every CAS: two records are never the same bytes

    epoch: int = 0  # 0: no writer has opened it yet
    token: str = ""
    claim: Claim | None = None

    options: Options = Options()
    attributes: dict[str, str] = field(default_factory=dict)
    storages: tuple[str, ...] = ("",)  # "" is the store's own; later ones by log.alter(storage=)
    storage: int = 0  # where the next segment goes

    next_segment_id: int = 0
    next_seq: int = 0  # all four: at the end of the last closed segment
    digest: str = ZERO_DIGEST
    timestamp_us: int = 0
    register: Register = EMPTY_REGISTER
    register_key: str | None = None  # set when the register lies in an object of its own

    anchor: Anchor = Anchor()
    trim_point: int = 0
    trim_pending: int | None = None  # what retention wants to trim to, while it reads the cursors
    trim_token: str = ""  # of the retention run that set trim_pending: it alone may trim on it
    ended: bool = False

    deleting: bool = False  # a deletion has taken the log over; only it may go on
    deleted_at_ms: int | None = None
    graves: tuple[Grave, ...] = ()
    losses: tuple[Loss, ...] = ()

    pages: tuple[PageRef, ...] = ()
    segments: tuple[Segment, ...] = ()

    @property
    def open_segment(self) -> Segment | None:
        """The OPEN segment, or None."""
        if self.segments and self.segments[-1].state is State.OPEN:
            return self.segments[-1]
        return None

    @property
    def is_tombstone(self) -> bool:
        """True once the log is deleted; its name may be created anew over this record."""
        return self.deleted_at_ms is not None

    def owned_by(self, log_id: str, epoch: int, token: str) -> bool:
        """Whether the writer (log_id, epoch, token) still owns the log: all three must match."""
        return not self.is_tombstone and (self.log_id, self.epoch, self.token) == (
            log_id,
            epoch,
            token,
        )
