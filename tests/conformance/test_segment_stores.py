"""The suite of segment stores, on all of ours: a local disk, memory, a directory by links, a real S3
server, LogStore nodes.
"""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
import pytest_asyncio
from tests.unit.segments.quorum_kit import FakeCluster

from woodpecker.codec.messages import Request, Tell
from woodpecker.core.keeping import FORGET_ALL
from woodpecker.logstore.node import Node
from woodpecker.logstore.settings import NodeSettings
from woodpecker.rpc.base import Responder
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.file import FileSegments
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.storage.url import parse_store_url
from woodpecker.testing.conformance.segment_store import SegmentStoreSuite
from woodpecker.testing.servers.seaweed import SeaweedServer
from woodpecker.testing.sim_disk import SimDisk

RUNTIME = SystemRuntime()


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


class TestFile(SegmentStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: FileSegments(tmp_path / "buffer", RUNTIME)


class TestObject(SegmentStoreSuite):
    @pytest.fixture
    def open_store(self):
        bucket = MemoryBucket()
        return lambda: ObjectSegments(MemoryObjectStore(bucket, RUNTIME), RUNTIME)


class TestObjectInDirectory(SegmentStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: ObjectSegments(LocalObjectStore(tmp_path / "objects", RUNTIME), RUNTIME)


class TestObjectOnS3(SegmentStoreSuite):
    prefixes = itertools.count()

    @pytest.fixture
    def open_store(self, seaweed):
        url = seaweed.url(prefix=f"segments/{next(self.prefixes)}")
        keys = {"access_key_id": seaweed.ACCESS_KEY, "secret_access_key": seaweed.SECRET_KEY}
        return lambda: ObjectSegments(
            CloudObjectStore(parse_store_url(url, **keys), RUNTIME), RUNTIME
        )


class TestQuorumOnSmallNodes(SegmentStoreSuite):
    """On nodes that are little more than ``core/replica.py``."""

    lags = True

    @pytest.fixture
    def open_store(self, request):
        cluster = FakeCluster(3, runtime=RUNTIME)
        cluster.forgets = "dropped" in request.node.name

        def open_one():
            for node in cluster.nodes.values():
                if not node.is_up:
                    node.start()
            return cluster.store(f"client {len(cluster.stores)}")

        return open_one


class Forgetful:
    """A node that takes all it holds for deleted as soon as a client tells it that something moved."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.welcome, self.allocate = node.welcome, node.allocate

    def handle(self, request: Request, payload: memoryview, responder: Responder) -> None:
        self._node.handle(request, payload, responder)
        if isinstance(request, Tell):
            for log_id, _ in self._node.held_logs():
                RUNTIME.spawn(self._node.set_floor(log_id, FORGET_ALL), "forget")


class TestQuorum(SegmentStoreSuite):
    """On real nodes, with disks in memory."""

    lags = True

    @pytest_asyncio.fixture
    async def open_store(self, request):  # type: ignore[override]
        cluster = FakeCluster(3, runtime=RUNTIME)
        forgets = "dropped" in request.node.name
        nodes: list[Node] = []
        for name, fake in cluster.nodes.items():
            disk = SimDisk(random.Random(0), capacity_bytes=1 << 28)
            settings = NodeSettings(node=name, file_bytes=16 << 20, keep_free_bytes=0)
            nodes.append(await Node.open(disk.open(), RUNTIME, settings=settings))
            fake.disk.incarnation = nodes[-1].identity.incarnation
            cluster.network.serve(name, Forgetful(nodes[-1]) if forgets else nodes[-1])
        yield lambda: cluster.store(f"client {len(cluster.stores)}")
        for node in nodes:
            await node.close()
