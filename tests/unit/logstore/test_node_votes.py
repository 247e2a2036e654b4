"""What a node answers to a fence, also after it was started again."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.unit.logstore.node_kit import EPOCH, NAME, Lab, Writer, open_node, send

from woodpecker.codec.journal import Kind
from woodpecker.codec.messages import Fence, Repair, Voted
from woodpecker.core.ids import NO_BLOCK
from woodpecker.errors import Unavailable
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


@on_virtual_time
async def test_a_vote_says_up_to_where_the_writer_had_confirmed() -> None:
    """It may lie above the copy's own blocks: then others must have them (``core/quorum_recovery``)."""
    disk, runtime = SimDisk(random.Random(1)), VirtualRuntime(1)
    node = await open_node(disk, runtime)
    writer = Writer(node.identity.incarnation)
    await writer.write(node, 2)
    await writer.advance(node, 3)
    voted = await writer.fence(node)
    assert voted.tip is not None
    assert (voted.tip.number, voted.complete, voted.lac) == (1, True, 3)
    await node.close()


@on_virtual_time
async def test_what_blocks_say_of_the_lac_outlives_a_restart() -> None:
    disk, runtime = SimDisk(random.Random(1)), VirtualRuntime(1)
    node = await open_node(disk, runtime)
    writer = Writer(node.identity.incarnation)
    await writer.append(node, writer.pack())
    await writer.append(node, writer.pack(lac=0))
    await node.close()
    node = await open_node(disk, runtime)
    voted = await writer.fence(node)
    assert voted.tip is not None
    assert (voted.tip.number, voted.lac) == (1, 0)
    unseen = Writer(node.identity.incarnation, segment_id=5)
    assert (await unseen.fence(node)).lac == NO_BLOCK
    await node.close()


@pytest.mark.parametrize("repairs_behind", [1, 2])
@on_virtual_time
async def test_a_second_taker_who_asks_between_two_repairs_of_one_group_has_its_vote(
    repairs_behind: int,
) -> None:
    """Its fence waits for a repair that is synced with it and told later."""
    async with Lab() as lab:
        node, writer = lab.node, lab.writer()
        other = lab.writer(log_id="cd" * 16, name="other")
        await writer.write(node, 1)
        for _ in range(1 + repairs_behind):
            writer.pack()
        await writer.fence(node)
        again = Fence(
            target=writer.target, name=NAME, epoch=EPOCH + 6, token="e" * 32, reason="second"
        )

        def repair(number: int) -> asyncio.Future[Any]:
            return send(node, Repair(target=writer.target, name=NAME, end=3), writer.blocks[number])

        asked = [repair(1), send(node, again)]  # all in one turn of the loop: one group
        asked += [repair(2 + number) for number in range(repairs_behind)]
        asked.append(other.append(node, other.pack()))
        _, pending = await asyncio.wait(asked, timeout=60)
        assert not pending
        (voted, _) = await asked[1]
        assert isinstance(voted, Voted) and voted.tip is not None
        assert voted.tip.number == 1 + repairs_behind
        assert await asyncio.wait_for(send(node, again), 60)


@on_virtual_time
async def test_who_raises_when_told_of_a_sync_does_not_keep_others_waiting() -> None:
    heard: list[Any] = []
    bugs: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: bugs.append(about))

    def raising(_error: Exception | None) -> None:
        raise RuntimeError("a bug")

    async with Lab() as lab:
        journal = lab.node.journal
        journal.put(Kind.NAME, b"a", raising, log_id="ab" * 16)
        journal.put(Kind.NAME, b"b", heard.append, log_id="cd" * 16)
        await journal.synced()
        assert heard == [None] and len(bugs) == 1
        lab.disk.fail_write_in = 1
        journal.put(Kind.NAME, b"a", raising, log_id="ab" * 16)
        journal.put(Kind.NAME, b"b", heard.append, log_id="cd" * 16)
        await lab.node.wait_stopped()
        assert isinstance(heard[1], Unavailable) and len(bugs) == 2
