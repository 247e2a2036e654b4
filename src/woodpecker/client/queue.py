"""A writer's queue: entries get their seq here and wait in drafts until they are cut into blocks.

Bounded in bytes; one item is always admitted when the queue is empty. Everything is synchronous: a
seq is given out, and its place in the log's order taken, in one go.

Single entries without columns go the quick way: room is granted to the draft that is filling, and while
it lasts an entry costs a comparison and two appends. ``settle`` adds up what came in before anything
else looks at the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from woodpecker.client.entry import NO_TIME, Entry
from woodpecker.codec.columns import Headers
from woodpecker.core.batcher import BatchMark, Draft, HeaderList
from woodpecker.core.ids import MAX_BATCH_BYTES, MAX_PAYLOAD_BYTES
from woodpecker.core.register import Control
from woodpecker.core.timestamps import stamp
from woodpecker.errors import InvalidRequest, Overloaded

ENTRY_OVERHEAD_BYTES = 64  # what a queued entry costs besides its payload, about
MAX_BATCH_ENTRIES = 1 << 20
MAX_HEADERS_BYTES = 64 << 20

Result = int | range

_WITHOUT_STAMPS = ("prefer", "arrival")  # policies under which an entry may take its block's time
_CLOSED = -1


class Pending(Draft):
    """A draft with those who wait for it."""

    __slots__ = ("before_us", "first_ms", "futures", "is_urgent", "queued_bytes", "results")

    def __init__(self, base_seq: int, first_ms: float, before_us: int) -> None:
        super().__init__(base_seq)
        self.first_ms = first_ms  # when its first entry came, for linger
        self.before_us = before_us  # the newest supplied timestamp before its entries
        self.futures: list[asyncio.Future[Result]] = []
        self.results: list[Result] = []
        self.queued_bytes = 0
        self.is_urgent = False  # a flush waits: no linger

    def attach(self, future: asyncio.Future[Result], result: Result) -> None:
        """``future`` gets ``result`` once the draft is durable."""
        self.futures.append(future)
        self.results.append(result)

    def resolve(self) -> None:
        """Every entry is durable."""
        for future, result in zip(self.futures, self.results, strict=True):
            if not future.done():
                future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """No entry gets a better answer than ``error``."""
        for future in self.futures:
            if not future.done():
                future.set_exception(error)
                future.exception()  # who submitted without looking is not shouted at


class Queue:
    """Drafts in order: the last one takes entries, the first one is cut next."""

    def __init__(
        self,
        *,
        next_seq: int,
        last_timestamp_us: int,
        max_bytes: int,
        cut_bytes: int,
        policy: str,
        now_us: Callable[[], int],
        now_ms: Callable[[], float],
    ) -> None:
        self.has_line = False  # appends wait for room: nobody overtakes them
        self._next_seq = next_seq
        self.last_timestamp_us = last_timestamp_us  # newest supplied one, judged by the policy
        self.max_bytes = max_bytes
        self.cut_bytes = cut_bytes
        self.policy = policy
        self._bytes = 0
        self.refused_bytes = ENTRY_OVERHEAD_BYTES  # largest item refused since ``ready`` was asked
        self.drafts: deque[Pending] = deque()
        self._now_us = now_us
        self._now_ms = now_ms
        self._filling: Pending | None = None
        self._granted = self._left = _CLOSED  # room of the quick way, and what is left of it
        self._add_payload: Callable[[bytes], None]
        self._add_future: Callable[[asyncio.Future[Result]], None]

    @property
    def next_seq(self) -> int:
        """The seq of the next entry put in."""
        self.settle()
        return self._next_seq

    @property
    def taken_bytes(self) -> int:
        """Room taken by all that is in the queue or held for those let in."""
        self.settle()
        return self._bytes

    # --- the quick way ---

    def put_plain(self, payload: bytes, future: asyncio.Future[Result]) -> bool:
        """Sequence one entry without headers or timestamp; False: use ``put``. The hot path."""
        left = self._left - len(payload) - ENTRY_OVERHEAD_BYTES
        if left < 0:
            return False
        self._left = left
        self._add_payload(payload)
        self._add_future(future)
        return True

    def settle(self) -> None:
        """Count what came in by the quick way."""
        used = self._granted - self._left
        if not used:
            return
        self._granted = self._left
        draft = self._filling
        assert draft is not None
        count = len(draft.futures) - len(draft.results)
        draft.results.extend(range(self._next_seq, self._next_seq + count))
        draft.payload_bytes += used - ENTRY_OVERHEAD_BYTES * count
        draft.queued_bytes += used
        self._next_seq += count
        self._bytes += used

    def close_quick_way(self) -> None:
        """Entries are looked at one by one again."""
        self.settle()
        self._granted = self._left = _CLOSED

    def _open_quick_way(self) -> None:
        """Grant the draft that is filling what room there is now; more may come, none goes."""
        draft = self._filling
        if draft is None or draft.headers is not None or draft.timestamps is not None:
            return
        if self.has_line or self.policy not in _WITHOUT_STAMPS:
            return
        left = min(
            self.max_bytes - self._bytes,
            self.cut_bytes - draft.payload_bytes,
            self.cut_bytes * 2 - draft.queued_bytes,  # very small entries: bound their number
        )
        self._granted = self._left = max(left, _CLOSED)
        self._add_payload = draft.payloads.append
        self._add_future = draft.futures.append

    # --- putting in ---

    def has_room(self, size_bytes: int) -> bool:
        """Whether an item of this size, its overhead included, is admitted now."""
        return self.taken_bytes == 0 or self.taken_bytes + size_bytes <= self.max_bytes

    def check_room(self, size_bytes: int) -> None:
        """Raises: Overloaded: an item of this size, its overhead included, is not admitted now."""
        if not self.has_room(size_bytes):
            raise self.overloaded(size_bytes)

    def overloaded(self, size_bytes: int) -> Overloaded:
        """What to raise for an item that is not admitted now; ``ready`` waits for as much room."""
        self.refused_bytes = max(self.refused_bytes, size_bytes)
        return Overloaded(
            f"the writer's queue holds {self.taken_bytes} of {self.max_bytes} bytes; "
            "wait with writer.ready(), or use append, which waits by itself"
        )

    def hold(self, size_bytes: int) -> None:
        """Keep room for somebody who is let in; negative: he has come."""
        self._bytes += size_bytes

    def put(
        self,
        payloads: Sequence[bytes],
        future: asyncio.Future[Result],
        *,
        payload_bytes: int,
        result: Result,
        headers: Sequence[HeaderList] | None = None,
        timestamps: Sequence[int | None] | None = None,
        mark: BatchMark | None = None,
    ) -> None:
        """Sequence entries that belong together: all in one block, contiguous.

        Raises:
            Overloaded: the queue is full. InvalidRequest: a timestamp the policy refuses.
            Nothing has happened then.
        """
        self.close_quick_way()
        size = cost_of(payload_bytes, len(payloads), headers)
        self.check_room(size)
        stamps = self._stamps(len(payloads), timestamps)
        draft = self._draft_for(payload_bytes, is_stamped=stamps is not None)
        self._add_columns(draft, len(payloads), headers, stamps)
        if mark is not None:
            draft.batches.append(_moved(mark, len(draft.payloads)))
        draft.payloads.extend(payloads)
        draft.payload_bytes += payload_bytes
        draft.attach(future, result)
        draft.queued_bytes += size
        self._next_seq += len(payloads)
        self._bytes += size
        self._open_quick_way()

    def attach(self, future: asyncio.Future[Result]) -> None:
        """``future`` gets an answer with the last draft there is."""
        self.settle()
        self.drafts[-1].attach(future, 0)

    def put_control(self, control: Control, future: asyncio.Future[Result]) -> None:
        """Add a control; it takes effect in front of the entries of its block, so it starts one."""
        self.close_quick_way()
        draft = self._draft_for(self.cut_bytes, is_stamped=False)
        draft.controls.append(control)
        draft.attach(future, self._next_seq)
        self._filling = None

    def _stamps(self, count: int, supplied: Sequence[int | None] | None) -> list[int] | None:
        """Timestamps to store, or None: all take the time of their block."""
        if supplied is None and self.policy in _WITHOUT_STAMPS:
            return None
        previous = self.last_timestamp_us
        if (
            self.policy == "exact"
            and isinstance(supplied, range)
            and supplied.step == 1
            and previous <= supplied[0]
            and supplied[-1] < 1 << 63
        ):  # no look at each
            self.last_timestamp_us = supplied[-1]
            return list(supplied)
        clock = self._now_us()
        stamps = []
        for value in supplied if supplied is not None else [None] * count:
            previous = stamp(self.policy, previous_us=previous, supplied_us=value, clock_us=clock)
            stamps.append(previous)
        self.last_timestamp_us = previous
        return stamps

    def _draft_for(self, payload_bytes: int, *, is_stamped: bool) -> Pending:
        """The draft that can take ``payload_bytes`` more; an item above the cut size gets its own.

        Entries without a timestamp take the time of their block, so the first one that has a
        timestamp of its own begins a new draft.
        """
        draft = self._filling
        if draft is None or (
            (draft.payloads or draft.batches)
            and (
                draft.payload_bytes + payload_bytes > self.cut_bytes
                or draft.queued_bytes >= self.cut_bytes * 2
                or (is_stamped and draft.timestamps is None)
            )
        ):
            draft = Pending(self._next_seq, self._now_ms(), self.last_timestamp_us)
            self.drafts.append(draft)
        self._filling = draft if payload_bytes < self.cut_bytes else None
        return draft

    def _add_columns(
        self,
        draft: Pending,
        count: int,
        headers: Sequence[HeaderList] | None,
        stamps: list[int] | None,
    ) -> None:
        """Keep one item per entry in each column that exists."""
        if headers is not None and draft.headers is None:
            draft.headers = [()] * draft.count
        if draft.headers is not None:
            draft.headers.extend(headers if headers is not None else [()] * count)
        if stamps is not None and draft.timestamps is None:
            draft.timestamps = []
        if draft.timestamps is not None:
            draft.timestamps.extend(stamps if stamps is not None else [self._now_us()] * count)

    # --- taking out ---

    def is_full(self) -> bool:
        """Whether the first draft takes no more entries."""
        self.settle()
        return self.drafts[0] is not self._filling or self.drafts[0].payload_bytes >= self.cut_bytes

    def pop(self) -> Pending:
        """The first draft, to be cut into a block."""
        draft = self.drafts.popleft()
        if draft is self._filling:
            self.close_quick_way()
            self._filling = None
        return draft

    def put_back(self, drafts: Sequence[Pending]) -> None:
        """Drafts that were popped and are not in the log go first again, with their seqs."""
        self.drafts.extendleft(reversed(drafts))

    def release(self, draft: Pending) -> None:
        """The draft's entries are durable or have failed: their room is free."""
        self._bytes -= draft.queued_bytes

    def refuse_all(self, error: BaseException) -> None:
        """Fail everything that was never handed to a store; its seqs are given out again."""
        if not self.drafts:
            return
        self.close_quick_way()
        self._next_seq = self.drafts[0].base_seq
        self.last_timestamp_us = self.drafts[0].before_us
        self._filling = None
        while self.drafts:
            draft = self.drafts.popleft()
            self.release(draft)
            draft.fail(error)


def cost_of(payload_bytes: int, count: int, headers: Sequence[HeaderList] | None = None) -> int:
    """What ``count`` entries take of a queue's room.

    Raises: InvalidRequest: more than a block can hold, judged before anybody waits for room.
    """
    if count > MAX_BATCH_ENTRIES:
        raise InvalidRequest(f"a batch of {count} entries: at most {MAX_BATCH_ENTRIES}; split it")
    if payload_bytes > MAX_BATCH_BYTES:
        raise InvalidRequest(
            f"a batch of {payload_bytes} bytes: at most {MAX_BATCH_BYTES} (128 MiB); split it"
        )
    size = payload_bytes + ENTRY_OVERHEAD_BYTES * count
    if headers is None:
        return size
    header_bytes = sum(len(name) + len(value) + 8 for pairs in headers for name, value in pairs)
    if header_bytes > MAX_HEADERS_BYTES:
        raise InvalidRequest(f"headers above {MAX_HEADERS_BYTES} bytes in one append are refused")
    return size + header_bytes


def _moved(mark: BatchMark, first: int) -> BatchMark:
    return BatchMark(
        first=first,
        count=mark.count,
        producer=mark.producer,
        producer_epoch=mark.producer_epoch,
        sequence=mark.sequence,
        column=mark.column,
    )


def as_payload(value: object) -> bytes:
    """The bytes of a payload; mutable buffers are copied so that they cannot change in the queue.

    Raises:
        InvalidRequest: not bytes-like, or longer than 64 MiB.
    """
    if type(value) is not bytes:
        if isinstance(value, str):
            raise InvalidRequest("a payload must be bytes-like, not str: encode it first")
        try:
            value = bytes(memoryview(value))  # type: ignore[arg-type]
        except (TypeError, BufferError, ValueError):
            raise InvalidRequest(
                f"a payload must be bytes-like, not {type(value).__name__}"
            ) from None
    if len(value) > MAX_PAYLOAD_BYTES:
        raise InvalidRequest(
            f"payload of {len(value)} bytes: at most {MAX_PAYLOAD_BYTES} (64 MiB) are allowed"
        )
    return value


def columns_of(
    entries: Iterable[bytes | bytearray | memoryview | Entry],
) -> tuple[list[bytes], int, list[Headers] | None, list[int | None] | None]:
    """Payloads, their size, headers and timestamps; for plain bytes no Python code runs per entry."""
    if isinstance(entries, bytes | bytearray | memoryview | str | Entry):
        raise InvalidRequest("append_many takes a list of payloads, not one payload")
    if not isinstance(entries, list | tuple):
        entries = list(entries)
    kinds = set(map(type, entries))
    if kinds <= {bytes}:
        size = sum(map(len, entries))
        if size <= MAX_PAYLOAD_BYTES or max(map(len, entries)) <= MAX_PAYLOAD_BYTES:
            return list(entries), size, None, None
    if Entry not in kinds:
        payloads = [as_payload(payload) for payload in entries]
        return payloads, sum(map(len, payloads)), None, None
    items = [entry if isinstance(entry, Entry) else Entry(entry) for entry in entries]
    headers = [item.headers for item in items]
    stamps = [None if item.timestamp_us == NO_TIME else item.timestamp_us for item in items]
    payloads = [as_payload(item.payload) for item in items]
    return (
        payloads,
        sum(map(len, payloads)),
        headers if any(headers) else None,
        stamps if any(stamp is not None for stamp in stamps) else None,
    )
