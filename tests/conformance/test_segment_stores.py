"""The suite of segment stores, on all of ours: a local disk, memory, a directory by links, a real S3
server, LogStore nodes.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest
from tests.unit.segments.quorum_kit import FakeCluster

from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.file import FileSegments
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.storage.url import parse_store_url
from woodpecker.testing.conformance.segment_store import SegmentStoreSuite
from woodpecker.testing.servers.seaweed import SeaweedServer

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
    def open_store(self):
        cluster = FakeCluster(3, runtime=RUNTIME)
        cluster.forgets = True

        def open_one():
            for node in cluster.nodes.values():
                if not node.is_up:
                    node.start()
            return cluster.store(f"client {len(cluster.stores)}")

        return open_one
