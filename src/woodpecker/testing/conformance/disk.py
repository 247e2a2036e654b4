"""What every ``Disk`` must do. Subclass the suite and give it a fixture ``open_disk``.

    class TestMyDisk(DiskSuite):
        @pytest.fixture
        def open_disk(self, tmp_path):
            return lambda: MyDisk(tmp_path)

``open_disk()`` opens the disk of one test, empty at first; raises Unavailable while it is open already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from mmap import mmap
from typing import ClassVar

import pytest
import pytest_asyncio

from woodpecker.errors import Unavailable
from woodpecker.logstore.disk import UNIT_BYTES, Disk

FILE_BYTES = 64 * UNIT_BYTES

OpenDisk = Callable[[], Disk]


def units(count: int, fill: int) -> memoryview:
    """Aligned memory, whole units."""
    buffer = mmap(-1, count * UNIT_BYTES)
    buffer[:] = bytes([fill]) * len(buffer)
    return memoryview(buffer)


def _note(done: list[int], number: int, _: object) -> None:
    done.append(number)


class DiskSuite:
    """The contract, test by test."""

    pytestmark: ClassVar = [pytest.mark.asyncio]

    @pytest.fixture
    def open_disk(self) -> OpenDisk:
        """Overridden by the subclass."""
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def disk(self, open_disk: OpenDisk) -> AsyncIterator[Disk]:
        """The disk, open."""
        disk = open_disk()
        yield disk
        await disk.close()

    async def test_small_files_are_replaced_as_a_whole(self, disk: Disk) -> None:
        assert await disk.load("identity") is None
        await disk.store("identity", b"one")
        await disk.store("identity", b"two and more")
        await disk.store("identity", b"3")
        await disk.store("other", b"")
        assert await disk.load("identity") == b"3"
        assert await disk.load("other") == b""

    async def test_a_new_journal_file_is_zero_and_listed(self, disk: Disk) -> None:
        await disk.store("identity", b"no journal file")
        assert list(await disk.files()) == []
        for number in (10, 9, 123_456_789_012):
            file = await disk.create(number, FILE_BYTES)
            assert (file.number, file.size_bytes) == (number, FILE_BYTES)
            assert bytes(await file.read(0, FILE_BYTES)) == bytes(FILE_BYTES)
            await file.close()
        assert list(await disk.files()) == [9, 10, 123_456_789_012]

    async def test_a_number_is_used_once(self, disk: Disk) -> None:
        file = await disk.create(1, FILE_BYTES)
        await file.write([units(1, 7)], 0)
        with pytest.raises(OSError, match="1"):
            await disk.create(1, FILE_BYTES)
        assert bytes(await file.read(0, UNIT_BYTES)) == bytes([7]) * UNIT_BYTES
        await file.close()

    async def test_parts_are_written_one_behind_the_other(self, disk: Disk) -> None:
        file = await disk.create(1, FILE_BYTES)
        await file.write([units(1, 1), units(3, 2), units(2, 3)], 2 * UNIT_BYTES)
        got = bytes(await file.read(0, 9 * UNIT_BYTES))
        assert got[::UNIT_BYTES] == bytes([0, 0, 1, 2, 2, 2, 3, 3, 0])
        assert got[UNIT_BYTES - 1 :: UNIT_BYTES] == bytes([0, 0, 1, 2, 2, 2, 3, 3, 0])
        await file.close()

    async def test_many_parts_are_taken(self, disk: Disk) -> None:
        file = await disk.create(1, 1600 * UNIT_BYTES)
        await file.write([units(1, index % 251) for index in range(1500)], UNIT_BYTES)
        got = bytes(await file.read(UNIT_BYTES, 1500 * UNIT_BYTES))
        assert got[::UNIT_BYTES] == bytes(index % 251 for index in range(1500))
        await file.close()

    async def test_writes_take_effect_in_the_order_of_the_calls(self, disk: Disk) -> None:
        first, second = await disk.create(1, FILE_BYTES), await disk.create(2, FILE_BYTES)
        done: list[int] = []
        writes = [
            (first if number % 3 else second).write([units(1, number)], 0)
            for number in range(1, 31)
        ]
        for number, write in enumerate(writes, start=1):
            write.add_done_callback(partial(_note, done, number))
        await asyncio.gather(*writes)
        assert done == sorted(done)
        assert bytes(await first.read(0, UNIT_BYTES))[0] == 29
        assert bytes(await second.read(0, UNIT_BYTES))[0] == 30
        await first.close()
        await second.close()

    async def test_small_writes_one_after_another_fill_a_file(self, disk: Disk) -> None:
        """Also where the disk prepares the space ahead of them."""
        count = 600
        file = await disk.create(1, count * UNIT_BYTES)
        for index in range(count):
            await file.write([units(1, index % 251 + 1)], index * UNIT_BYTES)
        got = bytes(await file.read(0, count * UNIT_BYTES))
        assert got[::UNIT_BYTES] == bytes(index % 251 + 1 for index in range(count))
        await file.close()

    async def test_a_read_ends_with_the_file(self, disk: Disk) -> None:
        file = await disk.create(1, FILE_BYTES)
        got = await file.read(FILE_BYTES - UNIT_BYTES, 4 * UNIT_BYTES)
        assert len(got) == UNIT_BYTES
        assert len(await file.read(FILE_BYTES, UNIT_BYTES)) == 0
        await file.close()

    async def test_what_was_written_is_there_after_reopening(self, open_disk: OpenDisk) -> None:
        disk = open_disk()
        await disk.store("identity", b"me")
        file = await disk.create(3, FILE_BYTES)
        await file.write([units(2, 5)], UNIT_BYTES)
        await file.close()
        await disk.close()
        disk = open_disk()
        assert await disk.load("identity") == b"me"
        file = await disk.open(3)
        assert file.size_bytes == FILE_BYTES
        assert bytes(await file.read(0, 4 * UNIT_BYTES))[::UNIT_BYTES] == bytes([0, 5, 5, 0])
        await file.sync()
        await file.close()
        await disk.close()

    async def test_a_file_that_is_not_there_cannot_be_opened(self, disk: Disk) -> None:
        with pytest.raises(OSError, match="5"):
            await disk.open(5)

    async def test_deleted_files_are_gone_and_deleting_twice_is_no_error(self, disk: Disk) -> None:
        await (await disk.create(1, FILE_BYTES)).close()
        await (await disk.create(2, FILE_BYTES)).close()
        await disk.delete(1)
        await disk.delete(1)
        assert list(await disk.files()) == [2]

    async def test_a_file_can_be_read_while_it_is_deleted(self, disk: Disk) -> None:
        file = await disk.create(1, FILE_BYTES)
        await file.write([units(1, 9)], 0)
        await disk.delete(1)
        assert bytes(await file.read(0, UNIT_BYTES))[0] == 9
        await file.close()

    async def test_close_waits_for_what_is_under_way(self, disk: Disk) -> None:
        file = await disk.create(1, FILE_BYTES)
        write = file.write([units(8, 4)], 0)
        reading = asyncio.ensure_future(file.read(8 * UNIT_BYTES, UNIT_BYTES))
        await asyncio.sleep(0)
        await file.close()
        assert write.done()
        assert write.exception() is None
        assert len(await reading) == UNIT_BYTES
        with pytest.raises(OSError, match="closed"):
            await file.read(0, UNIT_BYTES)

    async def test_one_process_at_a_time(self, open_disk: OpenDisk) -> None:
        disk = open_disk()
        with pytest.raises(Unavailable, match="in use"):
            open_disk()
        await disk.close()
        await open_disk().close()

    async def test_room_is_told_and_taken(self, disk: Disk) -> None:
        free, total = disk.free_bytes()
        assert 0 < free <= total
        await (await disk.create(1, FILE_BYTES)).close()
        assert disk.free_bytes()[1] == total
