"""What a node may conclude from a manifest about the copies that it holds (log protocol, section 7).

- Copies go only on positive evidence, in a manifest read linearizably: their segment is SEALED, was
  trimmed or dropped; or the tombstone or a grave names the log. That a name is not there, or belongs to a log
  nobody ever heard of, is no evidence: an old copy of the metadata may have been put in place.
- A CLOSED segment is sealed by its members, one after the other: the first at once, the others when it
  still is not sealed after a while that grows with their place in the ensemble and its size.
- An OPEN segment is closed by its writer, or by whoever takes the log over. A node does that only for a
  segment that a living writer would have left long ago (a member drains, is full or gone for ever, and a
  better ensemble can be had: writers ask for one now and then, idle or not), and of whose writer nothing was
  heard for as long. Where there is nowhere to go a silent writer may be alive, and the segment stays open.
"""

from __future__ import annotations

from collections.abc import Iterator

from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.core.replica import Identity

FORGET_ALL = 1 << 62
"""Floor of a log that is gone: above every segment id."""

SEAL_STEP_MS = 15_000.0  # the next member waits so long ...
SEAL_BYTES_PER_MS = 16 << 10  # ... and as long as writing the object may take, at 16 MiB a second
ABSENT_MS = (
    600_000.0  # a writer that should have moved on for so long, and was not heard of, is gone
)


def floor_of(manifest: Manifest, log_id: str) -> int:
    """The floor that the manifest justifies for the log ``log_id``; 0: none."""
    if any(grave.log_id == log_id for grave in manifest.graves):
        return FORGET_ALL
    if manifest.log_id != log_id:
        return 0
    if manifest.is_tombstone:
        return FORGET_ALL
    for segment in manifest.segments:
        if segment.state is not State.SEALED:
            return segment.id
    return manifest.next_segment_id


def place_of(me: Identity, segment: Segment) -> int | None:
    """This node's place among the members of a quorum segment, or None."""
    if segment.kind is not Kind.QUORUM or segment.ensemble is None:
        return None
    for index, member in enumerate(segment.ensemble.members):
        if member.node == me.node and member.incarnation in (me.incarnation, *me.past):
            return index
    return None


def first_closed(manifest: Manifest) -> Segment | None:
    """The oldest CLOSED segment: it is sealed next, or dropped if it is trimmed."""
    return next((s for s in manifest.segments if s.state is State.CLOSED), None)


def closed_here(me: Identity, manifest: Manifest) -> Iterator[Segment]:
    """CLOSED segments that this node is a member of: their end is known."""
    for segment in manifest.segments:
        if segment.state is State.CLOSED and place_of(me, segment) is not None:
            yield segment


def seal_delay_ms(place: int, segment: Segment) -> float:
    """How long the member at ``place`` leaves a segment, from when it learnt of its end, to those before."""
    return place * (SEAL_STEP_MS + segment.bytes / SEAL_BYTES_PER_MS)


def may_close(me: Identity, manifest: Manifest, *, left_ms: float, idle_ms: float) -> bool:
    """Whether this node may close the OPEN segment in place of a writer that is gone.

    Args:
        left_ms: for how long a living writer would have wanted to leave the segment, without a break.
        idle_ms: since the node last heard of the segment's writer.
    """
    segment = manifest.open_segment
    if segment is None or manifest.deleting or manifest.is_tombstone:
        return False
    place = place_of(me, segment)
    return place is not None and min(left_ms, idle_ms) >= ABSENT_MS + place * SEAL_STEP_MS
