"""Who may talk to a cluster, and how: secrets, TLS, etcd, clients without rights on the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.integration.cluster_kit import (
    COMMAND,
    Process,
    clean_env,
    command,
    dev_cluster,
    read_all,
)

import woodpecker as wp
from woodpecker.core.ids import Kind
from woodpecker.programs import HOW_TO_GET_ETCD, HOW_TO_GET_S3, find_etcd, find_weed
from woodpecker.testing.servers.certificates import Certificates, make_certificates
from woodpecker.testing.servers.etcd import EtcdCluster
from woodpecker.testing.servers.process import free_port
from woodpecker.testing.servers.seaweed import SeaweedServer


@contextlib.asynccontextmanager
async def three_nodes(
    directory: Path, *flags: str, store: str | None = None, env: dict[str, str] | None = None
) -> AsyncIterator[list[Process]]:
    """Nodes started one by one, with flags of one's own."""
    directory.mkdir(exist_ok=True)
    nodes = [_node(directory, number, flags, store) for number in (1, 2, 3)]
    try:
        for node in nodes:
            await node.start(ready=False, env=env)
        for node in nodes:
            await node.wait_ready()
        yield nodes
    finally:
        for node in nodes:
            node.end()


def _node(directory: Path, number: int, flags: Sequence[str], store: str | None) -> Process:
    name, port, http = f"node-{number}", free_port(), free_port()
    argv = [
        *COMMAND, "logstore", "serve", "--node", name, "--dir", str(directory / name),
        "--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{http}",
        "--store", store or str(directory / "store"), *flags,
    ]  # fmt: skip
    log = directory / f"{name}.log"
    facts = {"name": name, "role": "logstore", "pid": 0, "argv": argv, "log": str(log)}
    return Process({**facts, "address": f"127.0.0.1:{port}"}, directory)


def url_of(nodes: Sequence[Process]) -> str:
    return "wp://" + ",".join(node.address for node in nodes)


async def use(url: str, **access: object) -> None:
    """Append and read, through every road there is."""
    async with wp.connect(url, **access) as client:  # type: ignore[arg-type]
        log = await client.create_log("orders", exist_ok=True)
        async with await log.open_writer() as writer:
            await writer.append(b"paid")
        assert b"paid" in (await read_all(log)).values()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


async def test_tls_and_a_secret(tmp_path: Path, certificates: Certificates) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    own = certificates
    flags = (
        "--secret-file", str(secret), "--tls-ca", str(own.ca_file),
        "--tls-cert", str(own.server_certificate_file), "--tls-key", str(own.server_key_file),
    )  # fmt: skip
    tls = {
        "tls_ca": own.ca_file,
        "tls_cert": own.client_certificate_file,
        "tls_key": own.client_key_file,
    }
    async with three_nodes(tmp_path / "cluster", *flags) as nodes:
        url = url_of(nodes)
        await use(url, secret_file=secret, **tls)
        client_files = (
            "--secret-file", str(secret), "--tls-ca", str(tls["tls_ca"]),
            "--tls-cert", str(tls["tls_cert"]), "--tls-key", str(tls["tls_key"]),
        )  # fmt: skip
        environ = {
            f"WOODPECKER_{flag.removeprefix('--').replace('-', '_').upper()}": value
            for flag, value in zip(client_files[::2], client_files[1::2], strict=True)
        }
        args = ("--store", url, "-o", "json", "node", "list")
        listed = json.loads(await asyncio.to_thread(command, *args, env=clean_env(**environ)))
        assert all(node["answers"] for node in listed)
        with pytest.raises(wp.InvalidRequest, match="secret"):
            await use(url, secret="open barley", **tls)
        with pytest.raises(wp.InvalidRequest, match="secret"):
            await use(url, **tls)
        with pytest.raises((wp.InvalidRequest, wp.Unavailable)):
            await use(url, secret_file=secret)
        with pytest.raises((wp.InvalidRequest, wp.Unavailable), match="TLS"):
            await use(url, secret_file=secret, tls_ca=own.client_certificate_file)
        said = "".join(node.tail() for node in nodes)
        assert "sesame" not in said and "barley" not in said


async def test_a_secret_without_tls(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    async with three_nodes(tmp_path / "cluster", "--secret-file", str(secret)) as nodes:
        await use(url_of(nodes), secret="open sesame")
        with pytest.raises(wp.InvalidRequest, match="secret"):
            await use(url_of(nodes))


@pytest.mark.skipif(find_etcd() is None, reason=HOW_TO_GET_ETCD)
async def test_with_etcd(tmp_path: Path) -> None:
    async with dev_cluster(tmp_path, "--etcd") as cluster:
        assert cluster.processes["etcd"].role == "etcd"
        await use(cluster.url)
        metadata = cluster.nodes[0].flag("metadata")
        async with wp.connect(cluster.directory / "store", metadata=metadata) as client:
            log = await client.create_log("by-store", mode="quorum")
            async with await log.open_writer() as writer:
                await writer.append(b"paid")
            assert (await client.open_log("orders")).name == "orders"


@pytest.mark.skipif(find_weed() is None, reason=HOW_TO_GET_S3)
async def test_with_a_bucket_and_its_conditional_writes_for_metadata(tmp_path: Path) -> None:
    async with dev_cluster(tmp_path, "--s3") as cluster:
        await use(cluster.url)
        store = ("--store", cluster.url, "-o", "json")
        await asyncio.to_thread(command, *store, "segment", "seal", "orders")
        (segment,) = json.loads(
            await asyncio.to_thread(command, *store, "segment", "list", "orders")
        )
        assert (segment["state"], segment["kind"]) == ("sealed", "quorum")
        await use(cluster.url)


@pytest.mark.skipif(find_etcd() is None, reason=HOW_TO_GET_ETCD)
@pytest.mark.skipif(find_weed() is None, reason=HOW_TO_GET_S3)
async def test_a_client_without_rights_reads_through_the_nodes(tmp_path, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    bucket = SeaweedServer(tmp_path / "s3")
    await bucket.start()
    etcd = await asyncio.to_thread(EtcdCluster, tmp_path / "etcd")
    try:
        flags = ("--metadata", f"etcd://{etcd.endpoints[0]}/p")
        env = clean_env(**bucket.credentials)
        store = bucket.url(prefix="wal")
        async with three_nodes(tmp_path / "cluster", *flags, store=store, env=env) as nodes:
            await _use_without_rights(url_of(nodes), store, bucket)
    finally:
        await bucket.stop()
        await asyncio.to_thread(etcd.close)


async def _use_without_rights(url: str, store: str, bucket: SeaweedServer) -> None:
    as_owner = wp.connect(url, access_key_id=bucket.ACCESS_KEY, secret_access_key=bucket.SECRET_KEY)
    async with wp.connect(url) as client, as_owner as owner:
        assert not client.environment.has_rights and owner.environment.has_rights
        log = await client.create_log("orders", segment_max_blocks=3)
        async with await log.open_writer() as writer:
            for number in range(10):
                await writer.append(b"entry %d" % number)
        await owner.run_background("orders")
        shown = await log.describe()
        assert any(segment.sealed for segment in shown.segments)
        assert list((await read_all(log)).values()) == [b"entry %d" % n for n in range(10)]
        assert (await log.verify()).next_seq == 10
        assert shown.options.mode is Kind.QUORUM
        for mode in ("object", "file"):
            with pytest.raises(wp.InvalidRequest, match="rights"):
                await client.create_log("x", mode=mode)
        with pytest.raises(wp.InvalidRequest, match="rights"):
            await log.alter(storage="s3://elsewhere/x")
        with pytest.raises(wp.InvalidRequest, match="rights"):
            await client.run_background()
    with pytest.raises(wp.InvalidRequest, match="credentials"):
        await wp.connect(store).open()


async def test_a_store_that_is_not_here_is_told(tmp_path: Path) -> None:
    """Metadata beside the objects of a directory that this machine does not have."""
    async with three_nodes(tmp_path / "cluster") as nodes:
        await use(url_of(nodes))
        (tmp_path / "cluster" / "store").rename(tmp_path / "cluster" / "moved")
        with pytest.raises(wp.InvalidRequest, match="cannot be used from here"):
            await use(url_of(nodes))


async def test_flags_that_cannot_be(tmp_path: Path) -> None:
    serve = ("logstore", "serve")
    whole = ("--node", "n", "--dir", str(tmp_path / "n"), "--store", str(tmp_path / "s"))
    for flags, said in [
        (("--dir", str(tmp_path)), b"--node is missing"),
        (("--node", "n"), b"--dir is missing"),
        (("--node", "n", "--dir", str(tmp_path)), b"--store is missing"),
        ((*whole, "--listen", "nowhere"), b"HOST:PORT"),
        ((*whole, "--listen", "0.0.0.0:7100"), b"--advertise"),
        ((*whole, "--node", "a/b"), b"a/b"),
        ((*whole, "--tls-ca", "/none"), b"tls_ca=/none"),
        ((*whole, "--store", "wp://127.0.0.1:1"), b"wp://"),
        ((*whole, "--store", "memory://"), b"memory://"),
    ]:
        assert said in await asyncio.to_thread(command, *serve, *flags, code=3), flags
