"""One whole life of a log on every store that can be had here: files, memory, S3, Azure, GCS, etcd."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from tests.integration.whole_life import live

import woodpecker as wp
from woodpecker.errors import NotFound, Unavailable
from woodpecker.programs import HOW_TO_GET_ETCD, find_etcd
from woodpecker.testing.servers.azurite import AzuriteServer, install_azurite
from woodpecker.testing.servers.certificates import make_certificates
from woodpecker.testing.servers.etcd import EtcdCluster
from woodpecker.testing.servers.gcs import GcsServer
from woodpecker.testing.servers.seaweed import SeaweedServer


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


def s3(server: SeaweedServer, prefix: str) -> str:
    keys = f"access_key_id={server.ACCESS_KEY}&secret_access_key={server.SECRET_KEY}"
    return f"{server.url(prefix=prefix)}&{keys}"


@pytest.mark.parametrize("mode", ["file", "object"])
async def test_directory(tmp_path, monkeypatch, mode):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    await live(partial(wp.connect, tmp_path / "store"), mode)


async def test_directory_on_a_network_file_system(tmp_path, monkeypatch):
    """Every record and block by exclusive links; nothing of kind file, no SQLite."""
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: False)
    store = tmp_path / "store"
    await live(partial(wp.connect, store), "object")
    assert [path.name for path in store.iterdir()] == ["objects"]
    async with wp.connect(store) as client:
        with pytest.raises(wp.InvalidRequest, match="buffer="):
            await client.create_log("other", mode="file")


async def test_memory():
    await live(partial(wp.connect, "memory://whole-life"), "object")


async def test_bucket(seaweed):
    await live(partial(wp.connect, s3(seaweed, "bare")), "object")


async def test_bucket_with_a_buffer_directory(seaweed, tmp_path, monkeypatch):
    """Open segments in a local directory, history in the bucket."""
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    url = s3(seaweed, "buffered")
    await live(partial(wp.connect, url, buffer=f"file://{tmp_path}/buffer"), "file")
    assert not list((tmp_path / "buffer").rglob("*.seg"))


async def test_azure(tmp_path):
    try:
        program = await install_azurite()
    except (NotFound, Unavailable) as error:
        pytest.skip(str(error))
    server = AzuriteServer(tmp_path / "azurite", program)
    await server.start()
    try:
        url, keys = server.url("root"), (server.ACCOUNT, server.ACCOUNT_KEY)
        await live(partial(wp.connect, url, account=keys[0], account_key=keys[1]), "object")
        missing = url.replace("az://bucket/", "az://no-such-container/")
        for read_only in (False, True):
            client = wp.connect(missing, account=keys[0], account_key=keys[1], read_only=read_only)
            with pytest.raises(wp.NotFound, match="no-such-container"):
                await client.open()
    finally:
        await server.stop()


async def test_gcs(tmp_path):
    server = GcsServer(tmp_path / "gcs")
    await server.start()
    try:
        await live(partial(wp.connect, server.url("root")), "object")
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    if find_etcd() is None:
        pytest.skip(HOW_TO_GET_ETCD)
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), members=3) as running:
        yield running


async def test_metadata_in_etcd_blocks_in_a_bucket(etcd, seaweed):
    metadata = f"etcd://{','.join(etcd.endpoints)}/bucket"
    await live(partial(wp.connect, s3(seaweed, "etcd"), metadata=metadata), "object")


async def test_metadata_in_etcd_files_in_a_directory(etcd, tmp_path, monkeypatch):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    metadata = f"etcd://{','.join(etcd.endpoints)}/directory"
    await live(partial(wp.connect, tmp_path / "store", metadata=metadata), "file")


async def test_etcd_with_tls_and_password(tmp_path, monkeypatch):
    if find_etcd() is None:
        pytest.skip(HOW_TO_GET_ETCD)
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    certificates = make_certificates(tmp_path / "certificates")
    with EtcdCluster(tmp_path / "etcd", certificates=certificates) as cluster:
        cluster.enable_login("wal", "geheim", prefix="team/")
        files = (
            f"ca_file={certificates.ca_file}&cert_file={certificates.client_certificate_file}"
            f"&key_file={certificates.client_key_file}"
        )
        hosts = ",".join(cluster.endpoints)
        right = f"etcd://wal:geheim@{hosts}/team?{files}"
        await live(partial(wp.connect, tmp_path / "store", metadata=right), "file")
        wrong = f"etcd://wal:falsch@{hosts}/team?{files}"
        with pytest.raises(wp.InvalidRequest) as caught:
            await wp.connect(tmp_path / "store", metadata=wrong).open()
        assert "falsch" not in str(caught.value)


async def test_a_killed_etcd_stops_only_what_needs_it(tmp_path, monkeypatch):
    """Appends go on in the open segment; after the restart rolls and take-overs do as well."""
    if find_etcd() is None:
        pytest.skip(HOW_TO_GET_ETCD)
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    with EtcdCluster(tmp_path / "etcd") as cluster:
        metadata = f"etcd://{cluster.endpoints[0]}/root?timeout_ms=700"
        async with (
            asyncio.timeout(90),
            wp.connect(tmp_path / "store", metadata=metadata) as client,
        ):
            log = await client.create_log("orders", segment_max_bytes=64 << 10)
            writer = await log.open_writer()
            assert await writer.append(bytes(10_000)) == 0
            cluster.members[0].kill()
            for seq in range(1, 12):  # a roll falls due: the open segment grows instead
                assert await writer.append(bytes(10_000)) == seq
            with pytest.raises(wp.Unavailable):
                await log.describe()
            last = 11
            waiting = asyncio.ensure_future(writer.append(bytes(10_000)))
            while (await asyncio.wait([waiting], timeout=0.5))[0]:
                last = waiting.result()
                waiting = asyncio.ensure_future(writer.append(bytes(10_000)))
            assert last < 40  # four times its size: now appends wait
            cluster.members[0].start()
            await asyncio.to_thread(cluster.members[0].wait_ready)
            assert await waiting == last + 1
            await writer.close()
            async with await log.open_writer() as second:
                assert await second.append(b"on we go") == last + 2
            assert (await log.verify()).next_seq == last + 3
            assert len((await log.describe()).segments) >= 2
