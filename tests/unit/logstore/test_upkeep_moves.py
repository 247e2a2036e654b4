"""What lives on in old files is moved together: moving must make room, not work for the next move."""

from __future__ import annotations

import errno
import random

import pytest
from tests.unit.logstore.node_kit import FILE_BYTES, Writer, open_node

from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time, run


@pytest.mark.parametrize("logs", [1, 40])
def test_small_blocks_that_came_one_by_one_are_moved_once_and_then_lie_close(logs: int) -> None:
    run(_move(logs))


async def _move(logs: int) -> None:
    disk = SimDisk(random.Random(0), capacity_bytes=64 * FILE_BYTES)
    runtime = VirtualRuntime()
    node = await open_node(disk, runtime)
    incarnation = node.identity.incarnation
    writers = [
        Writer(incarnation, log_id=f"{number:032x}", name=f"log-{number}") for number in range(logs)
    ]
    for _ in range(2_000 // logs):
        for writer in writers:
            await writer.write(node)  # alone in its group: a whole unit of the disk
    assert len(disk.journal) > 2_000 * 4096 / FILE_BYTES / 2
    await runtime.sleep_ms(60_000)
    written, files = disk.bytes_written, len(disk.journal)
    assert files <= 8
    await runtime.sleep_ms(600_000)
    assert disk.bytes_written - written <= FILE_BYTES
    for writer in writers:
        assert await writer.read_all(node) == writer.blocks
    await node.close()
    again = await open_node(disk, runtime)
    for writer in writers:
        assert await writer.read_all(again) == writer.blocks
    await again.close()


@on_virtual_time
async def test_a_block_that_cannot_be_read_does_not_keep_the_others_from_being_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk, runtime = SimDisk(random.Random(0), capacity_bytes=64 * FILE_BYTES), VirtualRuntime()
    node = await open_node(disk, runtime)
    kept = Writer(node.identity.incarnation, log_id="a1" * 16, name="kept")
    await kept.write(node, 1, 1000)
    copy = node.copies.get(kept.log_id, 0)
    assert copy is not None
    bad = copy.index.file(0)
    monkeypatch.setattr(node.journal.files[bad], "read", _bad_sector)
    for number in range(12):  # a little of ``kept`` in each file; the rest goes
        await kept.write(node, 1, 1000)
        gone = Writer(node.identity.incarnation, log_id=f"{number:032x}", name=f"gone-{number}")
        await gone.write(node, 5, 200_000)
        await node.set_floor(gone.log_id, 1)
        await runtime.sleep_ms(10)  # the next file is made
    await runtime.sleep_ms(120_000)
    assert bad in disk.journal and len(disk.journal) <= 8
    await node.close()


async def _bad_sector(_offset: int, _size_bytes: int) -> memoryview:
    raise OSError(errno.EIO, "Input/output error")
