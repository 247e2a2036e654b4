"""Kind ``file``: order of a write, plan of a take-over, where a scanned file ends (protocol, section 6).

- A block starts on a unit of its own; the rest of its last unit is zero.
- A block is written, synced, the fence word looked at, the LAC published, the block acknowledged; in
  this order, and the next block is written only after the sync. So only the last block can be torn.
- A taker-over fences before it scans. Where the side file is gone it needs the file's lock instead.
- A writer without work may be parked: it lets go of lock and files. It comes back only if the file is
  there, its lock is free, the side file is the one made with it, and no fence is set; looked at in this
  order, so that a taker-over either is seen by it or finds it locked.
- The file ends before the first unit where the next block is not found. If a later block of the same
  writer stands behind that place, something acknowledged was damaged: that is never cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

UNIT_BYTES = 4096  # of writing and alignment: never smaller than a sector, so none is written twice
HINT_EVERY_BYTES = 64 << 20  # at most so much, or so many blocks, is scanned by a recovery
HINT_EVERY_BLOCKS = 4096

INLINE_MAX_BYTES = 64 << 10
INLINE_MAX_MS = 0.5  # mean sync above which the loop is never blocked
SLOW_SYNC_MS = 5.0  # one sync above this sends the next ones to a thread ...
PAUSE_FACTOR = 20  # ... for so many times what it took: slow syncs stop the loop 5 % of the time
_EWMA_WEIGHT = 0.1


def padded(size_bytes: int) -> int:
    """``size_bytes`` rounded up to whole units."""
    return -(-size_bytes // UNIT_BYTES) * UNIT_BYTES


class Step(StrEnum):
    """Steps of writing one block, and the three ways it ends."""

    WRITE = "write"
    SYNC = "sync"
    LOOK = "look"  # at the fence word; ok means it is clear
    PUBLISH = "publish"
    ACKNOWLEDGED = "acknowledged"
    FENCED = "fenced"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        """Whether nothing more is to be done for this block."""
        return self in _ENDS


_ENDS = frozenset({Step.ACKNOWLEDGED, Step.FENCED, Step.FAILED})
_NEXT = {
    (Step.WRITE, True): Step.SYNC,
    (Step.WRITE, False): Step.FAILED,
    (Step.SYNC, True): Step.LOOK,
    (Step.SYNC, False): Step.FAILED,
    (Step.LOOK, True): Step.PUBLISH,
    (Step.LOOK, False): Step.FENCED,
    (Step.PUBLISH, True): Step.ACKNOWLEDGED,
}


def after(step: Step, *, ok: bool) -> Step:
    """The step after ``step``. FENCED and FAILED end the writer: the block may be in the log."""
    return _NEXT[step, ok]


class Act(StrEnum):
    """What a taker-over does, in the order of its plan."""

    FENCE = "fence"  # set the fence word
    BARRIER = "barrier"  # make every processor see it before anything is read
    SCAN = "scan"  # from the disk, not from the page cache
    SYNC = "sync"  # what was read may still be in the disk's cache only


def takeover_plan(
    *, is_locked: bool, is_same_boot: bool, is_side_sound: bool
) -> tuple[Act, ...] | None:
    """How to take a segment over, or None: its writer may live and cannot be fenced from here.

    Args:
        is_locked: we hold the lock of the data file: its writer is dead or parked.
        is_same_boot: the machine has not started anew since the segment was opened.
        is_side_sound: the side file is there and is the one made with the segment.
    """
    if not is_same_boot:
        return (Act.SCAN, Act.SYNC)
    if is_side_sound:  # with the lock, too: a parked writer holds none, and comes back
        return (Act.FENCE, Act.BARRIER, Act.SCAN, Act.SYNC)
    return (Act.SCAN, Act.SYNC) if is_locked else None


class HeaderFacts(Protocol):
    """What the rules look at in a block header whose CRC is right."""

    @property
    def log_id(self) -> str: ...
    @property
    def segment_id(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def base_seq(self) -> int: ...
    @property
    def end_seq(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def prev_digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose blocks a file holds. Payloads may contain whole blocks: of other logs, even of this one."""

    log_id: str
    segment_id: int
    epoch: int

    def owns(self, header: HeaderFacts) -> bool:
        """Whether a block was written by the writer of this segment."""
        return (
            header.segment_id == self.segment_id
            and header.epoch == self.epoch
            and header.log_id == self.log_id
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place between two blocks: where the next one starts, and what it must be."""

    offset: int
    block: int  # number of the next block
    seq: int  # its base_seq
    digest: bytes  # of the block before

    def is_followed_by(self, header: HeaderFacts) -> bool:
        """Whether a block (of the same writer) links on here."""
        return (
            header.number == self.block
            and header.base_seq == self.seq
            and header.prev_digest == self.digest
        )

    def after(self, header: HeaderFacts) -> Position:
        """The place behind that block."""
        return Position(
            offset=self.offset + padded(header.size_bytes),
            block=header.number + 1,
            seq=header.end_seq,
            digest=header.digest,
        )


class Verdict(StrEnum):
    """What stands at a position."""

    NEXT = "next"  # the block that links on
    NOTHING = "nothing"  # the end, or a torn block: look behind it
    DAMAGE = "damage"  # a sound block of this writer that cannot be here


def judge(
    identity: Identity, position: Position, header: HeaderFacts | None, *, is_sound: bool
) -> Verdict:
    """Judge what was read at ``position``.

    Args:
        header: None if there is no header whose CRC is right.
        is_sound: the whole block is there and its digest is right.
    """
    if header is None or not is_sound or not identity.owns(header):
        return Verdict.NOTHING
    if position.is_followed_by(header):
        return Verdict.NEXT
    return Verdict.DAMAGE if header.number >= position.block else Verdict.NOTHING


def proves_damage(identity: Identity, position: Position, header: HeaderFacts) -> bool:
    """Whether a header found behind ``position``, where nothing links on, forbids to cut there.

    Block n+1 is written after n was synced; so a header with this or a higher number, of this very
    writer, means that a block which was synced is gone. Lower numbers are old blocks in payloads.
    """
    return identity.owns(header) and header.number >= position.block


def cuts_published(position: Position, published_bytes: int) -> bool:
    """Whether a log that ended at ``position`` would lose what its writer published in this boot.

    Args:
        published_bytes: the word as read before the scan began. It was set after the sync of all blocks
            below it, so a scan that ends before it has met damage, whatever stands behind.
    """
    return position.offset < published_bytes


class Pace:
    """How fast syncs are, and so whether the event loop may wait for one (mutable, one per disk)."""

    __slots__ = ("_mean_ms", "_thread_until_ms")

    def __init__(self) -> None:
        self._mean_ms = INLINE_MAX_MS  # nothing is known yet: the first syncs go to a thread
        self._thread_until_ms = 0.0

    def took(self, sync_ms: float, now_ms: float) -> None:
        """Learn from one write and sync of a block of at most INLINE_MAX_BYTES."""
        self._mean_ms += _EWMA_WEIGHT * (sync_ms - self._mean_ms)
        if sync_ms > SLOW_SYNC_MS:
            self._thread_until_ms = now_ms + sync_ms * PAUSE_FACTOR

    def allows_inline(self, now_ms: float) -> bool:
        """Whether a small block may be written and synced in the event loop now."""
        return self._mean_ms < INLINE_MAX_MS and now_ms >= self._thread_until_ms
