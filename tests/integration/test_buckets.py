"""What a client asks of a bucket when it connects, and what it refuses."""

from __future__ import annotations

import asyncio

import pytest

import woodpecker as wp
from woodpecker.testing.servers.fault_proxy import FaultProxy
from woodpecker.testing.servers.rclone import RcloneServer
from woodpecker.testing.servers.seaweed import SeaweedServer

PROBES = 5  # PUTs of both probes together: two creates, a create and two replaces


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def proxy(seaweed):
    proxy = FaultProxy(seaweed.endpoint)
    await proxy.start()
    yield proxy
    await proxy.stop()


def bucket(endpoint: str, prefix: str, **options: str) -> str:
    known = {
        "access_key_id": SeaweedServer.ACCESS_KEY,
        "secret_access_key": SeaweedServer.SECRET_KEY,
    }
    query = "&".join(f"{name}={value}" for name, value in (known | options).items())
    return f"s3://bucket/{prefix}?endpoint={endpoint}&{query}"


async def test_a_server_that_ignores_conditions_is_refused_at_once(tmp_path):
    """Such a server would let two writers overwrite each other's acknowledged blocks."""
    server = RcloneServer(tmp_path / "rclone")
    await server.start()
    try:
        url = bucket(server.endpoint, "logs")
        with pytest.raises(wp.InvalidRequest) as caught:
            await wp.connect(url).open()
        assert "s3://bucket/logs has no create-if-absent" in str(caught.value)
        assert "use a store that honours conditional writes" in str(caught.value)
        assert not list((tmp_path / "rclone").rglob("*woodpecker.json*"))
        async with wp.connect("memory://") as client:
            log = await client.create_log("orders")
            with pytest.raises(wp.InvalidRequest, match="has no create-if-absent"):
                await log.alter(storage=url)
    finally:
        await server.stop()


async def test_the_probe_runs_once_per_connection_not_per_log(proxy):
    async with wp.connect(bucket(proxy.endpoint, "once"), background=False) as client:
        connected = proxy.methods["PUT"]
        assert connected == PROBES + 2  # and the store's marker, here and in the metadata
        for number in range(5):
            await client.create_log(f"log-{number}")
        assert proxy.methods["PUT"] == connected + 5
        for number in range(5):
            async with await (await client.open_log(f"log-{number}")).open_writer() as writer:
                await writer.append(b"paid")
        each = 5  # take over, open a segment, one block, its end mark, close
        assert proxy.methods["PUT"] == connected + 5 + 5 * each
    async with wp.connect("memory://") as client:
        before = proxy.methods["PUT"]
        for number in range(4):
            log = await client.create_log(f"log-{number}")
            await log.alter(storage=bucket(proxy.endpoint, "history"))
        assert proxy.methods["PUT"] == before + 2


async def test_read_only_sends_nothing_but_reads(proxy):
    url = bucket(proxy.endpoint, "read-only")
    async with wp.connect(url, background=False) as client:
        log = await client.create_log("orders")
        async with await log.open_writer() as writer:
            await writer.append_many([b"paid", b"packed"])
        await log.cursor("billing")
        await client.run_background()
    proxy.methods.clear()
    async with wp.connect(url, read_only=True) as client:
        log = await client.open_log("orders")
        assert [entry.payload async for entry in log.read()] == [b"paid", b"packed"]
        assert (await log.verify()).entries == 2
        assert (await log.cursor("billing")).position == 0
        await log.describe()
        with pytest.raises(wp.InvalidRequest, match="read_only"):
            await log.open_writer()
    assert set(proxy.methods) <= {"GET", "HEAD"}
    assert proxy.methods["GET"] > 3
    with pytest.raises(wp.NotFound, match="no Woodpecker store"):
        await wp.connect(bucket(proxy.endpoint, "nothing-here"), read_only=True).open()
    assert set(proxy.methods) <= {"GET", "HEAD"}


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
@pytest.mark.parametrize("read_only", [False, True])
async def test_wrong_credentials(seaweed, wrong, read_only):
    url = bucket(seaweed.endpoint, "x", **{wrong: "wrong"})
    with pytest.raises(wp.InvalidRequest, match=r"(?i)credentials|denied|refused") as caught:
        await wp.connect(url, read_only=read_only).open()
    assert SeaweedServer.SECRET_KEY not in str(caught.value)


async def test_credentials_from_environment_and_profile(seaweed, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"s3://bucket/environment?endpoint={seaweed.endpoint}"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[team]\naws_access_key_id = {seaweed.ACCESS_KEY}\n"
        f"aws_secret_access_key = {seaweed.SECRET_KEY}\n"
    )
    async with wp.connect(url, profile="team") as client:
        await client.create_log("orders")
    for name, value in seaweed.credentials.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.endpoint)
    async with wp.connect("s3://bucket/environment") as client:
        assert await client.list_logs() == ["orders"]
    async with wp.connect("s3://bucket/environment", region="eu-central-1") as client:
        assert await client.log_exists("orders")
