"""A cluster of real processes: what a user does with it, and what happens to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path

import pytest
from tests.integration.cluster_kit import (
    Load,
    clean_env,
    command,
    dev_cluster,
    read_all,
)

import woodpecker as wp
from woodpecker.core.ids import Kind

APPEND_TIMEOUT_MS = 60_000


@pytest.fixture
async def cluster(tmp_path: Path):
    async with dev_cluster(tmp_path) as cluster:
        yield cluster


async def test_a_first_hour(cluster) -> None:
    """As in the README: connect by the nodes, append, read, look."""
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders")
        async with await log.open_writer() as writer:
            assert await writer.append(b"paid") == 0
            assert list(await writer.append_many([b"packed", b"shipped"])) == [1, 2]
        assert await read_all(log) == {0: b"paid", 1: b"packed", 2: b"shipped"}
        assert await log.tail() == 3
        shown = await log.describe()
        assert (shown.options.mode, shown.tail) == (Kind.QUORUM, 3)
        report = await log.verify()
        assert (report.first_seq, report.next_seq) == (0, 3)


async def test_one_node_killed_under_load_fails_no_append(cluster) -> None:
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders")
        async with await log.open_writer() as writer:
            load = Load(writer)
            await load.more()
            await cluster.nodes[1].kill()
            await load.more(200)
            await cluster.nodes[1].start()
            await load.more(200)
            expected = await load.stop()
        assert await read_all(log) == expected


async def test_with_two_nodes_killed_appends_wait_and_go_on(cluster) -> None:
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders", append_timeout_ms=APPEND_TIMEOUT_MS)
        async with await log.open_writer() as writer:
            load = Load(writer)
            await load.more()
            await cluster.nodes[0].kill()
            await cluster.nodes[1].kill()
            await asyncio.sleep(0.5)
            seen = len(load.acknowledged)
            await asyncio.sleep(0.5)
            assert len(load.acknowledged) == seen
            await cluster.nodes[0].start()
            await load.more()
            expected = await load.stop()
        assert await read_all(log) == expected


async def test_all_killed_and_started_again_lose_nothing(cluster) -> None:
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders", append_timeout_ms=APPEND_TIMEOUT_MS)
        writer = await log.open_writer()
        load = Load(writer)
        await load.more(100)
        for node in cluster.nodes:
            node.signal(signal.SIGKILL)
        for node in cluster.nodes:
            await node.wait_ended()
        acknowledged = dict(load.acknowledged)
        await asyncio.gather(*(node.start() for node in cluster.nodes))
        await load.more()
        expected = await load.stop()
        assert acknowledged.items() <= expected.items()
        assert await read_all(log) == expected
        await writer.close()


async def test_a_take_over_finds_what_a_killed_writer_had_acknowledged(cluster) -> None:
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders")
        first = await log.open_writer()
        load = Load(first)
        await load.more(50)
        for node in cluster.nodes:
            await node.kill()
        acknowledged = dict(load.acknowledged)
        await asyncio.gather(*(node.start() for node in cluster.nodes))
        async with await log.open_writer() as second:
            await second.append(b"second")
        found = await read_all(log)
        assert acknowledged.items() <= found.items()
        assert found[max(found)] == b"second"
        with pytest.raises(AssertionError, match=r"Fenced|OutcomeUnknown"):
            await load.stop()


async def test_a_node_with_an_empty_disk_has_no_vote(cluster) -> None:
    """It is as new: what the lost disk acknowledged is not forgotten, as its vote would have it."""
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders")
        writer = await log.open_writer()
        for number in range(20):
            await writer.append(b"entry %d" % number)
        lost, left, away = cluster.nodes
        for node in cluster.nodes:
            await node.kill()
        shutil.rmtree(lost.flag("dir"))
        await lost.start()
        await left.start()
        with pytest.raises((wp.Unavailable, TimeoutError)):
            await asyncio.wait_for(log.open_writer(), 4)
        await away.start()
        async with await log.open_writer() as second:
            assert await second.append(b"after") == 20
        assert len(await read_all(log)) == 21


async def test_a_rolling_restart_fails_no_append(cluster) -> None:
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders", append_timeout_ms=APPEND_TIMEOUT_MS)
        async with await log.open_writer() as writer:
            load = Load(writer)
            await load.more()
            for node in cluster.nodes:
                await node.stop()
                # where the log went on with two of two before, it may have to wait for the node
                await node.start()
                await load.more(50)
            expected = await load.stop()
        assert await read_all(log) == expected
    assert [await node.stop() for node in cluster.nodes] == [0, 0, 0]


async def test_a_drained_node_can_be_ended(tmp_path) -> None:
    async with dev_cluster(tmp_path, "--nodes", "4") as cluster, wp.connect(cluster.url) as client:
        log = await client.create_log("orders")
        async with await log.open_writer() as writer:
            load = Load(writer)
            await load.more()
            drained = (await log.describe()).segments[-1].ensemble.members[0].node  # type: ignore[union-attr]
            store = ("--store", cluster.url)
            out = await asyncio.to_thread(command, *store, "node", "drain", drained, "--wait")
            assert b"safe to terminate" in out
            await cluster[drained].stop()
            shutil.rmtree(cluster[drained].flag("dir"))
            await load.more(100)
            expected = await load.stop()
        assert await read_all(log) == expected
        await asyncio.to_thread(command, *store, "node", "forget", drained)
        nodes = json.loads(await asyncio.to_thread(command, *store, "-o", "json", "node", "list"))
        assert drained not in {node["node"] for node in nodes}


async def test_a_log_moves_from_file_to_quorum_to_object_under_a_reader(cluster, tmp_path) -> None:
    store = cluster.directory / "store"
    async with wp.connect(store) as client:
        log = await client.create_log("orders", mode="file")
        seen: list[int] = []

        async def follow() -> None:
            async for entry in log.read(start=0, follow=True):
                seen.append(entry.seq)
                assert entry.payload == b"entry %d" % entry.seq

        follower = asyncio.create_task(follow())
        written = 0
        for mode in ("file", "quorum", "object", "quorum"):
            await log.alter(mode=mode, segment_max_blocks=5)
            async with await log.open_writer() as writer:
                for _ in range(12):
                    assert await writer.append(b"entry %d" % written) == written
                    written += 1
        await log.end()
        async with asyncio.timeout(30):
            await follower
        assert seen == list(range(written))
        kinds = [segment.kind async for segment in client.environment.segments(
            await client.environment.catalog.read("orders"))]  # fmt: skip
        assert list(dict.fromkeys(kinds)) == [Kind.FILE, Kind.QUORUM, Kind.OBJECT]
        report = await log.verify()
        assert report.next_seq == written


def test_the_command_line_and_the_blocking_client(tmp_path) -> None:
    async def run() -> None:
        async with dev_cluster(tmp_path) as cluster:
            await asyncio.to_thread(_blocking, cluster.url)
            await asyncio.to_thread(_commands, cluster.url)

    asyncio.run(run())


def _blocking(url: str) -> None:
    with wp.blocking.connect(url) as client:
        log = client.create_log("blocking")
        with log.open_writer() as writer:
            assert writer.append(b"paid") == 0
        assert [entry.payload for entry in log.read()] == [b"paid"]


def _commands(url: str) -> None:
    store = ("--store", url)
    command(*store, "log", "create", "lines")
    command(*store, "append", "lines", stdin=b"one\ntwo\n")
    assert command(*store, "read", "lines") == b"one\ntwo\n"
    assert b"is sound" in command(*store, "log", "verify", "lines")
    nodes = json.loads(command(*store, "-o", "json", "node", "list"))
    assert [(node["node"], node["role"], node["state"]) for node in nodes] == [
        (f"node-{number}", "logstore", "active") for number in (1, 2, 3)
    ]
    segments = json.loads(command(*store, "-o", "json", "segment", "list", "lines"))
    assert [(s["kind"], s["base_seq"], s["end_seq"]) for s in segments] == [("quorum", 0, 2)]
    assert json.loads(command(*store, "-o", "json", "segment", "seal", "lines"))["name"] == "lines"
    (segment,) = json.loads(command(*store, "-o", "json", "segment", "list", "lines"))
    assert segment["state"] == "sealed"
    assert command(*store, "read", "lines") == b"one\ntwo\n"
    assert b"no LogStore node answers" in command(
        "--store", "wp://127.0.0.1:1", "log", "list", code=13
    )


async def test_segments_and_their_replicas_are_shown(cluster) -> None:
    store = ("--store", cluster.url, "-o", "json")
    async with wp.connect(cluster.url) as client:
        log = await client.create_log("orders")
        writer = await log.open_writer()
        await writer.append(b"paid")
        await cluster.nodes[2].kill()
        await writer.append(b"packed")
        shown = json.loads(
            await asyncio.to_thread(command, *store, "segment", "show", "orders", "0")
        )
        by_node = {replica["node"]: replica for replica in shown["replicas"]}
        assert by_node["node-1"]["last"] == 1 and by_node["node-1"]["lag_blocks"] == 0
        assert by_node["node-3"]["last"] is None and by_node["node-3"]["note"]
        fenced = json.loads(await asyncio.to_thread(command, *store, "segment", "fence", "orders"))
        assert fenced == {"name": "orders", "next_seq": 2}
        with pytest.raises(wp.Fenced):
            await writer.append(b"late")
        await writer.close()


async def test_the_same_directory_goes_on(tmp_path) -> None:
    async with dev_cluster(tmp_path, "--zones", keep=True) as cluster:
        url = cluster.url
        async with wp.connect(url) as client:
            log = await client.create_log("orders")
            async with await log.open_writer() as writer:
                await writer.append(b"paid")
    async with dev_cluster(tmp_path) as cluster:
        assert cluster.url == url
        shown = await asyncio.to_thread(command, "--store", url, "-o", "json", "node", "list")
        assert [node["zone"] for node in json.loads(shown)] == ["zone-1", "zone-2", "zone-3"]
        async with wp.connect(url) as client:
            log = await client.open_log("orders")
            async with await log.open_writer() as writer:
                assert await writer.append(b"packed") == 1
            assert list((await read_all(log)).values()) == [b"paid", b"packed"]


async def test_a_killed_process_stays_down_and_a_signal_ends_the_rest(tmp_path) -> None:
    async with dev_cluster(tmp_path, "--nodes", "2") as cluster:
        await cluster.nodes[0].kill()
        await asyncio.sleep(0.3)
        assert not cluster.nodes[0].is_running
        assert cluster.nodes[1].is_running
        assert await cluster.stop(signal.SIGINT) == 0
        assert not cluster.nodes[1].is_running
    assert clean_env()["PYTHONPATH"]
