"""A node that is started while its store is away: it waits, says so, and serves as soon as the store is back."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from woodpecker.testing.servers.etcd import EtcdCluster
from woodpecker.testing.servers.logstore import LogStoreNode

WAITS = "waits for its store"


async def _says(node: LogStoreNode, word: str) -> None:
    async with asyncio.timeout(60):
        while word not in node.log_file.read_text():
            assert node.is_running, node.log_file.read_text()
            await asyncio.sleep(0.02)


async def test_a_node_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd") as etcd:
        metadata = f"etcd://{etcd.endpoints[0]}/run?timeout_ms=500"
        store = (tmp_path / "store").as_uri()
        node = LogStoreNode("node-1", tmp_path, store=store, metadata=metadata)
        etcd.members[0].kill()
        node.spawn()
        try:
            await _says(node, WAITS)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{node.http}/readyz") as reply,
            ):
                assert reply.status == 503
            await asyncio.to_thread(etcd.members[0].start)
            await node.wait_ready()
            assert (await node.status())["ready"]
        finally:
            await node.stop()
        assert node.exit_code == 0


async def test_a_node_that_waits_ends_when_told(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd") as etcd:
        etcd.members[0].pause()
        metadata = f"etcd://{etcd.endpoints[0]}/run?timeout_ms=500"
        node = LogStoreNode(
            "node-1", tmp_path, store=(tmp_path / "store").as_uri(), metadata=metadata
        )
        node.spawn()
        try:
            await _says(node, WAITS)
        finally:
            await node.stop()
        assert node.exit_code not in (None, -signal.SIGKILL)
