"""Three nodes that only count their copies, and keepers that are the real ones; all in virtual time.

Blocks lie in a bucket in memory; what a node would do with them is of no interest here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.unit.client.background_kit import MemoryPlaces

from woodpecker.client.environment import Environment
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.core.commands import CreateLog
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Ensemble, Manifest, Member, Options, Place, Segment
from woodpecker.core.replica import Identity
from woodpecker.errors import InvalidRequest, WoodpeckerError
from woodpecker.logstore.base import HeldSegment, Unsealed
from woodpecker.logstore.keeper import NodeKeeper
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import SILENT
from woodpecker.segments.base import ReadManifest, SegmentRef, SegmentWriter
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.base import ObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.faulty import Faults, FaultyMetadata, FaultyObjectStore
from woodpecker.testing.virtual import VirtualRuntime

NODES = ("n1", "n2", "n3")
BLOCK_BYTES = 1000


@dataclass
class FakeNode:
    """A ``Holder`` that knows nothing but which copies it has."""

    identity: Identity
    pressure: int = 0
    copies: dict[str, dict[int, int]] = field(default_factory=dict)  # log id -> segment -> bytes
    names: dict[str, str] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    idle_ms: float = 0.0
    refuses: bool = False
    looks: int = 0

    def hold(self, manifest: Manifest, segment_id: int, size_bytes: int = BLOCK_BYTES) -> None:
        self.names[manifest.log_id] = manifest.name
        self.copies.setdefault(manifest.log_id, {})[segment_id] = size_bytes

    def held_logs(self) -> Sequence[tuple[str, str]]:
        return [(log_id, self.names[log_id]) for log_id, held in self.copies.items() if held]

    def held_segments(self, log_id: str) -> Sequence[HeldSegment]:
        self.looks += 1
        return [
            HeldSegment(
                segment_id=segment_id,
                incarnation=self.identity.incarnation,
                size_bytes=size_bytes,
                idle_ms=self.idle_ms,
            )
            for segment_id, size_bytes in sorted(self.copies.get(log_id, {}).items())
        ]

    def unsealed(self) -> Unsealed:
        sizes = [size for held in self.copies.values() for size in held.values() if size]
        return Unsealed(segments=len(sizes), size_bytes=sum(sizes))

    async def set_floor(self, log_id: str, floor: int) -> None:
        assert floor > self.floors.get(log_id, 0), "a floor is raised, or left alone"
        self.floors[log_id] = floor
        held = self.copies[log_id]
        self.copies[log_id] = {s: size for s, size in held.items() if s >= floor}

    def set_end(self, log_id: str, segment_id: int, end_block: int) -> None:
        self.ends[log_id, segment_id] = end_block

    def refuse_new(self, *, refuse: bool) -> None:
        self.refuses = refuse


@dataclass
class FakeNodes:
    """The directory: only whether a better ensemble is wanted."""

    is_wanted: bool = False

    async def choose(self, manifest: Manifest, *, avoid: object = frozenset()) -> Ensemble:
        raise NotImplementedError

    async def address(self, member: Member) -> str:
        raise NotImplementedError

    def zone_of(self, node: str) -> str:
        return ""

    def wanted(self, ensemble: Ensemble, manifest: Manifest) -> bool:
        return self.is_wanted

    def failed(self, node: str) -> None:
        return None

    def answered(self, node: str, *, pressure: int = 0) -> None:
        return None

    async def close(self) -> None:
        return None


class ToldSegments(ObjectSegments):
    """Kind quorum by name: blocks in the bucket, an ensemble in the manifest, nodes that are told."""

    kind = Kind.QUORUM

    def __init__(self, objects: ObjectStore, cell: Cell) -> None:
        super().__init__(objects, cell.runtime)
        self._cell = cell

    async def prepare(  # type: ignore[override]
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[Place | None, SegmentWriter]:
        _, writer = await super().prepare(
            log_id, segment, read_manifest=read_manifest, timeout_ms=timeout_ms
        )
        return self._cell.ensemble, writer

    async def hand_over(self, ref: SegmentRef) -> bool:
        self._cell.tell(ref.name)
        return True

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        self._cell.tell(ref.name)


class Places(MemoryPlaces):
    """One bucket; blocks of kind quorum."""

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is not Kind.QUORUM:
            raise InvalidRequest(f"no segments of kind {kind} here")


class Cell:
    """A metadata store, a bucket, three nodes and their keepers."""

    def __init__(self) -> None:
        self.runtime = VirtualRuntime()
        self._bucket = MemoryBucket()
        self._records = MemoryRecords()
        self.ensemble = Ensemble(
            members=tuple(Member(node=node, incarnation=f"of-{node}") for node in NODES), acks=2
        )
        self.client = self.environment(Faults(self.runtime))
        self.metadata = Faults(self.runtime)  # what befalls requests of the keepers
        self.objects = Faults(self.runtime)
        self.directory = FakeNodes()
        self.nodes = {
            node: FakeNode(Identity(node=node, incarnation=f"of-{node}")) for node in NODES
        }
        self.keepers: dict[str, NodeKeeper] = {}
        self.is_deaf = False  # nobody is told anything
        self.abandoned: list[LogWriter] = []

    def environment(self, metadata: Faults, objects: Faults | None = None) -> Environment:
        store: ObjectStore = MemoryObjectStore(self._bucket, self.runtime)
        if objects is not None:
            store = FaultyObjectStore(store, objects)
        records = FaultyMetadata(MemoryMetadata(self.runtime, self._records), metadata)
        return Environment(
            url="memory://",
            runtime=self.runtime,
            observer=SILENT,
            catalog=Catalog(records, self.runtime),
            places=Places(store, ToldSegments(store, self)),
        )

    def start(self, *nodes: str) -> None:
        for node in nodes or NODES:
            env = self.environment(self.metadata, self.objects)
            self.keepers[node] = NodeKeeper(env, self.nodes[node], self.directory)
            self.keepers[node].start()

    def tell(self, name: str) -> None:
        if not self.is_deaf:
            for keeper in self.keepers.values():
                keeper.tell(name)

    async def close(self) -> None:
        for keeper in self.keepers.values():
            await keeper.stop()
        for writer in self.abandoned:
            with suppress(WoodpeckerError):
                await writer.close()
        left = [name for name in self.runtime.running() if name.startswith("keeper")]
        assert not left

    # --- logs ---

    async def log(self, name: str = "orders", *, segments: int = 2, is_open: bool = False) -> Log:
        """A log with so many CLOSED segments, and perhaps an OPEN one whose writer is gone."""
        env = self.client
        options = Options(mode=Kind.QUORUM, segment_max_blocks=1)
        log_id = self.runtime.token()
        command = CreateLog(name=name, log_id=log_id, now_ms=1, options=options, attributes={})
        await env.catalog.change(name, command)
        log = Log(env, name, log_id)
        writer = await log.open_writer()
        for number in range(segments):
            await writer.append(b"%d" % number)
        await writer.close()
        if is_open:
            await log.alter(segment_max_blocks=1000)
            self.abandoned.append(await log.open_writer())
            await self.abandoned[-1].append(b"last")
        await self.hold(name)
        return log

    async def hold(self, name: str = "orders") -> Manifest:
        """Every member has what is not sealed."""
        manifest = await self.client.catalog.read(name)
        for segment in manifest.segments:
            if segment.state is not State.SEALED:
                for node in self.nodes.values():
                    node.hold(manifest, segment.id)
        return manifest

    async def states(self, name: str = "orders") -> list[State]:
        manifest = await self.client.catalog.read(name)
        return [segment.state for segment in manifest.segments]

    async def settle(self, duration_ms: float = 1_000.0) -> None:
        await self.runtime.sleep_ms(duration_ms)


@asynccontextmanager
async def a_cell() -> AsyncIterator[Cell]:
    cell = Cell()
    try:
        yield cell
    finally:
        cell.metadata.calm()
        await cell.close()
