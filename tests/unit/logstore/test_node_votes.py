"""What a node answers to a fence, also after it was started again."""

from __future__ import annotations

import random

from tests.unit.logstore.node_kit import Writer, open_node

from woodpecker.core.ids import NO_BLOCK
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
