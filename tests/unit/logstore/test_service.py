"""One node as a process, here in this one: settings, what it tells others, why and how it ends."""

from __future__ import annotations

import asyncio
import errno
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import woodpecker as wp
from woodpecker.app import public_metadata_url, public_store_url
from woodpecker.config import load
from woodpecker.core.membership import NodeState
from woodpecker.errors import Conflict, InvalidRequest, Unavailable
from woodpecker.logstore import disk_files
from woodpecker.logstore.service import Service, ServiceSettings, make_settings
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.metadata.node_session import NodeSession
from woodpecker.runtime.runtime import SystemRuntime

FLAGS = {"listen": "127.0.0.1:0", "http": "127.0.0.1:0", "journal_file_bytes": "1048576"}


def settings(tmp_path: Path, name: str = "n1", environ=None, **flags: str) -> ServiceSettings:
    given = {"node": name, "dir": str(tmp_path / name), **FLAGS, **flags}
    tables = {
        (
            f"logstore.{flag}" if flag not in {"store", "metadata", "zone", "secret_file"} else flag
        ): v
        for flag, v in given.items()
    }
    tables.setdefault("store", str(tmp_path / "store"))
    config = load(tables, {"HOME": str(tmp_path)}, tmp_path)
    values = {setting.name.replace("logstore.", ""): chosen.value for setting, chosen in config}
    return make_settings(values, environ or {})


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[list[Service]]:
    started: list[Service] = []
    yield started
    for service in started:
        await service.close()


async def start(services: list[Service], tmp_path: Path, name: str = "n1", **flags: str):
    service = Service(settings(tmp_path, name, **flags))
    services.append(service)
    return service, await service.start()


def get(ready, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{ready.http}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def ask(ready, path: str) -> tuple[int, str]:
    return await asyncio.to_thread(get, ready, path)


async def record(tmp_path: Path, name: str = "n1"):
    async with wp.connect(tmp_path / "store", background=False) as client:
        seen = await NodeRecords(client.environment.catalog.store, SystemRuntime()).load(name)
        assert seen is not None
        return seen.record


# --- settings ---


def test_settings_become_those_of_the_node(tmp_path: Path) -> None:
    made = settings(tmp_path, soft_full_percent="50", zone="a", environ={"WOODPECKER_SECRET": "s"})
    assert (made.node.node, made.node.soft_full, made.node.file_bytes) == ("n1", 0.5, 1 << 20)
    assert (made.node.zone, made.access.zone, made.access.secret) == ("a", "a", b"s")
    assert (made.directory, made.listen) == (tmp_path / "n1", ("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"listen": "x"}, "--listen 'x': use HOST:PORT"),
        ({"listen": "0.0.0.0:1"}, "give --advertise"),
        ({"listen": "[::]:1"}, "give --advertise"),
        ({"advertise": "x"}, "--advertise 'x'"),
        ({"http": "9000"}, "--http '9000'"),
        ({"store": "wp://h:1"}, "needs the store itself"),
        ({"store": "memory://x"}, "needs the store itself"),
        ({"soft_full_percent": "90", "hard_full_percent": "80"}, "soft_full"),
        ({"journal_max_bytes": "4194305", "journal_file_bytes": "2097152"}, "at least four"),
        ({"secret_file": "/none"}, "secret_file=/none"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, flags, said) -> None:
    with pytest.raises(InvalidRequest, match=said):
        settings(tmp_path, **flags)


def test_missing_settings_are_named(tmp_path: Path) -> None:
    values = dict.fromkeys(("node", "dir", "store"), None)
    with pytest.raises(InvalidRequest, match="--node is missing"):
        make_settings(values, {})
    with pytest.raises(InvalidRequest, match="--dir is missing"):
        make_settings({**values, "node": "n"}, {})
    with pytest.raises(InvalidRequest, match="--store is missing"):
        make_settings({**values, "node": "n", "dir": "d"}, {})


def test_what_clients_are_told_has_no_secrets() -> None:
    url = "s3://b/p?endpoint=http://h:1&access_key_id=me&secret_access_key=geheim&region=x"
    assert public_store_url(url) == "s3://b/p?endpoint=http%3A%2F%2Fh%3A1&region=x"
    assert public_store_url("/var/lib/x") == "file:///var/lib/x"
    assert public_metadata_url(None) == ""
    assert public_metadata_url("etcd://u:geheim@h:1,i:2/p") == "etcd://h:1,i:2/p"
    tls = "etcd://h:1/p?ca_file=/ca&cert_file=/c&key_file=/k"
    assert public_metadata_url(tls) == "etcd://h:1/p?ca_file=/ca&tls=true"
    assert public_metadata_url("etcd://h:1/p?cert_file=/c&key_file=/k") == "etcd://h:1/p?tls=true"
    assert public_metadata_url("etcd://h:1/p?timeout_ms=5") == "etcd://h:1/p?timeout_ms=5"


# --- life ---


async def test_it_registers_serves_pages_and_says_goodbye(services, tmp_path: Path) -> None:
    service, ready = await start(services, tmp_path, zone="a", group="g")
    assert (await ask(ready, "/healthz"))[0] == (await ask(ready, "/readyz"))[0] == 200
    status = json.loads((await ask(ready, "/status"))[1])
    assert (status["node"], status["ready"], status["state"]) == ("n1", True, "active")
    assert (status["fences"], status["largest_logs"], status["boot"]) == ([], [], 1)
    code, page = await ask(ready, "/metrics")
    assert code == 200 and "woodpecker_logstore_ready 1.0" in page
    seen = await record(tmp_path)
    assert (seen.address, seen.http, seen.zone, seen.group) == (ready.address, ready.http, "a", "g")
    assert (seen.is_up, seen.boot, seen.incarnation) == (True, 1, ready.incarnation)
    await service.close()
    assert not (await record(tmp_path)).is_up
    with pytest.raises(OSError):
        await asyncio.to_thread(get, ready, "/healthz")
    _, again = await start(services, tmp_path)
    assert (again.boot, again.incarnation) == (2, ready.incarnation)


async def test_run_ends_with_the_signal(services, tmp_path: Path) -> None:
    service, _ = await start(services, tmp_path)
    stop = asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await asyncio.sleep(0)
    assert not running.done()
    stop.set()
    await running


async def test_a_failed_sync_ends_it_loudly(services, tmp_path, monkeypatch, caplog) -> None:
    service, ready = await start(services, tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(disk_files._Write, "run", fail)
    assert service._node is not None
    with pytest.raises(Unavailable):
        await service._node.set_floor("ab" * 16, 5)
    with pytest.raises(Unavailable, match="journal could not be written"):
        await service.run(asyncio.Event())
    assert any(line.levelname == "CRITICAL" for line in caplog.records)
    code, text = await ask(ready, "/healthz")
    assert code == 503 and "journal could not be written" in text
    assert (await ask(ready, "/readyz")) == (503, "failed\n")
    await service.close()


async def test_a_record_that_another_process_took_ends_it(services, tmp_path, caplog) -> None:
    service, ready = await start(services, tmp_path)
    async with wp.connect(tmp_path / "store", background=False) as client:
        records = NodeRecords(client.environment.catalog.store, SystemRuntime())
        while True:  # until between two beats
            seen = await records.load("n1")
            assert seen is not None
            stolen = replace(seen.record, token="f" * 32, boot=9)
            try:
                await records.put(stolen, expect=seen.version)
            except Conflict:
                continue
            break
        async with asyncio.timeout(20):
            with pytest.raises(Conflict, match="another process runs as this node"):
                await service.run(asyncio.Event())
        await service.close()
        left = await records.load("n1")
    assert left is not None and left.record.is_up  # that is the other's record: not ours to change
    assert ready.node == "n1"


async def test_the_same_directory_twice_or_another_nodes_is_refused(services, tmp_path) -> None:
    service, _ = await start(services, tmp_path)
    with pytest.raises(Unavailable, match="in use by another node"):
        await start(services, tmp_path)
    await service.close()
    with pytest.raises(InvalidRequest, match="belongs to node n1"):
        await start(services, tmp_path, "n2", dir=str(tmp_path / "n1"))


async def test_a_name_that_lives_elsewhere_is_refused(services, tmp_path) -> None:
    await start(services, tmp_path)
    with pytest.raises(Conflict, match="node name 'n1' is in use"):
        await start(services, tmp_path, dir=str(tmp_path / "other"))


async def test_a_taken_address_is_told(services, tmp_path) -> None:
    _, ready = await start(services, tmp_path)
    with pytest.raises(Unavailable, match="cannot listen"):
        await start(services, tmp_path, "n2", listen=ready.address)
    with pytest.raises(Unavailable, match="choose another --http"):
        await start(services, tmp_path, "n3", http=ready.http)


async def test_a_drain_is_seen_and_comes_to_its_end(services, tmp_path) -> None:
    _, ready = await start(services, tmp_path)
    async with wp.connect(tmp_path / "store", background=False) as client:
        records = NodeRecords(client.environment.catalog.store, SystemRuntime())
        await records.drain("n1")
        async with asyncio.timeout(20):
            while json.loads((await ask(ready, "/status"))[1])["state"] != "drained":
                await asyncio.sleep(0.05)
        seen = await records.load("n1")
        assert seen is not None and seen.record.state is NodeState.DRAINED


async def test_nobody_is_served_before_the_node_is_registered(
    services: list[Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = NodeSession.register

    async def watched(session: NodeSession, *, address: str, **fields: Any) -> None:
        host, _, port = address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))
        await register(session, address=address, **fields)

    monkeypatch.setattr(NodeSession, "register", watched)
    _, ready = await start(services, tmp_path)
    host, _, port = ready.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
