"""What a node holds: copies of segments by log, where their blocks lie, and how much of it is where.

Only bookkeeping: what a copy accepts is for ``core/replica.py`` to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from woodpecker.codec.header import BlockHeader
from woodpecker.codec.journal import RECORD_BYTES, aligned
from woodpecker.core.replica import Replica, new_floor
from woodpecker.logstore.block_index import BlockIndex, Place


class Copy:
    """One copy: its state by the rules, its blocks, and how much of them lies in which journal file."""

    __slots__ = ("heard_ms", "index", "is_dropped", "log", "replica", "segment_id", "size_bytes",
                 "spans")  # fmt: skip

    def __init__(self, log: HeldLog, segment_id: int, replica: Replica, now_ms: float) -> None:
        self.log = log
        self.segment_id = segment_id
        self.replica = replica
        self.index = BlockIndex()
        self.size_bytes = 0  # of its blocks as stored
        self.spans: dict[int, int] = {}  # journal file -> bytes of its records there
        self.heard_ms = now_ms  # when its writer was last heard of
        self.is_dropped = False

    @property
    def name(self) -> str:
        """For people."""
        return f"segment {self.segment_id} of log {self.log.name or self.log.log_id}"


class HeldLog:
    """Everything of one log. ``name`` is "" as long as nobody told it."""

    __slots__ = ("copies", "floor", "log_id", "name")

    def __init__(self, log_id: str) -> None:
        self.log_id = log_id
        self.name = ""
        self.floor = 0
        self.copies: dict[int, Copy] = {}


class FileUse:
    """What one journal file is still needed for."""

    __slots__ = ("copies", "live_bytes")

    def __init__(self) -> None:
        self.live_bytes = 0
        self.copies: dict[Copy, None] = {}  # a dict: its order does not depend on addresses


class Copies:
    """All logs of the node. ``unsealed_*``: totals over copies that have blocks."""

    def __init__(self) -> None:
        self.logs: dict[str, HeldLog] = {}
        self.uses: dict[int, FileUse] = {}
        self.unsealed_segments = 0
        self.unsealed_bytes = 0
        self.count = 0

    def log(self, log_id: str) -> HeldLog:
        """The log, made if it is new."""
        log = self.logs.get(log_id)
        if log is None:
            log = self.logs[log_id] = HeldLog(log_id)
        return log

    def get(self, log_id: str, segment_id: int) -> Copy | None:
        """The copy, if it is here."""
        log = self.logs.get(log_id)
        return None if log is None else log.copies.get(segment_id)

    def floor(self, log_id: str) -> int:
        """Below it every request is answered GONE."""
        log = self.logs.get(log_id)
        return 0 if log is None else log.floor

    def add(self, log_id: str, segment_id: int, replica: Replica, now_ms: float) -> Copy:
        """A copy that was not here."""
        log = self.log(log_id)
        assert segment_id not in log.copies and segment_id >= log.floor
        copy = log.copies[segment_id] = Copy(log, segment_id, replica, now_ms)
        self.count += 1
        return copy

    def all(self) -> Iterator[Copy]:
        """Every copy; nothing may be added or dropped meanwhile."""
        return (copy for log in self.logs.values() for copy in log.copies.values())

    def stored(self, copy: Copy, header: BlockHeader, place: Place) -> None:
        """The next block of a copy is in the journal."""
        size = header.size_bytes
        if not copy.size_bytes:
            self.unsealed_segments += 1
        copy.index.append(header, place)
        copy.size_bytes += size
        self.unsealed_bytes += size
        self._use(copy, place[0], record_bytes(size))

    def adopt(self, copy: Copy, index: BlockIndex) -> None:
        """The blocks of a copy that has none yet, as they were found in the journal."""
        assert not copy.size_bytes
        copy.index = index
        for number in range(len(index)):
            size = index.size(number)
            copy.size_bytes += size
            self._use(copy, index.file(number), record_bytes(size))
        if copy.size_bytes:
            self.unsealed_segments += 1
            self.unsealed_bytes += copy.size_bytes

    def moved(self, copy: Copy, number: int, place: Place) -> None:
        """A block was written again elsewhere."""
        size = record_bytes(copy.index.size(number))
        old = copy.index.file(number)
        copy.index.move(number, place)
        self._use(copy, place[0], size)
        self._unuse(copy, old, size)

    def raise_floor(self, log: HeldLog, floor: int) -> list[Copy]:
        """Forget the copies below the floor; returns them."""
        log.floor = new_floor(log.floor, floor)
        dropped = [copy for number, copy in log.copies.items() if number < log.floor]
        for copy in dropped:
            self._drop(copy)
        if not log.copies:
            log.name = ""  # the floor is all that is kept of it
        return dropped

    def use(self, file: int) -> FileUse:
        """What a journal file is needed for."""
        use = self.uses.get(file)
        if use is None:
            use = self.uses[file] = FileUse()
        return use

    def _drop(self, copy: Copy) -> None:
        copy.is_dropped = True
        del copy.log.copies[copy.segment_id]
        self.count -= 1
        if copy.size_bytes:
            self.unsealed_segments -= 1
            self.unsealed_bytes -= copy.size_bytes
        for file, size in list(copy.spans.items()):
            self._unuse(copy, file, size)

    def _use(self, copy: Copy, file: int, size: int) -> None:
        use = self.uses.get(file) or self.use(file)
        use.live_bytes += size
        before = copy.spans.get(file)
        if before is None:
            use.copies[copy] = None
            copy.spans[file] = size
        else:
            copy.spans[file] = before + size

    def _unuse(self, copy: Copy, file: int, size: int) -> None:
        use = self.uses[file]
        use.live_bytes -= size
        copy.spans[file] -= size
        if not copy.spans[file]:
            del copy.spans[file]
            del use.copies[copy]


def record_bytes(block_bytes: int) -> int:
    """What a block takes in the journal."""
    return aligned(RECORD_BYTES + block_bytes)
