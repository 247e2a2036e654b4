"""Starts of a node, again and again."""

from __future__ import annotations

import asyncio
import random

from tests.unit.logstore.node_kit import FILE_BYTES, Writer, open_node

from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


@on_virtual_time
async def test_a_node_that_dies_soon_after_each_start_does_not_fill_its_disk() -> None:
    disk = SimDisk(random.Random(1), capacity_bytes=6 * FILE_BYTES)
    runtime = VirtualRuntime()
    node = await open_node(disk, runtime)
    writer = Writer(node.identity.incarnation)
    await writer.write(node, 3)
    for _ in range(20):
        await asyncio.sleep(0.1)
        disk.crash()
        await node.close(clean=False)
        node = await open_node(disk, runtime)
    assert disk.used_bytes() <= 4 * FILE_BYTES
    assert node.identity.incarnation == writer.incarnation
    await writer.write(node)
    await node.close()
