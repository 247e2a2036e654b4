"""Readers of quorum segments: any member will do, and none is believed without looking."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.segments.quorum_kit import FakeCluster, FakeNode, a_cluster

from woodpecker.core.register import EndLog
from woodpecker.errors import Corrupt, NotFound, Unavailable
from woodpecker.segments import quorum_reader
from woodpecker.segments.base import BlockSource
from woodpecker.testing.conformance.segment_log import (
    FIRST_US,
    FakeLog,
    OpenSegment,
    payloads_of,
    read,
)
from woodpecker.testing.virtual import on_virtual_time


async def written(
    cluster: FakeCluster, log: FakeLog, count: int = 20, size: int = 1_000
) -> OpenSegment:
    """A segment whose writer is at work elsewhere."""
    segment = await log.open(cluster.store("writer"))
    for number in range(count):
        await segment.append(b"%d." % number + bytes(size))
    await asyncio.sleep(0.02)
    return segment


async def numbers(source: BlockSource, seq: int = 0) -> list[int]:
    return [block.header.number async for block in source.blocks(seq)]


def damage(node: FakeNode, block: int) -> None:
    for copy in node.copies.values():
        data = copy.blocks[block]
        copy.blocks[block] = data[:-1] + bytes([data[-1] ^ 1])


# --- who is asked -----------------------------------------------------------------------------------


@on_virtual_time
async def test_the_member_in_the_same_zone_is_asked():
    async with a_cluster(zones=("c", "a", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log)
        for zone, node in (("a", "n2"), ("b", "n3"), ("c", "n1")):
            before = {n.name: n.seen["Read"] for n in cluster.nodes.values()}
            assert len(await read(cluster.store(zone, zone=zone), log.ref())) == 20
            asked = {n.name for n in cluster.nodes.values() if n.seen["Read"] > before[n.name]}
            assert asked == {node}
        await segment.finish()


@on_virtual_time
async def test_readers_without_a_zone_spread():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log)
        reader = cluster.store("reader")
        for _ in range(30):
            await read(reader, log.ref())
        assert min(node.seen["Read"] for node in cluster.nodes.values()) >= 4
        await segment.finish()


@pytest.mark.parametrize("how", ["crash", "mute", "cut", "wipe"])
@on_virtual_time
async def test_a_reader_goes_on_at_another_member_without_losing_its_place(how: str, monkeypatch):
    monkeypatch.setattr(quorum_reader, "FIRST_BYTES", 3_000)
    monkeypatch.setattr(quorum_reader, "MOST_BYTES", 3_000)
    async with a_cluster(zones=("a", "b", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=50)
        for ref in (log.ref(), await segment.finish()):
            source = cluster.store("reader", zone="a").source(ref)
            node = cluster.node(1)
            found = []
            async for block in source.blocks(0):
                found.append(block.header.number)
                if len(found) == 10:
                    if how == "mute":
                        node.is_mute = True
                    elif how == "cut":
                        cluster.network.snap("reader", "n1")
                        cluster.network.cut("reader", "n1")
                    else:
                        node.crash()
                    if how == "wipe":
                        node.wipe()
                        node.start()
            assert found == list(range(50))
            assert cluster.node(1).seen["Read"] > 0
            await source.close()
            if how == "crash":
                node.start()
            cluster.network.heal("reader", "n1")
            node.is_mute = False
            await asyncio.sleep(1)


@on_virtual_time
async def test_a_closed_segment_is_read_from_whoever_has_all_of_it():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store("writer"))
        await segment.append(b"0")
        cluster.node(1).crash()
        await segment.append(b"1")
        cluster.node(2).sync_ms = None
        ref = await segment.finish()
        cluster.node(2).crash()
        for number in (1, 2):
            cluster.node(number).start()
        for _ in range(10):
            source = cluster.store("reader").source(ref)
            assert await numbers(source) == [0, 1]
            assert await source.seq_at(FIRST_US + 1) == 1
            await source.close()


# --- nobody is believed -----------------------------------------------------------------------------


@on_virtual_time
async def test_a_damaged_copy_is_passed_over():
    async with a_cluster(zones=("a", "b", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log)
        damage(cluster.node(1), 7)
        ref = await segment.finish()
        source = cluster.store("reader", zone="a").source(ref)
        assert await numbers(source) == list(range(20))
        damage(cluster.node(2), 9)
        damage(cluster.node(3), 9)
        damage(cluster.node(1), 9)
        with pytest.raises(Corrupt, match="fails its checksum"):
            await read(cluster.store("another"), ref)


@on_virtual_time
async def test_a_block_of_another_chain_is_passed_over():
    async with a_cluster(zones=("a", "b", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log)
        other = await FakeLog().open(cluster.store("forger"))
        for number in range(20):
            other.pack([b"%d." % number + bytes(1_000), b"another"])
        for copy in cluster.node(1).copies.values():
            copy.blocks[:] = [bytes(block.buffer) for block in other.blocks]
        await other.writer.abandon()
        source = cluster.store("reader", zone="a").source(log.ref())
        await source.blocks(
            0
        ).__anext__()  # what comes first is taken for the chain: nothing is known
        ref = await segment.finish()
        found = await read(cluster.store("reader 2", zone="a"), ref)
        assert [block.header.digest for block in found] == [
            block.header.digest for block in segment.blocks
        ]


# --- how far ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_nothing_is_shown_that_is_not_confirmed():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=2)
        cluster.node(1).sync_ms = cluster.node(2).sync_ms = None
        waiting = segment.submit(segment.pack([b"on one disk"]))
        await asyncio.sleep(0.1)
        reader = cluster.store("reader")
        for _ in range(10):
            source = reader.source(log.ref())
            assert await source.visible_end() == 2
            assert await numbers(source) == [0, 1]
            assert await source.seq_at(FIRST_US + 2) == 2
        for node in (cluster.node(1), cluster.node(2)):
            node.sync()
        await waiting
        await segment.finish()


@on_virtual_time
async def test_the_writers_process_sees_at_once_what_is_acknowledged():
    async with a_cluster() as cluster:
        log = FakeLog()
        store = cluster.store()
        segment = await log.open(store)
        source = store.source(log.ref())
        for number in range(20):
            waiting = asyncio.ensure_future(source.wait_visible(number, 10_000))
            await asyncio.sleep(0)
            await segment.append(b"x")
            assert await source.visible_end() == number + 1
            assert await numbers(source, number) == [number]
            await asyncio.wait_for(waiting, 0.001)
        await segment.finish()


@on_virtual_time
async def test_what_this_client_has_seen_is_not_taken_back():
    async with a_cluster(zones=("a", "b", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=3)
        reader = cluster.store("reader", zone="a")
        assert await reader.source(log.ref()).visible_end() == 3
        for copy in cluster.node(1).copies.values():  # as after a restart
            copy.replica = copy.replica.__class__(incarnation="n1-1", epoch=1)
        source = reader.source(log.ref())
        assert await source.visible_end() == 3
        assert await numbers(source) == [0, 1, 2]
        await segment.writer.abandon()


@on_virtual_time
async def test_a_block_without_entries_is_found_at_its_seq():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=2)
        await segment.submit(segment.pack(control=EndLog()))
        ref = await segment.finish()
        for _ in range(5):
            assert [block.controls for block in await read(cluster.store("r"), ref, 2)] == [
                (EndLog(),)
            ]
            assert await read(cluster.store("r"), ref, 3) == []


# --- waiting ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_waiting_reader_is_told_and_does_not_ask_again_and_again():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=1)
        source = cluster.store("reader").source(log.ref())
        assert await numbers(source) == [0]
        asked = sum(node.seen["Read"] for node in cluster.nodes.values())
        waiting = asyncio.ensure_future(source.wait_visible(1, 60_000))
        await asyncio.sleep(4)
        assert sum(node.seen["Read"] for node in cluster.nodes.values()) == asked + 1
        await segment.append(b"x")
        async with asyncio.timeout(0.002):
            await waiting
        asked = sum(node.seen["Read"] for node in cluster.nodes.values())
        assert await numbers(source, 1) == [1]
        assert sum(node.seen["Read"] for node in cluster.nodes.values()) == asked  # came along
        await segment.finish()


@on_virtual_time
async def test_a_wait_ends_in_time():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=1)
        for ref in (log.ref(), await segment.finish()):
            source = cluster.store("reader").source(ref)
            began = asyncio.get_running_loop().time()
            await source.wait_visible(1, 700)
            assert 0.69 < asyncio.get_running_loop().time() - began < 0.75


@on_virtual_time
async def test_a_member_that_is_left_behind_does_not_hold_its_readers():
    async with a_cluster(zones=("a", "b", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=1)
        source = cluster.store("reader", zone="a").source(log.ref())
        assert await numbers(source) == [0]
        cluster.network.cut("writer", "n1")
        await segment.append(b"x")
        async with asyncio.timeout(12):
            while await source.visible_end() < 2:
                await source.wait_visible(1, 10_000)
        assert await numbers(source, 1) == [1]
        await segment.writer.abandon()


@on_virtual_time
async def test_a_wait_goes_on_at_another_member():
    async with a_cluster(zones=("a", "b", "b")) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=1)
        source = cluster.store("reader", zone="a").source(log.ref())
        assert await numbers(source) == [0]
        waiting = asyncio.ensure_future(source.wait_visible(1, 30_000))
        await asyncio.sleep(1)
        cluster.node(1).crash()
        await asyncio.sleep(1)
        await segment.append(b"x")
        async with asyncio.timeout(0.01):
            await waiting
        assert await numbers(source, 1) == [1]
        await segment.finish()


# --- not here ---------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_open_segment_that_no_member_knows_is_empty():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store("writer"))
        source = cluster.store("reader").source(log.ref())
        assert await source.visible_end() == 0
        assert await numbers(source) == []
        assert await source.seq_at(FIRST_US) == 0
        await segment.writer.abandon()


@on_virtual_time
async def test_below_the_floor_the_manifest_is_to_be_read():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log)
        ref = await segment.finish()
        cluster.node(1).raise_floor(log.log_id)
        cluster.node(2).raise_floor(log.log_id)
        cluster.node(3).crash()
        source = cluster.store("reader").source(ref)
        with pytest.raises(NotFound):
            await numbers(source)
        with pytest.raises(NotFound):
            await source.seq_at(FIRST_US)


@on_virtual_time
async def test_a_closed_segment_is_not_found_only_if_no_member_can_have_it():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=3)
        ref = await segment.finish()
        for number in (1, 2):
            cluster.node(number).crash()
            cluster.node(number).wipe()
            cluster.node(number).start()
        cluster.node(3).crash()
        with pytest.raises(Unavailable, match="n3"):
            await read(cluster.store("reader"), ref)
        cluster.node(3).wipe()
        cluster.node(3).start()
        with pytest.raises(NotFound):
            await read(cluster.store("reader 2"), ref)


@on_virtual_time
async def test_nobody_answers():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=1)
        for node in cluster.nodes.values():
            node.crash()
        source = cluster.store("reader").source(log.ref())
        for attempt in (
            numbers(source), source.visible_end(), source.wait_visible(1, 1_000), source.seq_at(0),
        ):  # fmt: skip
            with pytest.raises(Unavailable, match="connection refused"):
                await attempt
        await segment.writer.abandon()


@on_virtual_time
async def test_iterations_that_are_left_leave_nothing():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, count=300, size=10_000)
        ref = await segment.finish()
        source = cluster.store("reader").source(ref)
        for stop in (0, 1, 20, 100):
            iterator = source.blocks(0)
            async for block in iterator:
                if block.header.number == stop:
                    break
            await iterator.aclose()  # type: ignore[attr-defined]
            left = [n for n in cluster.runtime.running() if " to n" not in n]  # type: ignore[attr-defined]
            assert left == []
        assert len(payloads_of(await read(cluster.stores[-1], ref))) == 300
