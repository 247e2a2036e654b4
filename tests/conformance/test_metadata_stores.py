"""The suite of metadata stores, on all of ours."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import ClassVar

import pytest

from woodpecker.metadata.etcd import EtcdMetadata
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.metadata.objects import ObjectMetadata
from woodpecker.metadata.sqlite import SqliteMetadata
from woodpecker.programs import HOW_TO_GET_ETCD, find_packaged_etcd, find_system_etcd
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.storage.url import parse_store_url
from woodpecker.testing.conformance.metadata_store import MetadataStoreSuite
from woodpecker.testing.servers.etcd import EtcdCluster
from woodpecker.testing.servers.seaweed import SeaweedServer

RUNTIME = SystemRuntime()


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


class TestMemory(MetadataStoreSuite):
    @pytest.fixture
    def open_store(self):
        records = MemoryRecords()
        return lambda: MemoryMetadata(RUNTIME, records)


class TestSqlite(MetadataStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: SqliteMetadata(tmp_path / "new" / "metadata.db", RUNTIME)


class TestObjects(MetadataStoreSuite):
    removes: ClassVar[bool] = False

    @pytest.fixture
    def open_store(self):
        bucket = MemoryBucket()
        return lambda: ObjectMetadata(MemoryObjectStore(bucket, RUNTIME), RUNTIME)


class TestObjectsInDirectory(MetadataStoreSuite):
    removes: ClassVar[bool] = False
    lease_ttl_ms: ClassVar[int] = 1500  # a renewal syncs, or is a request

    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: ObjectMetadata(LocalObjectStore(tmp_path / "objects", RUNTIME), RUNTIME)


class TestObjectsOnS3(MetadataStoreSuite):
    removes: ClassVar[bool] = False
    lease_ttl_ms: ClassVar[int] = 1500  # a renewal syncs, or is a request
    has_folders: ClassVar[bool] = True  # SeaweedFS keeps objects as files
    prefixes = itertools.count()

    @pytest.fixture
    def open_store(self, seaweed):
        url = seaweed.url(prefix=f"metadata/{next(self.prefixes)}")
        keys = {"access_key_id": seaweed.ACCESS_KEY, "secret_access_key": seaweed.SECRET_KEY}
        return lambda: ObjectMetadata(
            CloudObjectStore(parse_store_url(url, **keys), RUNTIME), RUNTIME
        )


class _Etcd(MetadataStoreSuite):
    lease_ttl_ms: ClassVar[int] = 1000
    prefixes = itertools.count()

    def opener(self, cluster: EtcdCluster):
        prefix = f"woodpecker/{next(self.prefixes)}"
        return lambda: EtcdMetadata(cluster.endpoints, prefix, RUNTIME)


class TestEtcd(_Etcd):
    @pytest.fixture
    def open_store(self, packaged_etcd):
        return self.opener(packaged_etcd)


@pytest.mark.needs_etcd34
class TestEtcd34(_Etcd):
    @pytest.fixture
    def open_store(self, system_etcd):
        return self.opener(system_etcd)


@pytest.fixture(scope="module")
def packaged_etcd(tmp_path_factory: pytest.TempPathFactory):
    with _cluster(tmp_path_factory, find_packaged_etcd()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def system_etcd(tmp_path_factory: pytest.TempPathFactory):
    with _cluster(tmp_path_factory, find_system_etcd()) as cluster:
        yield cluster


def _cluster(tmp_path_factory: pytest.TempPathFactory, binary: Path | None) -> EtcdCluster:
    if binary is None:
        pytest.skip(HOW_TO_GET_ETCD)
    return EtcdCluster(tmp_path_factory.mktemp("etcd"), binary=binary)
