"""Ending somebody else's quorum segment: who must answer, what is kept, what is made safe."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.unit.segments.quorum_kit import FakeCluster, FakeNode, a_cluster

from woodpecker.codec.header import parse_header
from woodpecker.core.register import GrantProducer
from woodpecker.core.replica import Replica, Tip
from woodpecker.errors import Corrupt, NotFound, Unavailable
from woodpecker.segments import quorum_recovery
from woodpecker.testing.conformance.segment_log import FakeLog, OpenSegment, payloads_of, read
from woodpecker.testing.virtual import on_virtual_time

TAKER = "f" * 32


async def written(
    cluster: FakeCluster, log: FakeLog, counts: dict[int, int], payload: bytes = b"x"
) -> OpenSegment:
    """A dead writer's segment of which node n has ``counts[n]`` blocks; others have all of them."""
    segment = await log.open(cluster.store("writer"))
    total = max(counts.values())
    for number in range(total):
        segment.submit(segment.pack([b"%d" % number, payload]))
    await asyncio.sleep(0.1)
    await segment.writer.abandon()
    for number, count in counts.items():
        shorten(cluster.node(number), log, count)
    await asyncio.sleep(0.1)
    return segment


def shorten(node: FakeNode, log: FakeLog, count: int) -> None:
    """The node never got more than so many blocks."""
    node.crash()
    for key, copy in list(node.disk.copies.items()):
        if key == (log.log_id, log.ref().segment.id):
            del copy.blocks[count:]
            if not count:
                del node.disk.copies[key]
    node.start()


def _shortened(replica: Replica, last: bytes) -> Replica:
    header = parse_header(last)
    tip = Tip(number=header.number, end_seq=header.end_seq, digest=header.digest)
    return replace(replica, queued=tip, synced=header.number)


def count_on(node: FakeNode) -> int:
    return sum(len(copy.blocks) for copy in node.disk.copies.values())


def end_of(segment: OpenSegment, number: int) -> tuple[int, str]:
    header = segment.blocks[number].header
    return header.number, header.digest.hex()


# --- which end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "down", "end"),
    [
        ((3, 3, 3), (), 2),
        ((3, 3, 2), (), 2),
        ((3, 3, 0), (), 2),
        ((3, 2, 2), (), 2),  # on one disk only: nobody was promised that it is not there
        ((3, 2, 2), (1,), 1),
        ((3, 3, 0), (1,), 2),
        ((3, 3, 0), (2,), 2),
        ((1, 1, 0), (3,), 0),
    ],
)
@on_virtual_time
async def test_the_end_is_the_last_block_of_any_cover(counts, down, end):
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, dict(enumerate(counts, 1)))
        for number in down:
            cluster.node(number).crash()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end is not None
        assert (found.end.block, found.end.digest) == end_of(segment, end)
        holders = [node for node in cluster.nodes.values() if count_on(node) > end]
        assert len(holders) >= 2, "made safe before the manifest says so"
        assert len(payloads_of(await read(cluster.store("r"), log.close(found.end)))) == 2 * end + 2


@on_virtual_time
async def test_all_that_was_acknowledged_is_found_by_any_two_of_three():
    for down in (1, 2, 3):
        async with a_cluster() as cluster:
            log = FakeLog()
            segment = await log.open(cluster.store())
            cluster.node(1 + down % 3).sync_ms = 5.0
            for number in range(20):
                await segment.append(b"%d" % number)
            cluster.node(down).crash()
            await segment.writer.abandon()
            found = await cluster.store("taker").recover(log.ref(), token=TAKER)
            assert found.end is not None
            assert found.end.seq >= 20


@on_virtual_time
async def test_no_block_at_all():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store())
        await segment.writer.abandon()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found == quorum_recovery.NOTHING
        fenced = [copy.replica.fence for n in cluster.nodes.values() for copy in n.copies.values()]
        assert [mark.token for mark in fenced if mark] == [TAKER] * 3


@on_virtual_time
async def test_members_disagree_over_one_number():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 2, 2: 2, 3: 2})
        forger = FakeLog()
        other = await forger.open(cluster.store())
        for payload in (b"0", b"another"):
            other.pack([payload])
        for copy in cluster.node(2).disk.copies.values():
            copy.blocks[1] = bytes(other.blocks[1].buffer)
        shorten(cluster.node(2), log, 2)
        cluster.node(3).crash()
        await asyncio.sleep(0.1)
        with pytest.raises(Corrupt, match="different blocks of number 1"):
            await cluster.store("taker").recover(log.ref(), token=TAKER)
        await other.writer.abandon()


@on_virtual_time
async def test_what_the_closing_step_must_know():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store("writer"))
        blocks = [
            segment.pack(control=GrantProducer(id="p", epoch=1)),
            segment.pack([b"plain"] * 3),
            *(segment.pack([b"x"], producer="p") for _ in range(40)),
            segment.pack([b"plain"]),
        ]
        for block in blocks:
            await segment.submit(block)
        await segment.writer.abandon()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.bytes == sum(block.header.size_bytes for block in blocks)
        assert found.first_timestamp_us == blocks[0].header.base_timestamp_us
        assert found.last_timestamp_us == blocks[-1].last_timestamp_us
        assert [len(facts.batches) for facts in found.facts] == [0] + 40 * [1]


# --- too few answers --------------------------------------------------------------------------------


@on_virtual_time
async def test_too_few_answers_decide_nothing_and_name_who_is_waited_for():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 2, 2: 2, 3: 2})
        cluster.node(2).crash()
        cluster.network.cut("taker", "n3")
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable) as caught:
            await cluster.store("taker").recover(log.ref(), token=TAKER)
        text = str(caught.value)
        assert "1 of its 3 members answered, 2 must" in text
        assert "node at n2: connection refused" in text
        assert "node at n3: no connection within" in text
        assert "log recover NAME --accept-loss" in text
        assert asyncio.get_running_loop().time() - began < 30


@on_virtual_time
async def test_it_goes_on_as_soon_as_a_member_comes_back():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 2, 2: 2, 3: 2})
        cluster.node(2).crash()
        cluster.node(3).crash()
        waiting = asyncio.ensure_future(cluster.store("taker").recover(log.ref(), token=TAKER))
        await asyncio.sleep(10)
        assert not waiting.done()
        cluster.node(3).start()
        found = await asyncio.wait_for(waiting, 5)
        assert found.end == segment.end


@on_virtual_time
async def test_nobody_waits_for_a_disk_that_is_gone():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 2, 2: 2, 3: 2})
        for number in (2, 3):
            cluster.node(number).crash()
            cluster.node(number).wipe()
            cluster.node(number).start()
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"incarnation n2-1 is gone.*accept-loss"):
            await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert asyncio.get_running_loop().time() - began < 1


@on_virtual_time
async def test_nobody_waits_when_lower_bounds_can_never_be_enough():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 3, 2: 3, 3: 3})
        for number in (1, 2, 3):
            cluster.node(number).crash()
            (cluster.node(number).wipe if number == 1 else cluster.node(number).cut_tail)()
            cluster.node(number).start()
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable, match=r"after losing records.*accept-loss"):
            await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert asyncio.get_running_loop().time() - began < 1


@on_virtual_time
async def test_a_lac_above_all_answers_is_no_end():
    """The member that has it is waited for; if its disk is gone, a person has to decide."""
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await log.open(cluster.store("writer"))
        for number in range(3):
            await segment.append(b"%d" % number)
        await asyncio.sleep(0.1)
        await segment.writer.abandon()
        for number in (1, 2):  # their disks lied about a sync
            node = cluster.node(number)
            for copy in (*node.copies.values(), *node.disk.copies.values()):
                del copy.blocks[2:]
                copy.replica = _shortened(copy.replica, copy.blocks[1])
        cluster.node(3).crash()
        waiting = asyncio.ensure_future(cluster.store("taker").recover(log.ref(), token=TAKER))
        await asyncio.sleep(5)
        assert not waiting.done()
        cluster.node(3).start()
        assert (await asyncio.wait_for(waiting, 5)).end == segment.end


@on_virtual_time
async def test_a_node_that_lost_records_counts_only_when_all_have_answered():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 3, 2: 3, 3: 3})
        cluster.node(3).crash()
        cluster.node(3).cut_tail(2)
        cluster.node(3).start()
        cluster.node(2).crash()
        taker = cluster.store("taker")
        with pytest.raises(
            Unavailable, match="2 of its 3 members answered, 1 of them after losing"
        ):
            await taker.recover(log.ref(), token=TAKER)
        cluster.node(2).start()
        found = await taker.recover(log.ref(), token=TAKER)
        assert found.end == segment.end


@on_virtual_time
async def test_three_lower_bounds_are_enough():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 3, 2: 3, 3: 3})
        for number in (1, 2, 3):
            cluster.node(number).crash()
            cluster.node(number).cut_tail(1 if number == 2 else 2)
            cluster.node(number).start()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end is not None
        assert (found.end.block, found.end.digest) == end_of(segment, 1)
        assert sorted(count_on(node) for node in cluster.nodes.values()) >= [1, 2, 2]


# --- making safe ------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_member_is_brought_up_to_the_end_and_stays_fenced():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 30, 2: 2, 3: 2}, payload=b"x" * 300_000)
        cluster.node(3).crash()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end == segment.end
        assert count_on(cluster.node(2)) == 30
        (copy,) = cluster.node(2).copies.values()
        assert copy.replica.fence is not None
        assert cluster.node(2).uploads == []


@on_virtual_time
async def test_another_member_is_taken_when_one_fails_in_the_middle():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 5, 2: 2, 3: 1})
        cluster.node(2).refuses = "Repair"
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end == segment.end
        assert count_on(cluster.node(3)) == 5


@on_virtual_time
async def test_five_members_are_brought_to_three_copies():
    async with a_cluster(5, replicas=5) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 4, 2: 1, 3: 1, 4: 0, 5: 0})
        cluster.node(5).crash()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end == segment.end
        assert sum(count_on(node) == 4 for node in cluster.nodes.values()) == 3


@on_virtual_time
async def test_a_holder_that_cannot_show_its_blocks_is_not_counted_as_a_copy():
    async with a_cluster(5, replicas=5) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 4, 2: 4, 3: 1, 4: 0, 5: 0})
        cluster.node(1).refuses = "Read"
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end == segment.end
        others = [node for node in cluster.nodes.values() if node is not cluster.node(1)]
        assert sum(count_on(node) == 4 for node in others) >= 3


@on_virtual_time
async def test_where_too_few_nodes_can_hold_it_it_is_uploaded():
    async with a_cluster(2) as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 4, 2: 4})
        cluster.node(1).crash()
        found = await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert found.end == segment.end
        (upload,) = cluster.node(2).uploads
        assert (upload.end, upload.name) == (segment.end, "orders")


@on_virtual_time
async def test_nothing_is_said_to_be_safe_when_the_upload_fails():
    async with a_cluster(2) as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 4, 2: 4})
        cluster.node(1).crash()
        cluster.node(2).refuses = "Upload"
        with pytest.raises(Unavailable, match="not now"):
            await cluster.store("taker").recover(log.ref(), token=TAKER)


@on_virtual_time
async def test_all_begins_again_when_the_holder_goes_away():
    """The second attempt may come to another end: nothing was promised about the block in question."""
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 3, 2: 2, 3: 2})
        cluster.node(1).refuses = "Read"
        waiting = asyncio.ensure_future(cluster.store("taker").recover(log.ref(), token=TAKER))
        await asyncio.sleep(2)
        assert not waiting.done()
        cluster.node(1).crash()
        found = await asyncio.wait_for(waiting, 20)
        assert found.end is not None
        assert (found.end.block, found.end.digest) == end_of(segment, 1)


@on_virtual_time
async def test_damage_is_not_spread():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 3, 2: 3, 3: 1})
        cluster.node(2).crash()
        for copy in (*cluster.node(1).copies.values(), *cluster.node(1).disk.copies.values()):
            copy.blocks[1] = copy.blocks[1][:-1] + bytes([copy.blocks[1][-1] ^ 1])
        with pytest.raises(Unavailable, match="fails its checksum"):
            await cluster.store("taker").recover(log.ref(), token=TAKER)
        assert count_on(cluster.node(3)) == 1
        cluster.node(2).start()
        found = await cluster.store("taker 2").recover(log.ref(), token=TAKER)
        assert found.end == segment.end


# --- others are faster ------------------------------------------------------------------------------


@on_virtual_time
async def test_below_the_floor_the_manifest_is_to_be_read():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 3, 2: 3, 3: 3})
        cluster.node(2).raise_floor(log.log_id)
        with pytest.raises(NotFound):
            await cluster.store("taker").recover(log.ref(), token=TAKER)


@on_virtual_time
async def test_two_takers_at_once_find_ends_that_both_are_safe():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 9, 2: 4, 3: 4})
        takers = [cluster.store(f"taker {n}") for n in range(3)]
        found = await asyncio.gather(
            *(taker.recover(log.ref(), token=f"{n:032x}") for n, taker in enumerate(takers))
        )
        assert all(one.end is not None and one.end.block >= 3 for one in found)
        assert segment.end in [one.end for one in found]


@on_virtual_time
async def test_a_cancelled_recovery_leaves_nothing():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 9, 2: 4, 3: 4}, payload=b"x" * 100_000)
        taker = cluster.store("taker")
        for pause_s in (0.0, 0.0001, 0.0003, 0.0005, 0.001, 0.002):
            task = asyncio.ensure_future(taker.recover(log.ref(), token=TAKER))
            await asyncio.sleep(pause_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert [n for n in cluster.runtime.running() if " to n" not in n] == []  # type: ignore[attr-defined]


# --- giving up --------------------------------------------------------------------------------------


@on_virtual_time
async def test_salvage_keeps_what_the_one_member_has_that_is_left():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 3, 2: 2, 3: 3})
        for number in (1, 3):
            cluster.node(number).crash()
        found = await cluster.store("taker").salvage(log.ref(), token=TAKER)
        assert found.end is not None
        assert (found.end.block, found.end.digest) == end_of(segment, 1)
        assert found.bytes == sum(block.header.size_bytes for block in segment.blocks[:2])
        assert len(cluster.node(2).uploads) == 1


@on_virtual_time
async def test_salvage_ends_before_damage_that_no_other_member_makes_good():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 6, 2: 6, 3: 3})
        for number, block in ((1, 1), (2, 3), (1, 4), (2, 4)):
            copy = next(iter(cluster.node(number).copies.values()))
            data = copy.blocks[block]
            copy.blocks[block] = data[:-1] + bytes([data[-1] ^ 1])
        found = await cluster.store("taker").salvage(log.ref(), token=TAKER)
        assert found.end is not None
        assert (found.end.block, found.end.digest) == end_of(segment, 3)


@on_virtual_time
async def test_salvage_of_nothing():
    async with a_cluster() as cluster:
        log = FakeLog()
        await written(cluster, log, {1: 3, 2: 2, 3: 3})
        for node in cluster.nodes.values():
            node.crash()
        found = await cluster.store("taker").salvage(log.ref(), token=TAKER)
        assert found == quorum_recovery.NOTHING


@on_virtual_time
async def test_salvage_makes_copies_where_it_can():
    async with a_cluster() as cluster:
        log = FakeLog()
        segment = await written(cluster, log, {1: 4, 2: 1, 3: 1})
        cluster.node(3).crash()
        cluster.node(3).wipe()
        found = await cluster.store("taker").salvage(log.ref(), token=TAKER)
        assert found.end == segment.end
        assert [count_on(cluster.node(n)) for n in (1, 2)] == [4, 4]
