"""A cluster as it is in production, but for the network, the disks, the stores and time: all simulated.

Each node is the real one: journal, keeper, session, a client of its own.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from woodpecker.client.environment import Environment
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.core.commands import CreateLog
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Manifest, Options
from woodpecker.core.membership import NodeRecord, NodeState
from woodpecker.errors import InvalidRequest, WoodpeckerError
from woodpecker.logstore.keeper import NodeKeeper
from woodpecker.logstore.node import Node
from woodpecker.logstore.settings import NodeSettings
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.metadata.node_session import NodeSession
from woodpecker.metadata.nodes import NodeDirectory
from woodpecker.observability.base import SILENT
from woodpecker.rpc.memory import MemoryNetwork
from woodpecker.segments.base import SegmentStore
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.storage.base import ObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.faulty import Faults, FaultyMetadata, FaultyObjectStore
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime

FILE_BYTES = 1 << 20


class QuorumPlaces:
    """One bucket and the nodes."""

    default_kind = Kind.QUORUM

    def __init__(self, objects: ObjectStore, segments: QuorumSegments) -> None:
        self._objects = objects
        self._segments = segments

    def objects(self, storage: str) -> ObjectStore:
        return self._objects

    def segments(self, kind: Kind, storage: str) -> SegmentStore:
        self.check_kind(kind, storage)
        return self._segments

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is not Kind.QUORUM:
            raise InvalidRequest(f"no segments of kind {kind} here")

    async def admit(self, storage: str) -> str:
        return storage


@dataclass
class Process:
    """What one process of the cluster, node or client, has open."""

    env: Environment
    directory: NodeDirectory
    metadata: Faults  # what befalls its requests
    objects: Faults
    parts: AsyncExitStack = field(default_factory=AsyncExitStack)
    node: Node | None = None
    keeper: NodeKeeper | None = None
    session: NodeSession | None = None
    lost: list[str] = field(default_factory=list)


class Fleet:
    """Everything; nodes and clients come and go."""

    def __init__(self) -> None:
        self.runtime = VirtualRuntime()
        self.network = MemoryNetwork(self.runtime)
        self.bucket = MemoryBucket()
        self._records = MemoryRecords()
        self.disks: dict[str, SimDisk] = {}
        self.processes: dict[str, Process] = {}
        self.records = NodeRecords(MemoryMetadata(self.runtime, self._records), self.runtime)

    def _open(self, name: str) -> Process:
        metadata, faults = Faults(self.runtime), Faults(self.runtime)
        records = FaultyMetadata(MemoryMetadata(self.runtime, self._records), metadata)
        objects = FaultyObjectStore(MemoryObjectStore(self.bucket, self.runtime), faults)
        directory = NodeDirectory(records, self.runtime)
        transport = self.network.transport(name)
        segments = QuorumSegments(directory, transport, self.runtime)
        env = Environment(
            url="memory://",
            runtime=self.runtime,
            observer=SILENT,
            catalog=Catalog(records, self.runtime),
            places=QuorumPlaces(objects, segments),
        )
        process = Process(env=env, directory=directory, metadata=metadata, objects=faults)
        for close in (transport.close, directory.close, segments.close):
            process.parts.push_async_callback(close)
        self.processes[name] = process
        return process

    def client(self, name: str = "client") -> Environment:
        """A client without background work: nodes seal."""
        return self._open(name).env

    async def start(self, name: str, *, zone: str = "") -> Process:
        """A node, in the order of ``logstore/service.py``."""
        process = self._open(name)
        disk = self.disks.setdefault(name, SimDisk(random.Random(0), capacity_bytes=64 << 20))
        settings = NodeSettings(node=name, file_bytes=FILE_BYTES, keep_free_bytes=0, zone=zone)
        session = process.session = NodeSession(
            process.env.catalog.store,
            self.runtime,
            name,
            report=lambda: NodeKeeper.report(keeper),
            on_state=lambda state: NodeKeeper.on_state(keeper, state),
            on_lost=process.lost.append,
        )
        seen = await self.records.load(name)
        node = process.node = await Node.open(
            disk.open(),
            self.runtime,
            settings=settings,
            boot_seen=None if seen is None else seen.record.boot,
        )
        keeper = process.keeper = NodeKeeper(process.env, node, process.directory)
        node.attach(keeper)
        process.parts.push_async_callback(node.close)
        process.parts.push_async_callback(keeper.stop)
        server = self.network.serve(name, node)
        process.parts.push_async_callback(server.close)
        process.parts.push_async_callback(session.stop)
        await session.register(
            boot=node.boot,
            incarnation=node.identity.incarnation,
            past=sorted(node.identity.past),
            address=name,
            zone=zone,
        )
        session.start()
        keeper.start()
        return process

    async def stop(self, name: str) -> None:
        """In good order."""
        await self.processes.pop(name).parts.aclose()

    def cut_off(self, name: str) -> None:
        """Nothing gets from or to a process any more, for ever: neither nodes nor metadata."""
        self.processes[name].metadata.is_away = True
        for other in self.processes:
            self.network.cut(name, other)
            self.network.cut(other, name)

    async def close(self) -> None:
        for process in self.processes.values():
            process.metadata.calm()
            process.objects.calm()
        for name in reversed(list(self.processes)):
            await self.stop(name)
        left = [name for name in self.runtime.running() if not name.startswith("late ")]
        assert not left, left

    # --- looking ---

    def node(self, name: str) -> Node:
        node = self.processes[name].node
        assert node is not None
        return node

    async def record(self, name: str) -> NodeRecord:
        stored = await self.records.load(name)
        assert stored is not None
        return stored.record

    async def until_state(self, name: str, state: NodeState, limit_ms: float = 120_000) -> float:
        """Wait for it; how long it took."""
        began_ms = self.runtime.monotonic_ms()
        while (await self.record(name)).state is not state:
            assert self.runtime.monotonic_ms() < began_ms + limit_ms, await self.record(name)
            await self.runtime.sleep_ms(100)
        return self.runtime.monotonic_ms() - began_ms

    async def settle(self, duration_ms: float) -> None:
        await self.runtime.sleep_ms(duration_ms)


async def create(env: Environment, name: str = "orders", **options: object) -> Log:
    """A log of kind quorum."""
    settings = Options(mode=Kind.QUORUM, **options)  # type: ignore[arg-type]
    log_id = env.runtime.token()
    command = CreateLog(name=name, log_id=log_id, now_ms=1, options=settings, attributes={})
    await env.catalog.change(name, command)
    return Log(env, name, log_id)


def members(manifest: Manifest) -> set[str]:
    """Of the OPEN segment."""
    segment = manifest.open_segment
    assert segment is not None and segment.ensemble is not None
    return {member.node for member in segment.ensemble.members}


async def states(env: Environment, name: str = "orders") -> list[State]:
    return [segment.state for segment in (await env.catalog.read(name)).segments]


class Load:
    """A writer that appends all the time and notes every failure."""

    def __init__(self, fleet: Fleet, writer: LogWriter, pause_ms: float = 100.0) -> None:
        self.count = 0
        self.errors: list[WoodpeckerError] = []
        self.slowest_ms = 0.0
        self._fleet = fleet
        self._writer = writer
        self._pause_ms = pause_ms
        self._is_over = False
        self._task = fleet.runtime.spawn(self._run(), "load")

    async def _run(self) -> None:
        runtime = self._fleet.runtime
        while not self._is_over:
            began_ms = runtime.monotonic_ms()
            try:
                await self._writer.append(b"%d" % self.count)
            except WoodpeckerError as error:
                self.errors.append(error)
                return
            self.slowest_ms = max(self.slowest_ms, runtime.monotonic_ms() - began_ms)
            self.count += 1
            await runtime.sleep_ms(self._pause_ms)

    async def end(self) -> None:
        """No more appends; none may have failed."""
        self._is_over = True
        await self._task
        assert not self.errors, self.errors


async def payloads(log: Log) -> list[bytes]:
    return [bytes(entry.payload) async for entry in log.read(start=0)]


@asynccontextmanager
async def a_fleet(*nodes: str) -> AsyncIterator[Fleet]:
    fleet = Fleet()
    try:
        for node in nodes:
            await fleet.start(node)
        yield fleet
    finally:
        await fleet.close()
