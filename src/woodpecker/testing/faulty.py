"""Stores that fail on purpose: wrappers around the ports, by script or by seeded chance.

What can befall a request: it is refused before anything happens (``UNAVAILABLE``), takes effect but the
answer is lost (``LOST``), vanishes without an answer (``DROPPED``), takes effect only later, after the
caller was told that nothing is known (``LATE``), or waits until the test lets it go on (``HELD``).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from woodpecker.codec.block import PackedBlock
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import End, Place, Segment
from woodpecker.errors import NotWritten, OutcomeUnknown, Unavailable
from woodpecker.metadata.base import Lease, MetadataStore, Record
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import (
    BlockSource,
    ReadManifest,
    Recovered,
    SegmentRef,
    SegmentStore,
    SegmentWriter,
)
from woodpecker.storage.base import Buffer, Feature, ObjectInfo, ObjectStore

T = TypeVar("T")

LATE_MS = 3_000.0
WRITES = ("create", "replace", "put", "remove")


class Fault(StrEnum):
    """See the module."""

    UNAVAILABLE = "unavailable"
    LOST = "lost"
    DROPPED = "dropped"
    LATE = "late"
    HELD = "held"


@dataclass
class Faults:
    """Decides what befalls each request of the stores that share it.

    Args:
        rate: chance of a fault per write; reads only meet ``UNAVAILABLE``, a quarter as often.
        max_delay_ms: every request takes a random time up to this, half before and half after it.
    """

    runtime: Runtime
    seed: int = 0
    rate: float = 0.0
    max_delay_ms: float = 0.0
    is_away: bool = False  # every request is refused
    injected: Counter[Fault] = field(default_factory=Counter)
    requests: list[tuple[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)  # lets HELD requests go on

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._script: list[tuple[str, str, Fault]] = []

    def script(self, op: str, fault: Fault, *, key: str = "", times: int = 1) -> None:
        """The next ``times`` requests of ``op`` whose key contains ``key`` meet ``fault``."""
        self._script.extend([(op, key, fault)] * times)

    def calm(self) -> None:
        """No more faults."""
        self._script.clear()
        self.rate, self.max_delay_ms, self.is_away = 0.0, 0.0, False
        self.gate.set()

    async def around(self, op: str, key: str, request: Callable[[], Awaitable[T]]) -> T:
        """Send ``request``, or what is left of it."""
        self.requests.append((op, key))
        fault = self._choose(op, key)
        if fault is not None:
            self.injected[fault] += 1
        await self._pause()
        if fault is Fault.UNAVAILABLE:
            raise Unavailable(f"{op} {key}: refused, nothing happened")
        if fault is Fault.HELD:
            await self.gate.wait()
        if fault is Fault.DROPPED:
            raise OutcomeUnknown(f"{op} {key}: no answer")
        if fault is Fault.LATE:
            self.runtime.spawn(self._later(request), f"late {op} {key}")
            raise OutcomeUnknown(f"{op} {key}: no answer yet")
        answer = await request()
        await self._pause()
        if fault is Fault.LOST:
            raise OutcomeUnknown(f"{op} {key}: the answer was lost")
        return answer

    def _choose(self, op: str, key: str) -> Fault | None:
        if self.is_away:
            return Fault.UNAVAILABLE
        for index, (wanted, part, fault) in enumerate(self._script):
            if wanted == op and part in key:
                del self._script[index]
                return fault
        if self.rate and self._rng.random() < self.rate:
            if op in WRITES:
                kinds = (Fault.UNAVAILABLE, Fault.LOST, Fault.DROPPED, Fault.LATE)
                return self._rng.choice(kinds)
            return Fault.UNAVAILABLE if self._rng.random() < 0.25 else None
        return None

    async def _later(self, request: Callable[[], Awaitable[Any]]) -> None:
        await self.runtime.sleep_ms(self._rng.random() * LATE_MS)
        await asyncio.gather(request(), return_exceptions=True)

    async def _pause(self) -> None:
        if self.max_delay_ms:
            await self.runtime.sleep_ms(self._rng.random() * self.max_delay_ms / 2)


class FaultyObjectStore:
    """An ``ObjectStore`` whose requests go through ``faults``."""

    def __init__(self, inner: ObjectStore, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    @property
    def url(self) -> str:
        return self.inner.url

    async def create(self, key: str, data: Buffer) -> str:
        kept = bytes(data)
        return await self.faults.around("create", key, lambda: self.inner.create(key, kept))

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        return await self.faults.around(
            "replace", key, lambda: self.inner.replace(key, data, etag=etag)
        )

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        return await self.faults.around(
            "get", key, lambda: self.inner.get(key, start=start, length=length)
        )

    async def head(self, key: str) -> ObjectInfo | None:
        return await self.faults.around("head", key, lambda: self.inner.head(key))

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        async def all_pages() -> list[Sequence[ObjectInfo]]:
            return [page async for page in self.inner.list(prefix, start_after=start_after)]

        for page in await self.faults.around("list", prefix, all_pages):
            yield page

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        return await self.inner.write_stream(key, parts)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.faults.around("delete", " ".join(keys), lambda: self.inner.delete(keys))

    async def probe(self, feature: Feature) -> str | None:
        return await self.inner.probe(feature)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)

    async def clock_ms(self) -> int | None:
        return await self.inner.clock_ms()

    async def close(self) -> None:
        await self.inner.close()


class FaultyMetadata:
    """A ``MetadataStore`` whose reads and writes go through ``faults``."""

    def __init__(self, inner: MetadataStore, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    @property
    def url(self) -> str:
        return self.inner.url

    async def get(self, key: str) -> Record | None:
        return await self.faults.around("read", key, lambda: self.inner.get(key))

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        return await self.faults.around(
            "put", key, lambda: self.inner.put(key, value, expect=expect)
        )

    async def remove(self, key: str, *, expect: str) -> bool:
        return await self.faults.around(
            "remove", key, lambda: self.inner.remove(key, expect=expect)
        )

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        return await self.faults.around(
            "list", prefix, lambda: self.inner.list(prefix, start_after=start_after, limit=limit)
        )

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        await self.inner.wait_change(key, version, timeout_ms)

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        return await self.inner.acquire_lease(key, holder, ttl_ms)

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class SegmentFaults:
    """What befalls the segments of a ``FaultySegments``; set and changed by the test at any time."""

    cut_bytes: int | None = None  # small blocks, so that many are in flight
    is_full: bool = False  # no room: prepare and reserve answer NotWritten
    fails_from: int | None = None  # blocks of this number and later fail with ``error``
    error: Exception = field(default_factory=lambda: OutcomeUnknown("the disk failed"))
    is_held: bool = False  # blocks are kept back until ``let_go``
    held: list[Callable[[], None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)  # numbers of the blocks handed over
    left: list[str] = field(default_factory=list)  # "finish" or "abandon", in order

    def let_go(self) -> None:
        """Answer the blocks kept back, in their order, and keep none back any more."""
        self.is_held = False
        held, self.held = self.held, []
        for answer in held:
            answer()


class FaultySegments:
    """A ``SegmentStore`` with a disk that can be full, slow, or break at a block."""

    def __init__(self, inner: SegmentStore, faults: SegmentFaults) -> None:
        self.inner = inner
        self.faults = faults
        self.kind: Kind = inner.kind

    async def prepare(
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[Place | None, SegmentWriter]:
        if self.faults.is_full:
            raise NotWritten("the disk is full: make room")
        place, writer = await self.inner.prepare(
            log_id, segment, read_manifest=read_manifest, timeout_ms=timeout_ms
        )
        return place, FaultySegmentWriter(writer, self.faults)

    async def recover(self, ref: SegmentRef, *, token: str) -> Recovered:
        return await self.inner.recover(ref, token=token)

    async def salvage(self, ref: SegmentRef, *, token: str) -> Recovered:
        return await self.inner.salvage(ref, token=token)

    def source(self, ref: SegmentRef) -> BlockSource:
        return self.inner.source(ref)

    async def seal_in_place(
        self, ref: SegmentRef, tail: bytes, at: int, objects: ObjectStore, key: str
    ) -> bool:
        return await self.inner.seal_in_place(ref, tail, at, objects, key)

    async def hand_over(self, ref: SegmentRef) -> bool:
        return await self.inner.hand_over(ref)

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        await self.inner.drop(ref, keep_fence=keep_fence)

    async def held(self, log_id: str) -> Sequence[tuple[int, str]]:
        return await self.inner.held(log_id)

    async def close(self) -> None:
        await self.inner.close()


class FaultySegmentWriter:
    """The open end of one segment of a ``FaultySegments``."""

    def __init__(self, inner: SegmentWriter, faults: SegmentFaults) -> None:
        self._inner = inner
        self._faults = faults
        self.cut_bytes = inner.cut_bytes if faults.cut_bytes is None else faults.cut_bytes
        self.partial_slots = inner.partial_slots
        self.bytes_left = inner.bytes_left

    @property
    def slots(self) -> int:
        return self._inner.slots

    @property
    def wants_roll(self) -> bool:
        return self._inner.wants_roll

    @property
    def on_roll(self) -> Callable[[], None] | None:
        return self._inner.on_roll

    @on_roll.setter
    def on_roll(self, on_roll: Callable[[], None] | None) -> None:
        self._inner.on_roll = on_roll

    def begin(self, segment: Segment) -> None:
        self._inner.begin(segment)

    def allocate(self, size_bytes: int) -> memoryview | None:
        return self._inner.allocate(size_bytes)

    def reserve(self, size_bytes: int) -> None:
        if self._faults.is_full:
            raise NotWritten("the disk is full: make room")
        self._inner.reserve(size_bytes)

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        faults = self._faults
        number = block.header.number
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if faults.fails_from is not None and number >= faults.fails_from:
            answer.set_exception(faults.error)
            return answer
        faults.sent.append(number)
        real = self._inner.submit(block)
        if faults.is_held:
            faults.held.append(lambda: real.add_done_callback(lambda _: _copy(real, answer)))
        else:
            real.add_done_callback(lambda _: _copy(real, answer))
        return answer

    async def finish(self, end: End) -> None:
        self._faults.left.append("finish")
        await self._inner.finish(end)

    async def abandon(self) -> None:
        self._faults.left.append("abandon")
        await self._inner.abandon()


def _copy(source: asyncio.Future[None], target: asyncio.Future[None]) -> None:
    if target.done():
        return
    error = source.exception()
    if error is None:
        target.set_result(None)
    else:
        target.set_exception(error)
