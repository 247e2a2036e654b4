"""Quorum writers against small nodes that a test can slow down, cut off, crash and empty."""

from __future__ import annotations

import asyncio
import tracemalloc

import pytest
from tests.unit.segments.quorum_kit import FakeCluster, FakeNode, a_cluster

from woodpecker.codec.messages import Fence
from woodpecker.core.replica import Target
from woodpecker.errors import Closed, Fenced, NotWritten, OutcomeUnknown, Overloaded, Unavailable
from woodpecker.segments import quorum_pipe, quorum_watch, quorum_writer
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.segments.quorum_writer import QuorumSegmentWriter
from woodpecker.testing.conformance.segment_log import FakeLog, OpenSegment
from woodpecker.testing.virtual import on_virtual_time


def writer_of(segment: OpenSegment) -> QuorumSegmentWriter:
    assert isinstance(segment.writer, QuorumSegmentWriter)
    return segment.writer


def blocks_on(node: FakeNode, segment: int = 0) -> int:
    """Synced blocks of the only log."""
    return sum(len(copy.blocks) for key, copy in node.disk.copies.items() if key[1] == segment)


async def fence(cluster: FakeCluster, node: FakeNode, log: FakeLog) -> None:
    """What ``woodpecker segment fence`` does."""
    link = await cluster.network.transport("person").connect(node.name, timeout_ms=100)
    segment = log.ref().segment
    target = Target(
        log_id=log.log_id,
        segment_id=segment.id,
        epoch=segment.epoch,
        incarnation=node.disk.incarnation,
    )
    await link.send(Fence(target=target, name="orders", epoch=9, token="9"), timeout_ms=100)
    await link.close()


# --- acknowledging ----------------------------------------------------------------------------------


@on_virtual_time
async def test_two_of_three_are_enough_and_the_third_gets_everything():
    async with a_cluster() as cluster:
        cluster.node(3).sync_ms = 400
        segment = await FakeLog().open(cluster.store())
        for number in range(10):
            async with asyncio.timeout(0.1):
                await segment.append(b"%d" % number)
        assert (blocks_on(cluster.node(3)), blocks_on(cluster.node(1))) == (0, 10)
        await asyncio.sleep(1)
        assert blocks_on(cluster.node(3)) == 10
        assert not writer_of(segment)._blocks
        await segment.finish()


@on_virtual_time
async def test_a_node_that_says_nothing_delays_nobody():
    async with a_cluster() as cluster:
        cluster.node(2).is_mute = True
        segment = await FakeLog().open(cluster.store())
        for number in range(10):
            async with asyncio.timeout(0.1):
                await segment.append(b"%d" % number)
        await segment.writer.abandon()


@on_virtual_time
async def test_five_members_need_three():
    async with a_cluster(5, replicas=5) as cluster:
        segment = await FakeLog().open(cluster.store())
        for number in (4, 5):
            cluster.node(number).crash()
        async with asyncio.timeout(0.1):
            await segment.append(b"three of five")
        cluster.node(3).crash()
        waiting = asyncio.ensure_future(segment.append(b"two of five"))
        await asyncio.sleep(1)
        assert not waiting.done()
        cluster.node(5).start()
        await asyncio.wait_for(waiting, 5)
        await segment.writer.abandon()


@on_virtual_time
async def test_every_node_is_sent_the_same_bytes():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        block = segment.pack([b"x" * 1000])
        await segment.submit(block)
        await asyncio.sleep(0.1)
        for node in cluster.nodes.values():
            (copy,) = node.disk.copies.values()
            assert copy.blocks == [bytes(block.buffer)]
        await segment.finish()


@on_virtual_time
async def test_a_full_window_gives_no_slot_and_an_empty_one_always_one(monkeypatch):
    async with a_cluster() as cluster:
        for node in cluster.nodes.values():
            node.sync_ms = None
        monkeypatch.setattr(quorum_writer, "WINDOW_BYTES", 1_250_000)
        segment = await FakeLog().open(cluster.store())
        writer = writer_of(segment)
        assert writer.slots == 1
        first = segment.submit(segment.pack([b"x" * 5_000_000]))  # larger than the window
        assert writer.slots == 1
        await asyncio.sleep(0.01)
        for node in cluster.nodes.values():
            node.sync()
        await first
        sent = [segment.submit(segment.pack([b"x" * 200_000])) for _ in range(3)]
        assert writer.slots == 4
        sent.append(segment.submit(segment.pack([b"x" * 200_000])))
        assert writer.slots == 4
        await asyncio.sleep(0.01)
        for node in cluster.nodes.values():
            node.sync()
        await asyncio.gather(*sent)
        assert writer.slots == 1
        await segment.finish()


# --- trouble with single members --------------------------------------------------------------------


@on_virtual_time
async def test_a_node_that_comes_back_with_its_disk_is_sent_what_it_lacks():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"0")
        await asyncio.sleep(0.01)
        cluster.node(3).sync_ms = None  # it takes blocks, and loses them in the crash
        for number in range(1, 5):
            await segment.append(b"%d" % number)
        cluster.node(3).crash()
        await segment.append(b"5")
        cluster.node(3).sync_ms = 0.1
        cluster.node(3).start()
        assert blocks_on(cluster.node(3)) == 1
        await asyncio.sleep(3)
        assert blocks_on(cluster.node(3)) == 6
        assert writer_of(segment).pipeline.lost == frozenset()
        await segment.finish()


@on_virtual_time
async def test_blocks_lost_on_the_way_to_a_node_that_lives_are_sent_again():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        for number in range(30):
            await segment.append(b"%d" % number)
            if number % 5 == 4:
                cluster.network.snap("client", f"n{number % 3 + 1}")
        await asyncio.sleep(3)
        assert [blocks_on(node) for node in cluster.nodes.values()] == [30, 30, 30]
        await segment.finish()


@pytest.mark.parametrize("what", ["wiped", "cut tail"])
@on_virtual_time
async def test_a_node_that_lost_records_is_sent_nothing_more(what: str):
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"0")
        await asyncio.sleep(0.01)
        node = cluster.node(3)
        node.crash()
        (node.wipe if what == "wiped" else node.cut_tail)()
        node.start()
        await segment.append(b"1")
        await asyncio.sleep(1)
        assert writer_of(segment).pipeline.lost == {2}
        assert writer_of(segment).bad_nodes(cluster.runtime.monotonic_ms()) == {"n3"}
        assert not writer_of(segment)._blocks  # nothing is kept for it
        assert blocks_on(node) == 0
        await segment.append(b"2")
        await segment.finish()


@on_virtual_time
async def test_what_a_node_acknowledged_and_lost_does_not_count():
    """Else the block would be acknowledged that is on one disk only."""
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store(), timeout_ms=5_000)
        for number in (1, 2):
            cluster.node(number).sync_ms = None
        waiting = segment.submit(segment.pack([b"x"]))
        await asyncio.sleep(0.1)
        assert blocks_on(cluster.node(3)) == 1
        node = cluster.node(3)
        node.crash()
        node.wipe()
        node.start()
        await asyncio.sleep(1)
        cluster.node(1).sync()
        await asyncio.sleep(0.1)
        assert not waiting.done()
        cluster.node(2).sync()
        await asyncio.wait_for(waiting, 1)
        await segment.finish()


@on_virtual_time
async def test_a_node_that_forgets_under_its_incarnation_is_lost():
    """It must not, so nothing can be expected of it."""
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        for number in range(3):
            await segment.append(b"%d" % number)
        await asyncio.sleep(0.01)
        cluster.node(2).crash()
        cluster.node(2).disk.copies.clear()
        cluster.node(2).start()
        await asyncio.sleep(2)
        await segment.append(b"more")
        await asyncio.sleep(0.1)
        assert writer_of(segment).pipeline.lost == {1}
        await segment.finish()


@on_virtual_time
async def test_a_node_that_hangs_is_connected_to_anew(monkeypatch):
    monkeypatch.setattr(quorum_pipe, "REPLY_MS", 1_000)
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        cluster.node(3).is_mute = True
        await segment.append(b"x")
        await asyncio.sleep(0.5)
        cluster.node(3).is_mute = False
        await asyncio.sleep(3)
        assert blocks_on(cluster.node(3)) == 1
        await segment.finish()


@on_virtual_time
async def test_one_way_cuts_are_survived():
    async with a_cluster() as cluster:
        cluster.network.dead_after_ms = 1_000
        segment = await FakeLog().open(cluster.store())
        for way in (("client", "n1"), ("n2", "client")):
            cluster.network.cut(*way)
            waiting = asyncio.ensure_future(segment.append(b"x"))
            await asyncio.sleep(2)
            cluster.network.heal(*way)
            await asyncio.wait_for(waiting, 10)
            await asyncio.sleep(5)
        assert [blocks_on(node) for node in cluster.nodes.values()] == [2, 2, 2]
        await segment.finish()


@on_virtual_time
async def test_a_slow_member_is_given_up_before_it_costs_too_much_memory(monkeypatch):
    monkeypatch.setattr(quorum_writer, "BEHIND_BYTES", 1_000_000)
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        writer = writer_of(segment)
        cluster.node(1).sync_ms = None
        for _ in range(9):
            await segment.append(b"x" * 100_000)
        assert writer.pipeline.lost == frozenset()
        for _ in range(2):
            await segment.append(b"x" * 100_000)
        assert writer.pipeline.lost == {0}
        assert writer.behind_bytes < 1_000_000
        await segment.append(b"x")
        await segment.finish()


@on_virtual_time
async def test_all_writers_together_keep_so_much_for_slow_members(monkeypatch):
    monkeypatch.setattr(quorum_watch, "BEHIND_BYTES", 1_000_000)
    async with a_cluster() as cluster:
        store = cluster.store()
        logs = [await FakeLog(log_id=f"{n:032x}").open(store) for n in range(3)]
        cluster.node(1).sync_ms = None
        for segment, count in zip(logs, (5, 4, 2), strict=True):
            for _ in range(count):
                await segment.append(b"x" * 100_000)
        assert [writer_of(segment).pipeline.lost for segment in logs] == [{0}, set(), set()]
        for segment in logs:
            await segment.writer.abandon()
        assert store._watch._behind_bytes == 0


@on_virtual_time
async def test_a_member_that_the_quorum_needs_is_never_given_up(monkeypatch):
    monkeypatch.setattr(quorum_writer, "BEHIND_BYTES", 300_000)
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        writer = writer_of(segment)
        cluster.node(1).sync_ms = None
        await segment.append(b"x" * 200_000)
        cluster.node(3).crash()
        cluster.node(3).wipe()
        cluster.node(3).start()
        waiting = segment.submit(segment.pack([b"y" * 200_000]))
        await asyncio.sleep(1)
        assert writer.pipeline.lost == {2}
        cluster.node(1).sync_ms = 0.1
        cluster.node(1).sync()
        await asyncio.wait_for(waiting, 5)
        await segment.finish()


# --- full disks -------------------------------------------------------------------------------------


@on_virtual_time
async def test_one_full_disk_delays_nobody_and_is_sent_everything_later():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        cluster.node(1).pressure = 2
        for number in range(5):
            async with asyncio.timeout(0.1):
                await segment.append(b"%d" % number)
        assert blocks_on(cluster.node(1)) == 0
        cluster.node(1).pressure = 0
        await asyncio.sleep(3)
        assert blocks_on(cluster.node(1)) == 5
        await segment.finish()


@on_virtual_time
async def test_a_quorum_of_full_disks_refuses_appends_until_there_is_room():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        writer = writer_of(segment)
        for number in (1, 2):
            cluster.node(number).pressure = 2
        waiting = segment.submit(segment.pack([b"x"]))  # sent before that was known
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded, match="n1, n2 are full"):
            writer.reserve(1)
        await asyncio.sleep(5)
        assert not waiting.done()
        for number in (1, 2):
            cluster.node(number).pressure = 0
        await asyncio.wait_for(waiting, 5)
        writer.reserve(1)
        await segment.finish()


@on_virtual_time
async def test_answers_to_blocks_sent_before_a_refusal_lose_no_member():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        nodes = [cluster.node(number) for number in (1, 2, 3)]
        for node in nodes:
            node.sync_ms = 20  # blocks are refused at once, and acknowledged later
        first = [segment.submit(segment.pack([b"%d" % number])) for number in range(5)]
        await asyncio.sleep(0.005)
        for node in nodes:
            node.pressure = 2
        last = segment.submit(segment.pack([b"last"]))
        await asyncio.wait_for(asyncio.gather(*first), 1)
        await asyncio.sleep(3)
        assert not last.done()
        for node in nodes:
            node.pressure = 0
        await asyncio.wait_for(last, 10)
        await segment.finish()


@on_virtual_time
async def test_soft_pressure_slows_down_and_asks_for_early_sealing():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        writer = writer_of(segment)
        cluster.node(2).pressure = 1
        await segment.append(b"x" * 9_000_000)
        await asyncio.sleep(1)
        segment.submit(segment.pack([b"x" * 1_000_000]))
        assert writer.slots == 1  # a window of 1 MiB
        assert writer.wants_roll
        await segment.writer.abandon()


@on_virtual_time
async def test_a_full_disk_has_small_segments_sealed_as_well():
    """Nobody else has room, so it is no better elsewhere: but sealed, it needs no room at all."""
    async with a_cluster() as cluster:
        store = cluster.store()
        idle = await FakeLog().open(store)
        await idle.append(b"small")
        await asyncio.sleep(0.1)
        other = await FakeLog(log_id="b" * 32).open(store)
        for node in cluster.nodes.values():
            node.pressure = 2
        waiting = other.submit(other.pack([b"x"]))
        await asyncio.sleep(2)
        assert idle.writer.wants_roll
        for node in cluster.nodes.values():
            node.pressure = 0
        await asyncio.wait_for(waiting, 5)
        await idle.finish()
        await other.finish()


# --- fences -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_person_who_fences_one_member_costs_that_member_only():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store())
        await segment.append(b"a")
        await fence(cluster, cluster.node(2), log)
        await segment.append(b"b")
        await asyncio.sleep(0.1)
        assert writer_of(segment).pipeline.lost == {1}
        await segment.append(b"c")
        await segment.finish()


@on_virtual_time
async def test_a_taker_over_ends_the_writer_with_what_is_known():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store())
        await segment.append(b"a")
        end = segment.end
        log.epoch = 2
        await cluster.store("other").recover(log.ref(), token="f" * 32)
        waiting = [segment.submit(segment.pack([b"%d" % n])) for n in range(3)]
        log.close(end)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [getattr(error, "outcome", None) for error in outcomes] == ["not_written"] * 3
        with pytest.raises(Fenced, match="another writer took the log over"):
            await segment.append(b"later")
        await segment.writer.abandon()


@on_virtual_time
async def test_what_the_taker_over_kept_is_acknowledged():
    """The writer hears of the fence, and of E, before all its members have answered."""
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store())
        await segment.append(b"a")
        cluster.node(1).sync_ms = cluster.node(2).sync_ms = None
        kept = segment.submit(segment.pack([b"kept"]))  # on one disk, so far
        end = segment.end
        await asyncio.sleep(0.1)
        await fence(cluster, cluster.node(3), log)
        log.epoch = 2
        log.close(end)
        late = segment.submit(segment.pack([b"late"]))
        await asyncio.wait_for(kept, 1)
        with pytest.raises(Fenced) as caught:
            await late
        assert caught.value.outcome == "not_written"
        await segment.writer.abandon()


@on_virtual_time
async def test_while_the_manifest_cannot_be_read_nothing_is_known():
    async with a_cluster() as cluster:
        log = FakeLog()
        answers = iter([Unavailable("away")] * 3)
        read = log.read_manifest

        async def unsteady():
            if segment_is_open:
                for error in answers:
                    raise error
            return await read()

        segment_is_open = False
        log.read_manifest = unsteady  # type: ignore[method-assign]
        segment = await log.open(cluster.store())
        segment_is_open = True
        await segment.append(b"a")
        await fence(cluster, cluster.node(1), log)
        await fence(cluster, cluster.node(2), log)
        waiting = segment.submit(segment.pack([b"b"]))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        log.epoch = 2
        log.put(log.ref().segment)
        with pytest.raises(Fenced) as caught:
            await asyncio.wait_for(waiting, 5)
        assert caught.value.outcome == "unknown"
        await segment.writer.abandon()


@on_virtual_time
async def test_below_the_floor_the_manifest_is_read():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store())
        await segment.append(b"a")
        for node in cluster.nodes.values():
            node.raise_floor(log.log_id)
        waiting = segment.submit(segment.pack([b"b"]))
        log.manifest = FakeLog(log_id="9" * 32).manifest
        with pytest.raises(Fenced) as caught:
            await waiting
        assert caught.value.outcome == "unknown"
        await segment.writer.abandon()


# --- no quorum --------------------------------------------------------------------------------------


@on_virtual_time
async def test_without_a_quorum_appends_wait_and_go_on_when_a_node_returns():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"a")
        await asyncio.sleep(0.01)
        for number in (1, 2):
            cluster.node(number).crash()
        waiting = [segment.submit(segment.pack([b"%d" % n])) for n in range(3)]
        await asyncio.sleep(15)
        assert not any(future.done() for future in waiting)
        cluster.node(2).start()
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        await segment.finish()


@on_virtual_time
async def test_without_a_quorum_the_writer_ends_after_the_time_out():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store(), timeout_ms=3_000)
        for number in (1, 2):
            cluster.node(number).crash()
        began = asyncio.get_running_loop().time()
        with pytest.raises(OutcomeUnknown, match=r"no 2 members had a block within 3000 ms.*n1"):
            await segment.append(b"a")
        assert 2.9 < asyncio.get_running_loop().time() - began < 3.5
        with pytest.raises(NotWritten, match="nothing later was sent"):
            await segment.append(b"b")
        await segment.writer.abandon()


@on_virtual_time
async def test_a_segment_that_lost_its_quorum_for_good_asks_to_be_closed_by_other_means():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"a")
        for number in (1, 2):
            cluster.node(number).crash()
        waiting = segment.submit(segment.pack([b"b"]))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        for number in (1, 2):
            cluster.node(number).wipe()
            cluster.node(number).start()
        await asyncio.sleep(5)
        assert segment.writer.wants_roll and segment.writer.slots == 1 and not waiting.done()
        with pytest.raises(OutcomeUnknown, match="no 2 members had a block within"):
            await asyncio.wait_for(waiting, 30)
        await segment.writer.abandon()


@on_virtual_time
async def test_an_idle_segment_that_lost_its_quorum_takes_no_block_and_can_be_closed():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        writer = writer_of(segment)
        rolls: list[int] = []
        writer.on_roll = lambda: rolls.append(1)
        await segment.append(b"a")
        for number in (1, 2):
            cluster.node(number).crash()
            cluster.node(number).wipe()
            cluster.node(number).start()
        await asyncio.sleep(3)
        assert (writer.slots, writer.wants_roll, rolls) == (0, True, [1])
        await segment.finish()


# --- going on elsewhere -----------------------------------------------------------------------------


async def _is_asked_to_roll(segment: OpenSegment, seconds: float) -> bool:
    rolled = asyncio.Event()
    segment.writer.on_roll = rolled.set
    try:
        async with asyncio.timeout(seconds):
            await rolled.wait()
    except TimeoutError:
        assert not segment.writer.wants_roll
        return False
    assert segment.writer.wants_roll
    return True


@pytest.mark.parametrize("how", ["crashed", "mute", "wiped", "full"])
@on_virtual_time
async def test_a_bad_member_is_replaced_in_seconds(how: str):
    async with a_cluster(4) as cluster:
        segment = await FakeLog().open(cluster.store())
        node = cluster.node(2)
        if how == "mute":
            node.is_mute = True
        elif how == "full":
            node.pressure = 2
        else:
            node.crash()
        if how == "wiped":
            node.wipe()
            node.start()
        await segment.append(b"x")
        assert await _is_asked_to_roll(segment, 6)
        await segment.finish()


@on_virtual_time
async def test_an_idle_segment_with_a_dead_member_is_rolled_as_well():
    async with a_cluster() as cluster:  # to the two that are left
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"x")
        await asyncio.sleep(1)
        cluster.node(2).crash()
        assert await _is_asked_to_roll(segment, 6)
        await segment.finish()


@on_virtual_time
async def test_where_no_better_nodes_are_nothing_moves():
    async with a_cluster(2) as cluster:
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"x")
        cluster.node(2).crash()
        assert not await _is_asked_to_roll(segment, 30)
        await segment.finish()


@on_virtual_time
async def test_better_nodes_are_asked_for():
    async with a_cluster(2) as cluster:
        store = cluster.store()
        segment = await FakeLog().open(store)
        await segment.append(b"x")
        assert not await _is_asked_to_roll(segment, 5)
        store._nodes.better = True  # type: ignore[attr-defined]
        assert await _is_asked_to_roll(segment, 2)
        await segment.finish()


@on_virtual_time
async def test_a_node_that_comes_and_goes_does_not_make_a_roll_each_time():
    async with a_cluster(4) as cluster:
        store = cluster.store()
        log = FakeLog()
        rolls = 0
        segment = await log.open(store)
        for _ in range(20):
            store._nodes.better = True  # type: ignore[attr-defined]
            await segment.append(b"x")
            if await _is_asked_to_roll(segment, 1):
                rolls += 1
                await segment.finish()
                segment = await log.open(store)
        assert rolls in (3, 4)
        await segment.writer.abandon()


@on_virtual_time
async def test_a_segment_of_two_members_stays_small(monkeypatch):
    monkeypatch.setattr(quorum_writer, "SMALL_SEGMENT_BYTES", 100_000)
    for nodes, expected in ((2, True), (3, False)):
        async with a_cluster(nodes) as cluster:
            segment = await FakeLog().open(cluster.store())
            await segment.append(b"x" * 60_000)
            assert not segment.writer.wants_roll
            await segment.append(b"x" * 60_000)
            assert segment.writer.wants_roll is expected
            await segment.finish()


@on_virtual_time
async def test_a_segment_made_ready_is_made_anew_when_a_member_went_away_meanwhile():
    async with a_cluster(4) as cluster:
        _, _, writer = await FakeLog().prepare(cluster.store())
        assert not writer.wants_roll
        cluster.node(1).crash()
        await asyncio.sleep(0.1)
        assert writer.wants_roll
        await writer.abandon()


@on_virtual_time
async def test_nodes_that_cannot_be_reached_are_passed_over():
    async with a_cluster(5) as cluster:
        cluster.node(1).crash()
        cluster.network.cut("client", "n3")
        _, place, writer = await FakeLog().prepare(cluster.store())
        assert [member.node for member in place.members] == ["n2", "n4", "n5"]  # type: ignore[union-attr]
        await writer.abandon()


@on_virtual_time
async def test_an_ensemble_short_of_one_member_is_better_than_none():
    async with a_cluster(3) as cluster:
        cluster.node(1).crash()
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"x")
        await segment.finish()


@on_virtual_time
async def test_too_few_nodes_are_told_with_their_reasons():
    async with a_cluster(3) as cluster:
        cluster.node(1).crash()
        cluster.node(2).crash()
        with pytest.raises(Unavailable, match=r"1 of 2 nodes can be reached.*connection refused"):
            await FakeLog().prepare(cluster.store())


# --- readers are told -------------------------------------------------------------------------------


@on_virtual_time
async def test_the_lac_follows_soon_when_nothing_more_is_sent():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        await segment.append(b"x")
        await asyncio.sleep(0.01)
        lacs = [copy.replica.lac for n in cluster.nodes.values() for copy in n.copies.values()]
        assert lacs == [0, 0, 0]
        assert [node.seen["Advance"] for node in cluster.nodes.values()] == [1, 1, 1]
        await asyncio.sleep(10)
        assert [node.seen["Advance"] for node in cluster.nodes.values()] == [1, 1, 1]
        await segment.finish()


@on_virtual_time
async def test_while_blocks_follow_they_carry_the_lac():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        for _ in range(50):
            await segment.append(b"x")
        assert [node.seen["Advance"] for node in cluster.nodes.values()] == [0, 0, 0]
        await segment.finish()


@on_virtual_time
async def test_what_is_confirmed_is_told_though_a_later_block_hangs():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store())
        first = segment.submit(segment.pack([b"x"]))
        await asyncio.sleep(0.00015)
        for node in cluster.nodes.values():
            node.sync_ms = None
        segment.submit(segment.pack([b"y"]))
        await first
        await asyncio.sleep(0.1)
        lacs = {copy.replica.lac for n in cluster.nodes.values() for copy in n.copies.values()}
        assert lacs == {0}
        await segment.writer.abandon()


# --- letting go -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["idle", "sending", "judging", "no quorum"])
@on_virtual_time
async def test_an_abandoned_writer_leaves_nothing(when: str):
    async with a_cluster() as cluster:
        log = FakeLog()
        store = cluster.store()
        segment = await log.open(store)
        await segment.append(b"x")
        futures = []
        if when == "no quorum":
            for number in (1, 2):
                cluster.node(number).crash()
        elif when == "judging":
            await fence(cluster, cluster.node(1), log)
            cluster.node(2).sync_ms = None
            log.read_manifest = asyncio.Event().wait  # type: ignore[assignment, method-assign]
            segment.writer._read_manifest = log.read_manifest  # type: ignore[attr-defined]
        if when != "idle":
            futures.append(segment.submit(segment.pack([b"y"])))
            await asyncio.sleep(0.0005 if when == "judging" else 0)
        await segment.writer.abandon()
        for error in await asyncio.gather(*futures, return_exceptions=True):
            assert isinstance(error, OutcomeUnknown)
        assert not store._watch.writers
        assert not [p for p in store._links.peers if list(p.users)]


@on_virtual_time
async def test_a_closed_store_ends_its_writers():
    async with a_cluster() as cluster:
        segment = await FakeLog().open(cluster.store(), timeout_ms=2_000)
        cluster.node(1).sync_ms = cluster.node(2).sync_ms = None
        waiting = segment.submit(segment.pack([b"x"]))
        await cluster.stores[0].close()
        with pytest.raises(OutcomeUnknown, match="the client was closed"):
            await waiting
        with pytest.raises(NotWritten):
            await segment.append(b"y")
        await segment.writer.abandon()
        with pytest.raises(Closed):
            await FakeLog().prepare(cluster.stores[0])


@on_virtual_time
async def test_idle_writers_cost_little_and_no_task():
    async with a_cluster() as cluster:
        store: QuorumSegments = cluster.store()
        logs = [FakeLog(log_id=f"{n:032x}") for n in range(300)]
        segments = []
        for log in logs[:50]:
            segments.append(await log.open(store))
            await segments[-1].append(b"x")
        await asyncio.sleep(1)
        tasks = len(asyncio.all_tasks())
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        writers = []
        for log in logs[50:]:
            segment = await log.open(store)
            await segment.append(b"x")
            segment.blocks.clear()
            writers.append(segment.writer)
        await asyncio.sleep(1)
        used = sum(
            item.size_diff
            for item in tracemalloc.take_snapshot().compare_to(before, "filename")
            if "quorum_kit" not in item.traceback[0].filename
            and "segment_log" not in item.traceback[0].filename
        )
        tracemalloc.stop()
        assert len(asyncio.all_tasks()) == tasks
        assert used / len(writers) < 20_000
        for writer in (*writers, *(segment.writer for segment in segments)):
            await writer.abandon()
