"""The suite of object stores, on all of ours, with the real servers that can be had."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import pytest_asyncio

from woodpecker.errors import NotFound, Unavailable
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.storage.url import parse_store_url
from woodpecker.testing.conformance.object_store import ObjectStoreSuite
from woodpecker.testing.servers.azurite import AzuriteServer, install_azurite
from woodpecker.testing.servers.gcs import GcsServer
from woodpecker.testing.servers.seaweed import SeaweedServer

RUNTIME = SystemRuntime()


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def azurite(tmp_path_factory):
    try:
        program = asyncio.run(install_azurite())
    except (NotFound, Unavailable) as error:
        pytest.skip(str(error))
    server = AzuriteServer(tmp_path_factory.mktemp("azurite"), program)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


class TestMemory(ObjectStoreSuite):
    @pytest.fixture
    def open_store(self):
        bucket = MemoryBucket()
        return lambda: MemoryObjectStore(bucket, RUNTIME)


class TestLocal(ObjectStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: LocalObjectStore(tmp_path / "new" / "objects", RUNTIME)


class TestS3(ObjectStoreSuite):
    prefixes = itertools.count()

    @pytest.fixture
    def open_store(self, seaweed):
        url = seaweed.url(prefix=f"conformance/{next(self.prefixes)}")
        keys = {"access_key_id": seaweed.ACCESS_KEY, "secret_access_key": seaweed.SECRET_KEY}
        return lambda: CloudObjectStore(parse_store_url(url, **keys), RUNTIME)


class TestAzure(ObjectStoreSuite):
    prefixes = itertools.count()

    @pytest.fixture
    def open_store(self, azurite):
        url = azurite.url(prefix=f"conformance/{next(self.prefixes)}")
        keys = {"account": azurite.ACCOUNT, "account_key": azurite.ACCOUNT_KEY}
        return lambda: CloudObjectStore(parse_store_url(url, **keys), RUNTIME)


class TestGcs(ObjectStoreSuite):
    @pytest_asyncio.fixture
    async def gcs(self, tmp_path):
        server = GcsServer(tmp_path / "gcs")
        await server.start()
        yield server
        await server.stop()

    @pytest.fixture
    def open_store(self, gcs):
        return lambda: CloudObjectStore(parse_store_url(gcs.url("conformance")), RUNTIME)
