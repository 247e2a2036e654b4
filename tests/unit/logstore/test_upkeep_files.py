"""Which journal files are written, kept and deleted, and when."""

from __future__ import annotations

import random

from tests.unit.logstore.node_kit import FILE_BYTES, Writer, open_node

from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


@on_virtual_time
async def test_a_checkpoint_larger_than_a_file_is_not_followed_by_another_one() -> None:
    disk, runtime = SimDisk(random.Random(0), capacity_bytes=64 * FILE_BYTES), VirtualRuntime()
    node = await open_node(disk, runtime)
    for number in range(5_000):
        writer = Writer(node.identity.incarnation, log_id=f"{number:032x}", name=f"log-{number}")
        last = writer.append(node, writer.pack())  # some are refused: there is no file for them yet
    await last
    held = node.copies.count
    assert held > 4_000
    await runtime.sleep_ms(10_000)
    written, files = disk.bytes_written, len(disk.journal)
    assert files <= 8
    await runtime.sleep_ms(600_000)
    assert disk.bytes_written - written <= FILE_BYTES
    await node.close()
    again = await open_node(disk, runtime)
    assert again.copies.count == held
    await again.close()
