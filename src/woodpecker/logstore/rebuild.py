"""What a node holds, put together again from the records of its journal.

Records are taken in their order, but a block that was moved forward comes later than blocks behind it, and
the file it first was in may be gone. So blocks are collected by number, and judged at the end: a copy whose
blocks are not complete up to the highest that any record speaks of has lost some. It keeps those before the
first hole, and is *unsure* (``core/replica.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from woodpecker.codec.header import BlockHeader
from woodpecker.codec.journal import BLOCK_KINDS, Kind, RecordHeader, decode_copy, decode_fence
from woodpecker.codec.journal_walk import Found
from woodpecker.core.ids import NO_BLOCK, NO_ENTRY
from woodpecker.core.replica import Replica, Tip, new_floor, on_end, on_lac
from woodpecker.errors import Corrupt
from woodpecker.logstore.block_index import BlockIndex, Place
from woodpecker.logstore.copies import Copies


class Rebuild:
    """Takes the records of all files, oldest file first. ``incarnations``: of the disk, oldest first."""

    def __init__(self, incarnations: Sequence[str]) -> None:
        self._incarnations = incarnations
        self._floors: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._drafts: dict[str, dict[int, _Draft]] = {}

    def take(self, file: int, found: Found) -> None:
        """The next record. Raises: Corrupt: it speaks of an incarnation that the disk does not know."""
        header = found.header
        match header.kind:
            case Kind.CHECKPOINT:
                return
            case Kind.NAME:
                if found.is_sound:
                    self._names[header.log_id] = bytes(found.payload).decode(errors="replace")
            case Kind.FLOOR:
                self._raise_floor(header.log_id, header.segment_id)
            case _:
                if header.segment_id >= self._floors.get(header.log_id, 0):
                    self._draft(header).take(file, found)

    def finish(self, now_ms: float) -> tuple[Copies, list[str]]:
        """Everything that is held, and what was lost of it, in words."""
        copies, lost = Copies(), []
        for log_id, floor in self._floors.items():
            copies.log(log_id).floor = floor
        for log_id, drafts in self._drafts.items():
            log = copies.log(log_id)
            log.name = self._names.get(log_id, "")
            for segment_id, draft in drafts.items():
                why = draft.finish()
                copy = copies.add(log_id, segment_id, draft.replica, now_ms)
                copies.adopt(copy, draft.index)
                if why:
                    lost.append(f"{copy.name}: {why}")
        return copies, lost

    def _raise_floor(self, log_id: str, floor: int) -> None:
        floor = self._floors[log_id] = new_floor(self._floors.get(log_id, 0), floor)
        drafts = self._drafts.get(log_id, {})
        for segment_id in [number for number in drafts if number < floor]:
            del drafts[segment_id]

    def _draft(self, header: RecordHeader) -> _Draft:
        drafts = self._drafts.setdefault(header.log_id, {})
        draft = drafts.get(header.segment_id)
        if draft is None:
            if header.era >= len(self._incarnations):
                raise Corrupt(
                    "the disk's identity is older than its journal: one of the two was put back; "
                    "remove the whole directory to start as a new node",
                    where="identity",
                )
            replica = Replica(incarnation=self._incarnations[header.era], epoch=header.epoch)
            draft = drafts[header.segment_id] = _Draft(replica)
        return draft


class _Draft:
    """One copy as far as it was read."""

    __slots__ = ("_ahead", "_highest", "_lac_seq", "_tip", "_why", "index", "replica")

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.index = BlockIndex()
        self._tip: Tip | None = None  # of the last block in the index
        self._ahead: dict[int, tuple[BlockHeader, Place]] = {}  # blocks behind a hole
        self._highest = NO_BLOCK  # block that any record speaks of
        self._lac_seq = NO_ENTRY
        self._why = ""  # what was lost

    def take(self, file: int, found: Found) -> None:
        """A record about this copy."""
        header = found.header
        if header.epoch != self.replica.epoch:
            self._why = f"records of epochs {self.replica.epoch} and {header.epoch}"
        elif header.kind in BLOCK_KINDS:
            self._highest = max(self._highest, header.block)
            if found.block is not None:
                self._take_block(found.block, (file, found.offset))
        elif header.kind is Kind.END:
            self.replica = on_end(self.replica, header.block)
        elif not found.is_sound:
            self._highest = max(self._highest, header.block)
            self._why = f"its {header.kind.name.lower()} record is damaged"
        elif header.kind is Kind.FENCE:
            self._take_fence(found)
        else:
            self._highest = max(self._highest, header.block)
            self._take_copy(found)

    def finish(self) -> str:
        """All records were read: the copy is as far as it is complete. Why it is not; "" if it is."""
        tip, last = self._tip, len(self.index) - 1
        if tip is not None:
            lac = self.index.confirmed(self._lac_seq, tip.end_seq)
            self.replica = on_lac(self.replica, lac)
        if last < self._highest and not self._why:
            self._why = f"block {last + 1} is lost; block {self._highest} was here"
        self.replica = replace(
            self.replica,
            queued=tip,
            synced=last,
            is_unsure=self.replica.is_unsure or bool(self._why),
        )
        return self._why

    def _take_block(self, block: BlockHeader, place: Place) -> None:
        self._lac_seq = max(self._lac_seq, block.lac)
        if block.number < len(self.index):
            self.index.move(block.number, place)
            return
        self._ahead[block.number] = block, place
        while (following := self._ahead.pop(len(self.index), None)) is not None:
            self._add(*following)

    def _add(self, block: BlockHeader, place: Place) -> None:
        if self._tip is not None and block.prev_digest != self._tip.digest:
            self._why = f"block {block.number} does not follow the one before"
            return
        self.index.append(block, place)
        self._tip = Tip(number=block.number, end_seq=block.end_seq, digest=block.digest)

    def _take_fence(self, found: Found) -> None:
        if self.replica.fence is None:
            mark = decode_fence(found.payload, where="journal")
            self.replica = replace(self.replica, fence=mark, is_fence_synced=True)

    def _take_copy(self, found: Found) -> None:
        said = decode_copy(
            found.payload,
            incarnation=self.replica.incarnation,
            epoch=self.replica.epoch,
            where="journal",
        )
        if self.replica.fence is None and said.fence is not None:
            self.replica = replace(self.replica, fence=said.fence, is_fence_synced=True)
        if said.end is not None:
            self.replica = on_end(self.replica, said.end)
        if said.is_unsure:
            self.replica = replace(self.replica, is_unsure=True)
        self.replica = on_lac(self.replica, said.lac)
