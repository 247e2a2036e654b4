"""Reading a journal file back: which records it holds, and where some were lost.

``walk`` asks for bytes and gives records; it does no I/O. Group n + 1 is written only when group n is
synced, and nothing is written into a file once the next one was begun. So only the last group of the
last file can be torn by a crash. What is wrong is one of:

- *told*: the payload of a record is damaged, its header says whom it concerned. ``is_sound`` is False.
- a *scar*: records may be missing and nobody can say which. The place tells one scar from another:
  a caller that has drawn the consequences need not draw them again at the next start.

In the last group nothing is told: the rest of the group, from the first bad record on, is cut, a scar.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

from woodpecker.codec.compression import Buffer
from woodpecker.codec.header import BlockHeader, parse_header, verify_digest
from woodpecker.codec.journal import (
    ALIGN_BYTES,
    BLOCK_KINDS,
    RECORD_BYTES,
    RECORD_MAGIC,
    UNIT_BYTES,
    RecordHeader,
    aligned,
    is_sound,
    padded,
    parse_record,
)
from woodpecker.errors import Corrupt

SCAN_BYTES = 1 << 20
HEADLESS_BYTES = 16 << 20  # searched for the rest of a group whose first record is damaged
_ZEROS = bytes(SCAN_BYTES)


class Ask(NamedTuple):
    """Bytes that are needed; fewer only at the end of the file."""

    offset: int
    size_bytes: int


class Found(NamedTuple):
    """One record. ``block`` is set for records of sound blocks; ``offset`` is where its header lies."""

    header: RecordHeader
    offset: int
    is_sound: bool
    payload: memoryview
    block: BlockHeader | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came after the last record. ``next_record`` None: the last number is not known."""

    offset: int
    next_record: int | None
    scars: tuple[int, ...]


Walk = Generator[Ask | Found, memoryview, Ending]


def walk(
    size_bytes: int, seed: int, first_record: int | None, *, limit: int | None, is_last: bool
) -> Walk:
    """Records of one file, in order. Answer each ``Ask`` with its bytes, each ``Found`` with anything.

    Args:
        first_record: as its header says; None: the header is damaged.
        limit: number of the first record of the next file, if that is known: what this file holds of it
            or of later ones was cut, and the number given to another.
        is_last: no later file holds anything.
    """
    return _Walk(size_bytes, seed, first_record, limit, is_last=is_last).run()


def is_zero(data: Buffer) -> bool:
    """Whether there are only zeros."""
    view = memoryview(data)
    return all(
        bytes(piece := view[at : at + SCAN_BYTES]) == _ZEROS[: len(piece)]
        for at in range(0, len(view), SCAN_BYTES)
    )


class _Walk:
    def __init__(
        self,
        size_bytes: int,
        seed: int,
        first_record: int | None,
        limit: int | None,
        *,
        is_last: bool,
    ) -> None:
        self._size = size_bytes
        self._seed = seed
        self._next = first_record  # None: any
        self._limit = limit
        self._is_last = is_last
        self._scars: list[int] = []

    def run(self) -> Walk:
        at = UNIT_BYTES
        while at < self._size and not self._is_complete:
            head = self._head((yield Ask(at, UNIT_BYTES)), at)
            if head is None:
                found, is_blank = yield from self._find_group(at)
                if found is not None or not is_blank:
                    self._scars.append(at)
                if found is None and (is_blank or self._is_last):
                    break
                end = self._size if found is None else found
                size = min(end - at, HEADLESS_BYTES)
                yield from self._group(at, (yield Ask(at, size)), is_headless=True)
                at, self._next = end, None
                continue
            end = at + head.group_units * UNIT_BYTES
            if (yield from self._group(at, (yield Ask(at, end - at)))):
                break
            at = end
        if self._limit is not None and not self._is_complete and at not in self._scars:
            self._scars.append(at)  # only zeros where records were
        return Ending(offset=at, next_record=self._next, scars=tuple(self._scars))

    @property
    def _is_complete(self) -> bool:
        return self._limit is not None and self._next is not None and self._next >= self._limit

    def _is_later(self, header: RecordHeader) -> bool:
        """Whether a record may follow the last one that was found."""
        return header.number >= (self._next or 0) and (
            self._limit is None or header.number < self._limit
        )

    def _head(self, unit: memoryview, at: int) -> RecordHeader | None:
        """The first record of the group that begins at ``at``, if it is the next one."""
        head = parse_record(unit, self._seed)
        if head is None or not head.group_units:
            return None
        if at + head.group_units * UNIT_BYTES > self._size:
            return None
        return head if self._next in (None, head.number) else None

    def _find_group(self, at: int) -> Generator[Ask, memoryview, tuple[int | None, bool]]:
        """Where the next whole group begins from ``at`` on; whether all before it is zero."""
        is_blank = True
        for start in range(at, self._size, SCAN_BYTES):
            view = yield Ask(start, min(SCAN_BYTES, self._size - start))
            if is_zero(view):
                continue
            is_blank = False
            for place in range(0, len(view), UNIT_BYTES):
                head = parse_record(view, self._seed, place)
                if head is not None and head.group_units and self._is_later(head):
                    return start + place, is_blank
        return None, is_blank

    def _group(
        self, start: int, view: memoryview, *, is_headless: bool = False
    ) -> Generator[Ask | Found, memoryview, bool]:
        """The records of one group; True: nothing is read after it. ``is_headless``: the first is lost."""
        at = self._resync(view, ALIGN_BYTES) if is_headless else 0
        is_first = not is_headless
        while at < len(view) and not self._is_complete:
            header = parse_record(view, self._seed, at)
            if is_first and header is not None:
                self._next = header.number
            if header is None or not self._belongs(header, len(view) - at, is_first=is_first):
                self._scars.append(start + at)
                if (yield from self._is_tail(start + len(view))):
                    return True
                at = self._resync(view, at + ALIGN_BYTES)
                is_first = False
                continue
            found = _look(header, view, at, start + at)
            if not found.is_sound and (yield from self._is_tail(start + len(view))):
                self._scars.append(start + at)
                return True
            yield found
            is_first = False
            self._next = header.number + 1
            at = _after(view, at + aligned(header.size_bytes))
        return False

    def _belongs(self, header: RecordHeader, room: int, *, is_first: bool) -> bool:
        return (
            bool(header.group_units) == is_first
            and header.size_bytes <= room
            and header.number == self._next
        )

    def _is_tail(self, end: int) -> Generator[Ask, memoryview, bool]:
        """Whether the group that ends at ``end`` is the last of the journal."""
        if not self._is_last:
            return False
        later, _ = yield from self._find_group(end)
        return later is None

    def _resync(self, view: memoryview, at: int) -> int:
        """Where in the group the next sound record lies; its end if there is none."""
        data = bytes(view)
        while (at := data.find(RECORD_MAGIC, at)) >= 0:
            header = parse_record(view, self._seed, at) if at % ALIGN_BYTES == 0 else None
            if header is not None and self._is_later(header):
                self._next = header.number
                return at
            at += 1
        self._next = None
        return len(view)


def _after(view: memoryview, at: int) -> int:
    """Where the next record of the group begins: zeros up to the end of the unit are passed over."""
    if at % UNIT_BYTES and not any(view[at : at + 4]):
        return padded(at)
    return at


def _look(header: RecordHeader, view: memoryview, at: int, offset: int) -> Found:
    payload = view[at + RECORD_BYTES : at + header.size_bytes]
    if header.kind not in BLOCK_KINDS:
        return Found(header, offset, is_sound(header, payload), payload, None)
    block = _block(header, payload)
    return Found(header, offset, block is not None, payload, block)


def _block(header: RecordHeader, payload: memoryview) -> BlockHeader | None:
    """The header of the block in a record, if it is whole and the one that the record speaks of."""
    try:
        block = parse_header(payload)
    except Corrupt:
        return None
    said = (header.log_id, header.segment_id, header.epoch, header.block, header.payload_bytes)
    if said != (block.log_id, block.segment_id, block.epoch, block.number, block.size_bytes):
        return None
    return block if verify_digest(payload) else None
