"""One node's copy of one segment: what it accepts, what it answers, when (log protocol, section 7).

Pure: ``on_append``, ``on_fence``, ``on_repair`` and ``on_synced`` take the copy as it is and say what
becomes of it and what is to be done. The driver (``logstore/``) writes records to the journal and sends
an answer no earlier than this module says.

The journal is one sequence for all copies of a node and is synced from the front, so "synced up to here"
covers everything before. Rules, each with what goes wrong without it:

- *Having* a block means that it is synced. A repeated block that is only queued is answered when the
  queue has synced. (Else a crash takes back an acknowledgement.)
- A block is accepted if it follows my last one by number **and** by digest, in the epoch of the segment.
  Block 0 links to whatever it says. (Else a copy with a hole counts as a copy.)
- A fence stands from the moment it is queued. It is answered, with the last block queued before it, when
  both are synced. From then on the writer hears only ``FENCED``: for what is still queued and for
  repeated blocks as well. (Else blocks that a recoverer repairs here are counted by the old writer.)
- Fencing a segment that was never seen makes a fenced copy without blocks. (Else its first block is in
  order again, and accepted.)
- A copy is forgotten only below the log's **floor**, and there every request is answered ``GONE``: no
  vote, read the manifest.
- A request names the incarnation of the node that it is meant for. An incarnation that had to cut its
  journal is *past*: it takes no blocks from writers, and its votes are lower bounds only ("at least").
  The same holds for a single copy that lost a record (``is_unsure``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.moved import mover


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The last block of a copy: its number, the seq after it, its digest (16 bytes)."""

    number: int
    end_seq: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceMark:
    """Who ended the segment here: epoch and token of the taker-over, and why, for people."""

    epoch: int
    token: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """State of one copy. ``queued`` is its last block in the journal, synced or not."""

    incarnation: str
    epoch: int
    queued: Tip | None = None
    synced: int = NO_BLOCK  # number of the last block that is on the disk
    fence: FenceMark | None = None  # from the moment it is queued
    is_fence_synced: bool = False
    end: int | None = None  # last block of the segment, once the manifest was read CLOSED
    lac: int = NO_BLOCK  # as told by the writer: readers see nothing above
    is_unsure: bool = False  # a record of it was lost: its blocks are a lower bound

    @property
    def last(self) -> int:
        """Number of the last block in the journal."""
        return NO_BLOCK if self.queued is None else self.queued.number


_moved = mover(Replica)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a node is: its name, its incarnation, and those that it must not speak for in full."""

    node: str
    incarnation: str
    past: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The copy a request is meant for."""

    log_id: str
    segment_id: int
    epoch: int  # of the segment
    incarnation: str  # of the node, as the manifest names it


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIn:
    """What must be known of a block that arrives."""

    number: int
    end_seq: int
    prev_digest: bytes
    digest: bytes


class Verdict(StrEnum):
    """What is to be done with a request."""

    STORE = "store"  # write it to the journal; answer when it is synced
    WAIT = "wait"  # it is in the journal: answer when it is synced
    FENCED = "fenced"
    GONE = "gone"  # below the floor: no vote, read the manifest
    FOREIGN = "foreign"  # meant for another incarnation of this node: no vote
    RETIRED = "retired"  # this copy takes no blocks any more, for its node has lost records
    GAP = "gap"  # send from the block after ``last`` on
    MISMATCH = "mismatch"  # contradicts what is here: a bug or damage
    NOT_FENCED = "not_fenced"  # repair is for fenced copies only


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict, the copy as it is now, and its last block (what a GAP or a vote needs)."""

    verdict: Verdict
    replica: Replica | None
    last: int = NO_BLOCK


def on_append(
    me: Identity, floor: int, replica: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A block from the writer of the segment's epoch."""
    verdict = refusal(me, floor, replica, target)
    if verdict is None and replica is not None and replica.fence is not None:
        verdict = Verdict.FENCED
    if verdict is None and (target.incarnation in me.past or (replica and replica.is_unsure)):
        verdict = Verdict.RETIRED
    if verdict is not None:
        return _decide(verdict, replica)
    return _take(replica or Replica(incarnation=target.incarnation, epoch=target.epoch), block)


def on_repair(
    me: Identity, floor: int, replica: Replica | None, target: Target, block: BlockIn, end: int
) -> Decision:
    """A block from a recoverer that has found the end ``end``; the copy stays fenced.

    A past incarnation takes it too: the block is as safe there as anywhere.
    """
    verdict = refusal(me, floor, replica, target)
    if verdict is None and (replica is None or replica.fence is None):
        verdict = Verdict.NOT_FENCED
    if verdict is not None:
        return _decide(verdict, replica)
    assert replica is not None
    limit = end if replica.end is None else min(end, replica.end)
    if block.number > limit:
        return _decide(Verdict.MISMATCH, replica)
    return _take(replica, block)


def on_fence(
    me: Identity, floor: int, replica: Replica | None, target: Target, fence: FenceMark
) -> Decision:
    """End the segment here. STORE and WAIT are answered by ``vote`` once ``is_voting``."""
    verdict = refusal(me, floor, replica, target)
    if verdict is not None:
        return _decide(verdict, replica)
    if replica is None:
        replica = Replica(incarnation=target.incarnation, epoch=target.epoch)
    if replica.fence is not None:
        return _decide(Verdict.WAIT, replica)
    return _decide(Verdict.STORE, replace(replica, fence=fence))


def on_synced(replica: Replica, *, block: int = NO_BLOCK, fence: bool = False) -> Replica:
    """The journal is synced past the block of that number, or past the fence record."""
    if fence:
        replica = replace(replica, is_fence_synced=True)
    return replica if block <= replica.synced else _moved(replica, synced=block)


def on_end(replica: Replica, end: int) -> Replica:
    """The manifest shows the segment CLOSED at block ``end``: final, whoever says it first."""
    return replica if replica.end is not None else replace(replica, end=end)


def on_lac(replica: Replica, lac: int) -> Replica:
    """The writer says that all up to ``lac`` is confirmed; it may run ahead of this copy."""
    return replica if lac <= replica.lac else _moved(replica, lac=lac)


def answers_writer(replica: Replica) -> bool:
    """Whether a block of the writer that has just been synced may be acknowledged."""
    return replica.fence is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """A fenced copy's answer: its last block; a lower bound unless ``is_complete``.

    ``lac``: what its writer had told it to be confirmed; it may lie above the copy's own blocks.
    """

    tip: Tip | None
    is_complete: bool = True
    lac: int = NO_BLOCK


def is_voting(replica: Replica) -> bool:
    """Whether the fence and all blocks before it are on the disk, so that the vote may be sent."""
    return replica.is_fence_synced and replica.synced == replica.last


def vote(me: Identity, replica: Replica) -> Vote:
    """The answer to a fence."""
    complete = not replica.is_unsure and replica.incarnation == me.incarnation
    return Vote(tip=replica.queued, is_complete=complete, lac=replica.lac)


def readable(replica: Replica, limit: int | None) -> int:
    """Last block that may be shown: ``limit`` where the reader knows the end, else the LAC."""
    top = replica.lac if limit is None else limit
    return min(top, replica.synced)


def new_floor(floor: int, lowest_unsealed: int) -> int:
    """A floor only grows. ``lowest_unsealed``: first segment that is OPEN or CLOSED in a manifest read
    linearizably, or ``next_segment_id`` if there is none: everything below is refused for ever.
    """
    return max(floor, lowest_unsealed)


def refusal(me: Identity, floor: int, replica: Replica | None, target: Target) -> Verdict | None:
    """Why the request is not meant for this copy; None if it is, be it a writer's or a reader's."""
    if target.segment_id < floor:
        return Verdict.GONE
    if target.incarnation != me.incarnation and target.incarnation not in me.past:
        return Verdict.FOREIGN
    if replica is not None and (replica.epoch, replica.incarnation) != (
        target.epoch,
        target.incarnation,
    ):
        return Verdict.MISMATCH
    return None


def _take(replica: Replica, block: BlockIn) -> Decision:
    last = replica.queued
    if block.number <= replica.last:
        assert last is not None
        if block.number == last.number and block.digest != last.digest:
            return _decide(Verdict.MISMATCH, replica)
        return _decide(Verdict.WAIT, replica)
    if block.number > replica.last + 1:
        return _decide(Verdict.GAP, replica)
    if last is not None and block.prev_digest != last.digest:
        return _decide(Verdict.MISMATCH, replica)
    tip = Tip(number=block.number, end_seq=block.end_seq, digest=block.digest)
    return _decide(Verdict.STORE, _moved(replica, queued=tip))


def _decide(verdict: Verdict, replica: Replica | None) -> Decision:
    return Decision(
        verdict=verdict, replica=replica, last=NO_BLOCK if replica is None else replica.last
    )
