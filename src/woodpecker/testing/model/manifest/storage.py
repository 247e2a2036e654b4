"""Storage in the manifest model, commands that close and open its segments, and what must be there."""

from __future__ import annotations

from collections.abc import Iterable

from woodpecker.core.collect import SealedItem
from woodpecker.core.commands import CloseSegment
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import End, Manifest, Segment
from woodpecker.core.register import EMPTY_REGISTER
from woodpecker.testing.model.manifest.state import Cell, Me, World


def overlap(cell: Cell, cells: Iterable[Cell]) -> str | None:
    """Whether two segments acknowledged one seq."""
    for other in cells:
        is_before = (cell.log_id, cell.segment) < (other.log_id, other.segment)
        are_of_one_log = other.log_id == cell.log_id and cell.held and other.held
        if is_before and are_of_one_log and cell.base + cell.held > other.base:
            return f"seq {other.base} was acknowledged by {cell.writer} and {other.writer}"
    return None


def lost(manifest: Manifest, cell: Cell) -> str | None:
    """What was acknowledged in a segment and is not in the log; None: all is well."""
    if cell.log_id > manifest.log_id and cell.held:
        return f"{cell.writer} was acknowledged, and the record is of an older incarnation"
    if cell.log_id < manifest.log_id or manifest.is_tombstone or manifest.deleting:
        return None
    if not cell.held or cell.segment < manifest.anchor.first_segment:
        return None
    segment = next((s for s in manifest.segments if s.id == cell.segment), None)
    if segment is None:
        return (
            f"{cell.held} blocks of segment {cell.segment} were acknowledged, and it is not there"
        )
    if segment.end is not None and segment.end.seq - segment.base_seq < cell.held:
        held = segment.end.seq - segment.base_seq
        return f"{cell.held} blocks of segment {cell.segment} were acknowledged, it ends at {held}"
    return None


def next_segment(manifest: Manifest, me: Me) -> Segment:
    """The segment that would follow now."""
    return Segment(
        id=manifest.next_segment_id,
        kind=Kind.OBJECT,
        state=State.OPEN,
        epoch=me.epoch,
        token=me.token,
        base_seq=manifest.next_seq,
        prev_digest=manifest.digest,
    )


def closing(me: Me, segment: Segment, count: int) -> CloseSegment:
    """The command that closes a segment behind ``count`` blocks, or drops it."""
    seq = segment.base_seq + count
    digest = f"{me.log_id}-{segment.id}-{count}".rjust(32, "0")
    return CloseSegment(
        owner=me.owner(),
        segment_id=segment.id,
        end=End(block=count - 1, seq=seq, digest=digest) if count else None,
        bytes=count,
        first_timestamp_us=0,
        last_timestamp_us=0,
        now_ms=0,
        register=EMPTY_REGISTER,
    )


def sealed_item(segment: Segment) -> SealedItem:
    """The object into which a closed segment is sealed."""
    assert segment.end is not None
    return SealedItem(segment_id=segment.id, end_seq=segment.end.seq, digest=segment.end.digest)


def cell_of(world: World, log_id: str, segment: int) -> Cell | None:
    """Storage of a segment, if anything was ever done there."""
    for cell in world.cells:
        if (cell.log_id, cell.segment) == (log_id, segment):
            return cell
    return None


def changed(world: World, log_id: str, segment: int, base: int, **changes: object) -> World:
    """The world with fields of a segment's storage set."""
    cell = cell_of(world, log_id, segment)
    kept = tuple(other for other in world.cells if other is not cell)
    if cell is None:
        cell = Cell(log_id, segment, "", base, 0, is_fenced=False)
    after = cell._replace(**changes)  # type: ignore[arg-type]
    return world._replace(cells=tuple(sorted((*kept, after))))
