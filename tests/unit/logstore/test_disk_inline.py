"""Small writes made in the loop's thread: in order with the others, and failing like the others."""

from __future__ import annotations

import os

import pytest

from woodpecker.core.file_rules import Pace
from woodpecker.logstore import disk_files
from woodpecker.logstore.buffers import Buffers
from woodpecker.logstore.disk import UNIT_BYTES
from woodpecker.logstore.disk_files import DirectoryDisk

FILE_BYTES = 4 << 20


@pytest.fixture
async def disk(tmp_path):
    disk = DirectoryDisk(tmp_path / "node")
    yield disk
    await disk.close()


def unit(byte: int, count: int = 1) -> memoryview:
    place = memoryview(Buffers(1 << 20).take(count * UNIT_BYTES))[: count * UNIT_BYTES]
    place[:] = bytes([byte]) * len(place)
    return place


async def written_ahead(file) -> None:
    """The first small write lets zeros be written in front of the next ones."""
    await file.write([unit(0)], 0)
    while not file._zeros.cover(64 * UNIT_BYTES):
        await file.sync()  # through the threads that write zeros, too
        if not file._file.is_direct:
            pytest.skip("this file system writes through its cache: zeros are not written ahead")


@pytest.fixture
def quick(monkeypatch):
    """Syncs are believed to be quick, so that the loop waits for small ones; returns who wrote."""
    monkeypatch.setattr(Pace, "allows_inline", lambda *_: True)
    seen = []
    real = disk_files._Writer._may_block

    def spy(self, write):
        seen.append(real(self, write))
        return seen[-1]

    monkeypatch.setattr(disk_files._Writer, "_may_block", spy)
    return seen


async def test_small_writes_wait_for_those_that_a_thread_has(disk, quick):
    file = await disk.create(1, FILE_BYTES)
    await written_ahead(file)
    quick.clear()
    small = [file.write([unit(n)], n * UNIT_BYTES) for n in (1, 2)]
    assert quick == [True, True]
    assert all(future.done() for future in small)
    large = file.write([unit(3, 8)], 3 * UNIT_BYTES)
    behind = file.write([unit(4)], 11 * UNIT_BYTES)
    assert quick == [True, True, False, False]
    await large
    await behind
    found = await file.read(UNIT_BYTES, 11 * UNIT_BYTES)
    assert bytes(found[::UNIT_BYTES]) == bytes([1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4])
    for n in range(12, 40):
        await file.write([unit(5)], n * UNIT_BYTES)
    assert not quick[4]  # those before were not that small
    assert quick[-1]
    await file.close()


async def test_a_failed_write_of_the_loop_is_the_last_one(disk, quick):
    file = await disk.create(1, FILE_BYTES)
    await written_ahead(file)
    quick.clear()
    number = os.dup(file._file.fd)
    os.close(file._file.fd)
    with pytest.raises(OSError, match="Bad file"):
        await file.write([unit(1)], UNIT_BYTES)
    os.dup2(number, file._file.fd)
    os.close(number)
    with pytest.raises(OSError, match="Bad file"):  # what is on the disk is unknown from then on
        await file.write([unit(2)], 2 * UNIT_BYTES)
    with pytest.raises(OSError, match="Bad file"):
        await file.write([unit(2, 8)], 3 * UNIT_BYTES)
    assert quick == [True, True, False]
    await file.close()
