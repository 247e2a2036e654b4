"""A store in memory with faults to order, and as many clients of it as a test needs, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from woodpecker.client.environment import Environment
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.core.commands import CreateLog
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Manifest, Options
from woodpecker.core.options import make_options
from woodpecker.core.transitions import check
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import SILENT
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.faulty import (
    Faults,
    FaultyMetadata,
    FaultyObjectStore,
    FaultySegments,
    SegmentFaults,
)
from woodpecker.testing.virtual import VirtualRuntime

NAME = "orders"


class Site:
    """One client (a process) with its own view of the stores, and its own faults."""

    def __init__(self, world: World, number: int) -> None:
        self.runtime = VirtualRuntime(world.seed * 1000 + number)
        self.on_objects = Faults(self.runtime, seed=world.seed * 31 + number)
        self.on_metadata = Faults(self.runtime, seed=world.seed * 37 + number)
        self.disk = SegmentFaults()
        self._store = FaultyObjectStore(MemoryObjectStore(world.bucket), self.on_objects)
        self._segments = FaultySegments(ObjectSegments(self._store, self.runtime), self.disk)
        store = FaultyMetadata(MemoryMetadata(self.runtime, world.records), self.on_metadata)
        self.env = Environment(
            url="memory://test",
            runtime=self.runtime,
            observer=SILENT,
            catalog=Catalog(store, self.runtime),
            places=self,
        )

    # --- Places ---

    @property
    def default_kind(self) -> Kind:
        return Kind.OBJECT

    def objects(self, storage: str) -> FaultyObjectStore:
        return self._store

    def segments(self, kind: Kind, storage: str) -> FaultySegments:
        return self._segments

    def check_kind(self, kind: Kind, storage: str) -> None:
        """Everything goes."""

    async def admit(self, storage: str) -> str:
        return storage


class World:
    """Bucket, metadata and one log; ``sites`` come to be as they are asked for."""

    def __init__(self, seed: int = 0, **options: object) -> None:
        self.seed = seed
        self.bucket = MemoryBucket()
        self.records = MemoryRecords()
        self.options = make_options(Options(), options)
        self.log_id = f"{seed:032x}"
        self._sites: dict[int, Site] = {}

    def site(self, number: int = 0) -> Site:
        if number not in self._sites:
            self._sites[number] = Site(self, number)
        return self._sites[number]

    async def create(self) -> World:
        """Create the log."""
        command = CreateLog(
            name=NAME, log_id=self.log_id, now_ms=0, options=self.options, attributes={}
        )
        await self.site(99).env.catalog.change(NAME, command)
        return self

    def log(self, number: int = 0) -> Log:
        return Log(self.site(number).env, NAME, self.log_id)

    async def writer(self, number: int = 0, **kwargs: Any) -> Any:  # tests call it wrongly, too
        return await self.log(number).open_writer(**kwargs)

    async def manifest(self) -> Manifest:
        """As a client without faults reads it; its invariants hold."""
        manifest = await self.site(99).env.catalog.read(NAME)
        assert check(manifest) is None
        return manifest

    async def entries(self, start: int = 0) -> list[bytes]:
        """Payloads of all that a fresh reader sees, in order; seqs are dense and times never fall."""
        found: list[bytes] = []
        time_us = 0
        async for entry in self.log(98).read(start):
            assert entry.seq == start + len(found)
            assert entry.timestamp_us >= time_us
            time_us = entry.timestamp_us
            found.append(entry.payload)
        return found

    def calm(self) -> None:
        for site in self._sites.values():
            site.on_objects.calm()
            site.on_metadata.calm()

    def running(self) -> list[str]:
        return [name for site in self._sites.values() for name in site.runtime.running()]


@asynccontextmanager
async def a_world(seed: int = 0, **options: object) -> AsyncIterator[World]:
    """A world with its log; at the end no task may be left."""
    world = await World(seed, **options).create()
    yield world
    for _ in range(3):
        await asyncio.sleep(0)
    left = [name for name in world.running() if not name.startswith("late ")]
    assert left == [], f"tasks left: {left}"


def idle(writer: LogWriter) -> None:
    """I8: nothing is counted as pending any more."""
    pump = writer._pump
    assert pump.queue.taken_bytes == 0
    assert not pump.queue.drafts
    assert not pump._in_flight
    assert pump.room._entering == 0
    assert not pump.room._line
