"""Sessions and directory of LogStore nodes, on every metadata store there is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import pytest
import pytest_asyncio

from woodpecker.core.manifest import Manifest
from woodpecker.core.membership import Load, NodeState
from woodpecker.errors import Conflict
from woodpecker.metadata.base import MetadataStore
from woodpecker.metadata.etcd import EtcdMetadata
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.metadata.node_session import NodeSession
from woodpecker.metadata.nodes import NodeDirectory
from woodpecker.metadata.objects import ObjectMetadata
from woodpecker.metadata.sqlite import SqliteMetadata
from woodpecker.programs import HOW_TO_GET_ETCD, find_packaged_etcd
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.servers.etcd import EtcdCluster

RUNTIME = SystemRuntime()
LOG = Manifest(name="orders", log_id="0" * 32, created_at_ms=0)
BEAT_MS = 20.0
PATIENCE_S = 30.0

OpenStore = Callable[[], MetadataStore]


class Process:
    """One start of a node, on a connection of its own."""

    def __init__(self, store: MetadataStore, node: str) -> None:
        self.store = store
        self.load = Load()
        self.states: list[NodeState] = []
        self.lost: list[str] = []
        self.session = NodeSession(
            store,
            RUNTIME,
            node,
            report=lambda: self.load,
            on_state=self.states.append,
            on_lost=self.lost.append,
            beat_ms=BEAT_MS,
        )


class NodesSuite:
    """The contract that nodes and clients rely on."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def opened(self, open_store: OpenStore) -> AsyncIterator[OpenStore]:
        stores: list[MetadataStore] = []

        def open_one() -> MetadataStore:
            stores.append(open_store())
            return stores[-1]

        yield open_one
        for store in stores:
            await store.close()

    @pytest_asyncio.fixture
    async def start(self, opened: OpenStore) -> AsyncIterator[Callable[..., object]]:
        processes: list[Process] = []

        async def start(node: str, *, boot: int = 1) -> Process:
            process = Process(opened(), node)
            processes.append(process)
            await process.session.register(
                boot=boot, incarnation=f"i-{node}", address=f"{node}:{boot}"
            )
            process.session.start()
            return process

        yield start
        for process in processes:
            await process.session.stop()

    async def test_a_node_registers_beats_drains_and_says_goodbye(self, opened, start) -> None:
        process = await start("n1")
        records = NodeRecords(opened(), RUNTIME)
        await until(records, "n1", lambda record: record.beat >= 4)
        process.load = Load(unsealed_segments=1)
        assert (await records.drain("n1")).state is NodeState.DRAINING
        await until(records, "n1", lambda record: record.load.unsealed_segments == 1)
        assert process.states[-1] is NodeState.DRAINING
        process.load = Load(is_safe=True)
        await until(records, "n1", lambda record: record.state is NodeState.DRAINED)
        assert (await records.cancel_drain("n1")).state is NodeState.ACTIVE
        await process.session.stop()
        stored = await records.load("n1")
        assert stored is not None
        assert (stored.record.is_up, stored.record.state) == (False, NodeState.ACTIVE)
        assert not process.lost

    async def test_the_second_process_of_a_node_takes_the_record_over(self, opened, start) -> None:
        old = await start("n1", boot=1)
        assert await Process(opened(), "n1").session.look(1) == 1
        new = await start("n1", boot=2)
        async with asyncio.timeout(PATIENCE_S):
            while not old.lost:
                await asyncio.sleep(0.01)
        assert "boot 2 at n1:2" in old.lost[0]
        await old.session.stop()
        records = NodeRecords(opened(), RUNTIME)
        seen = await records.load("n1")
        assert seen is not None
        beat = seen.record.beat
        await until(records, "n1", lambda record: record.beat > beat)
        assert not new.lost

    async def test_a_living_namesake_is_found_out(self, opened, start) -> None:
        await start("n1", boot=3)
        with pytest.raises(Conflict, match="in use"):
            await Process(opened(), "n1").session.look(0)

    async def test_of_many_starts_at_once_exactly_one_goes_on(self, start) -> None:
        done = await asyncio.gather(
            *(start("n1", boot=7) for _ in range(5)), return_exceptions=True
        )
        started = [process for process in done if isinstance(process, Process)]
        assert len(started) == 1
        assert all(isinstance(other, Conflict) for other in done if other not in started)

    async def test_a_directory_finds_chooses_and_notices(self, opened, start) -> None:
        processes = [await start(f"n{index}") for index in range(1, 4)]
        directory = NodeDirectory(opened(), RUNTIME)
        try:
            ensemble = await directory.choose(LOG)
            assert {m.node for m in ensemble.members} == {"n1", "n2", "n3"}
            assert [await directory.address(m) for m in ensemble.members] == [
                f"{m.node}:1" for m in ensemble.members
            ]
            await processes[0].session.stop()
            async with asyncio.timeout(PATIENCE_S):
                while len((await directory.choose(LOG)).members) != 2:
                    await asyncio.sleep(0.05)
            assert await directory.addresses() == ["n2:1", "n3:1"]
        finally:
            await directory.close()


async def until(records: NodeRecords, node: str, is_so) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            stored = await records.load(node)
            if stored is not None and is_so(stored.record):
                return
            await asyncio.sleep(0.01)


class TestMemory(NodesSuite):
    @pytest.fixture
    def open_store(self):
        records = MemoryRecords()
        return lambda: MemoryMetadata(RUNTIME, records)


class TestSqlite(NodesSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: SqliteMetadata(tmp_path / "metadata.db", RUNTIME)


class TestObjects(NodesSuite):
    @pytest.fixture
    def open_store(self):
        bucket = MemoryBucket()
        return lambda: ObjectMetadata(MemoryObjectStore(bucket, RUNTIME), RUNTIME)


class TestObjectsInDirectory(NodesSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: ObjectMetadata(LocalObjectStore(tmp_path / "objects", RUNTIME), RUNTIME)


class TestEtcd(NodesSuite):
    prefixes = itertools.count()

    @pytest.fixture
    def open_store(self, etcd):
        prefix = f"woodpecker/{next(self.prefixes)}"
        return lambda: EtcdMetadata(etcd.endpoints, prefix, RUNTIME)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory):
    binary = find_packaged_etcd()
    if binary is None:
        pytest.skip(HOW_TO_GET_ETCD)
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), binary=binary) as cluster:
        yield cluster
