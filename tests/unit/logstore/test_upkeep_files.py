"""Which journal files are written, kept and deleted, and when."""

from __future__ import annotations

import asyncio
import random

from tests.unit.logstore.node_kit import FILE_BYTES, Writer, open_node

from woodpecker.codec.messages import Refused
from woodpecker.logstore.node import Node
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time


@on_virtual_time
async def test_a_checkpoint_larger_than_a_file_is_not_followed_by_another_one() -> None:
    disk, runtime = SimDisk(random.Random(0), capacity_bytes=64 * FILE_BYTES), VirtualRuntime()
    node = await open_node(disk, runtime)
    writers = [
        Writer(node.identity.incarnation, log_id=f"{number:032x}", name=f"log-{number}")
        for number in range(5_000)
    ]  # some are refused: there is no file for them yet
    await asyncio.wait([writer.append(node, writer.pack()) for writer in writers])
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


@on_virtual_time
async def test_a_file_is_not_deleted_before_the_floor_that_freed_it_is_on_the_disk() -> None:
    """One log is let go while upkeep waits for the floor of another one."""
    disk, runtime = SimDisk(random.Random(0), capacity_bytes=64 * FILE_BYTES), VirtualRuntime()
    node = await open_node(disk, runtime)
    first, second, rest = (
        Writer(node.identity.incarnation, log_id=letter * 32, name=letter) for letter in "abc"
    )
    for writer in (first, second, rest):
        for _ in range(12):
            await writer.write(node, 1, 200_000)
    await runtime.sleep_ms(20_000)
    held = {w: set(_files(node, w)) for w in "abc"}
    only_second = held["b"] - held["a"] - held["c"]
    assert only_second and held["a"] - held["b"] - held["c"]
    disk.sync_ms = (5.0, 5.0)
    floor = asyncio.ensure_future(node.set_floor(first.log_id, 1))
    await asyncio.sleep(0.002)
    disk.sync_ms = (60_000.0, 60_000.0)  # the disk stalls in the next group, and not any longer
    node.journal.when_synced(lambda _: setattr(disk, "sync_ms", (0.1, 0.1)))
    stalled = asyncio.ensure_future(node.set_floor(second.log_id, 1))
    await floor
    await asyncio.sleep(1.0)
    assert not stalled.done()
    assert not (held["a"] - held["b"] - held["c"]) & set(disk.journal)
    assert only_second <= set(disk.journal)
    disk.crash()
    stalled.cancel()
    await asyncio.gather(stalled, return_exceptions=True)
    await node.close(clean=False)
    again = await open_node(disk, runtime)
    assert await second.read_all(again) == second.blocks
    await again.close()


@on_virtual_time
async def test_a_writer_that_is_refused_for_want_of_room_was_heard_of() -> None:
    disk, runtime = SimDisk(random.Random(0), capacity_bytes=4 * FILE_BYTES), VirtualRuntime()
    node = await open_node(disk, runtime)
    writer = Writer(node.identity.incarnation)
    await writer.write(node)
    answer = None
    while not isinstance(answer, Refused):
        await runtime.sleep_ms(10_000)
        answer, _ = await writer.append(node, writer.pack(200_000))
    assert answer.code == "overloaded"
    (held,) = node.held_segments(writer.log_id)
    assert held.idle_ms < 1_000
    await node.close()


def _files(node: Node, letter: str) -> list[int]:
    """Of the first segment of a log."""
    copy = node.copies.get(letter * 32, 0)
    return [] if copy is None else list(copy.spans)
