"""A log in memory whose stores can be killed: after any call to a port the process is as good as dead.

``World`` is what survives (bucket and records); ``World.env`` is one process. A process given
``kill_at=n`` dies at its n-th write: just before it takes effect, or just after, unanswered.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from woodpecker.client.environment import Environment
from woodpecker.client.log import Log
from woodpecker.client.reader import read
from woodpecker.codec import endmark, keys
from woodpecker.core.commands import CreateLog
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Manifest, Options
from woodpecker.core.transitions import check
from woodpecker.errors import InvalidRequest
from woodpecker.metadata.base import Lease, Record
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import SILENT
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.base import SegmentStore
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.base import Buffer, Feature, ObjectInfo, ObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore

NAME = "orders"


class Killed(BaseException):
    """The process is gone; nothing may catch this."""


class ClockRuntime(SystemRuntime):
    """The real one with a wall clock that a test can move."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.ahead_us


class Killer:
    """Counts writes; the one to die at never answers."""

    def __init__(self, kill_at: int | None, *, after: bool) -> None:
        self.kill_at = kill_at
        self.after = after
        self.writes = 0
        self.is_dead = False

    def check(self) -> None:
        if self.is_dead:
            raise Killed

    def before_write(self) -> None:
        self.check()
        self.writes += 1
        if self.writes == self.kill_at and not self.after:
            self.is_dead = True
            raise Killed

    def after_write(self) -> None:
        if self.writes == self.kill_at:
            self.is_dead = True
            raise Killed


class KillableObjects:
    """An object store of a process that may die."""

    def __init__(self, inner: MemoryObjectStore, killer: Killer) -> None:
        self._inner = inner
        self._killer = killer
        self.url = inner.url

    async def create(self, key: str, data: Buffer) -> str:
        self._killer.before_write()
        etag = await self._inner.create(key, data)
        self._killer.after_write()
        return etag

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        raise AssertionError("no record lies in this store")

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        self._killer.check()
        return await self._inner.get(key, start=start, length=length)

    async def head(self, key: str) -> ObjectInfo | None:
        self._killer.check()
        return await self._inner.head(key)

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        self._killer.check()
        async for page in self._inner.list(prefix, start_after=start_after):
            yield page

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        self._killer.before_write()
        size = await self._inner.write_stream(key, parts)
        self._killer.after_write()
        return size

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:  # a bulk delete may be cut anywhere
            self._killer.before_write()
            await self._inner.delete([key])
            self._killer.after_write()

    async def probe(self, feature: Feature) -> str | None:
        return await self._inner.probe(feature)

    def local_path(self, key: str) -> Path | None:
        return None

    async def clock_ms(self) -> int | None:
        return await self._inner.clock_ms()

    async def close(self) -> None:
        await self._inner.close()


class KillableMetadata:
    """A metadata store of a process that may die."""

    def __init__(self, inner: MemoryMetadata, killer: Killer) -> None:
        self._inner = inner
        self._killer = killer
        self.url = inner.url

    async def get(self, key: str) -> Record | None:
        self._killer.check()
        return await self._inner.get(key)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        self._killer.before_write()
        version = await self._inner.put(key, value, expect=expect)
        self._killer.after_write()
        return version

    async def remove(self, key: str, *, expect: str) -> bool:
        self._killer.before_write()
        done = await self._inner.remove(key, expect=expect)
        self._killer.after_write()
        return done

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        self._killer.check()
        return await self._inner.list(prefix, start_after=start_after, limit=limit)

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        await self._inner.wait_change(key, version, timeout_ms)

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        return await self._inner.acquire_lease(key, holder, ttl_ms)

    async def close(self) -> None:
        await self._inner.close()


class MemoryPlaces:
    """One bucket, kind object."""

    def __init__(self, objects: ObjectStore, segments: SegmentStore) -> None:
        self._objects = objects
        self._segments = segments
        self.default_kind = Kind.OBJECT

    def objects(self, storage: str) -> ObjectStore:
        return self._objects

    def segments(self, kind: Kind, storage: str) -> SegmentStore:
        self.check_kind(kind, storage)
        return self._segments

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is not Kind.OBJECT:
            raise InvalidRequest(f"no segments of kind {kind} in memory")

    async def admit(self, storage: str) -> str:
        return storage


@dataclass(slots=True, kw_only=True)
class Env(Environment):
    """An environment that remembers its world, and what kills it."""

    world: World
    killer: Killer


class World:
    """What survives every process."""

    def __init__(self) -> None:
        self.bucket = MemoryBucket()
        self.records = MemoryRecords()
        self.runtime = ClockRuntime()

    def copy(self) -> World:
        """The same state, for another history."""
        other = World()
        other.bucket.objects = dict(self.bucket.objects)
        other.bucket.writes = self.bucket.writes
        other.records.by_key = dict(self.records.by_key)
        other.records.keys = list(self.records.keys)
        other.records.writes = self.records.writes
        other.runtime.ahead_us = self.runtime.ahead_us
        return other

    def env(self, kill_at: int | None = None, *, after: bool = False) -> Env:
        """A new process."""
        killer = Killer(kill_at, after=after)
        objects = KillableObjects(MemoryObjectStore(self.bucket, self.runtime), killer)
        metadata = KillableMetadata(MemoryMetadata(self.runtime, self.records), killer)
        return Env(
            world=self,
            killer=killer,
            url="memory://",
            runtime=self.runtime,
            observer=SILENT,
            catalog=Catalog(metadata, self.runtime),
            places=MemoryPlaces(objects, ObjectSegments(objects, self.runtime)),
        )


async def create(env: Environment, name: str = NAME, **options: Any) -> Log:
    """A new log with segments as small as they may be."""
    settings = Options(mode=Kind.OBJECT, segment_max_bytes=64 << 10, **options)
    command = CreateLog(
        name=name, log_id=env.runtime.token(), now_ms=1, options=settings, attributes={}
    )
    manifest = await env.catalog.change(name, command)
    return Log(env, name, manifest.log_id)


async def fill(log: Log, segments: int, *, first: int = 0, close: bool = True) -> int:
    """Write so many full segments, 4 entries each; returns the next seq."""
    writer = await log.open_writer()
    seq = first
    for _ in range(segments):
        for _ in range(4):
            assert await writer.append(payload(seq), timestamp_us=1_000_000 + seq) == seq
            seq += 1
    if close:
        await writer.close()
    return seq


def payload(seq: int) -> bytes:
    return f"{seq:08d}".encode() * 2048  # 16 KiB


async def entries(env: Environment, log: Log) -> list[tuple[int, bytes]]:
    return [(e.seq, e.payload) async for e in read(env, log.name, log.log_id)]


async def check_sound(env: Environment, log: Log, *, next_seq: int) -> Manifest:
    """Everything from the trim point on is there; manifest and chain are sound."""
    manifest = await env.catalog.read(log.name)
    assert check(manifest) is None
    found = await entries(env, Log(env, log.name, log.log_id))
    assert found == [(seq, payload(seq)) for seq in range(manifest.trim_point, next_seq)]
    await Log(env, log.name, log.log_id).verify()
    return manifest


async def orphans(env: Environment, world: World, log: Log) -> list[str]:
    """Objects of the log that the manifest does not need."""
    manifest = await env.catalog.read(log.name)
    needed = {manifest.register_key, manifest.anchor.register_key}
    needed |= {page.key for page in manifest.pages}
    needed |= {page.key async for page in env.history(manifest).inner_pages(manifest)}
    blocks_of = set()
    async for segment in env.segments(manifest):
        if segment.sealed is not None:
            needed.add(segment.sealed.key)
        else:
            blocks_of.add(segment.id)
    left = []
    for key, stored in world.bucket.objects.items():
        what = keys.parse_object(key)
        if isinstance(what, keys.BlockKey) and (
            endmark.is_mark_size(len(stored.data)) or what.segment_id in blocks_of
        ):
            continue
        if key.startswith(log.log_id) and key not in needed:
            left.append(key)
    return left
