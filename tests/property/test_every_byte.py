"""One flipped bit anywhere in a store is noticed by ``verify``, and the place is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.unit.client.background_kit import World, create

import woodpecker as wp
from woodpecker.client.log import Log
from woodpecker.client.paging import spill
from woodpecker.client.sealing import seal_log
from woodpecker.storage.memory import MemoryObjectStore

UNIT = 4096


async def write_some(log: wp.Log, writers: int = 2) -> None:
    """Segments of some small blocks, with headers, times, a producer's batch."""
    for number in range(writers):
        async with await log.open_writer(producer="p") as writer:
            for _ in range(2):
                await writer.append(b"paid", headers={"id": b"7"}, timestamp_us=5 + number)
            await writer.append_many([b"1", b"22"], sequence=writer.next_sequence)


async def misses(log: wp.Log, positions: Iterable[int], flip: Callable[[int], None]) -> list[int]:
    """Positions whose flipped bit ``verify`` overlooks."""
    missed = []
    for position in positions:
        flip(position)
        try:
            await log.verify()
        except wp.Corrupt as error:
            named = error.where != ""
        except wp.InvalidRequest as error:
            named = "newer version" in str(error)  # of the format, as far as anybody can tell
        else:
            named = False
        if not named:
            missed.append(position)
        flip(position)
    return missed


class TestObject:
    """Kind object: every object of a bucket, and the manifest, byte by byte."""

    async def test_blocks_and_end_marks_of_closed_segments(self):
        await self._flip_all(World(), seal=False)

    async def test_sealed_objects_and_pages(self, monkeypatch):
        monkeypatch.setattr("woodpecker.core.retention.INLINE_SEALED_MAX", 1)
        monkeypatch.setattr("woodpecker.core.retention.PAGE_SEGMENTS", 1)
        world = World()
        await self._flip_all(world, seal=True)
        assert any("/pages/" in key for key in world.bucket.objects)

    async def _flip_all(self, world: World, *, seal: bool) -> None:
        env = world.env()
        log = await create(env)
        await write_some(log, writers=2)
        if seal:
            await seal_log(env, log.name)
            await spill(env, log.name)
        reader = Log(world.env(), log.name, log.log_id)  # a process without anything in memory
        await reader.verify()
        for key, stored in list(world.bucket.objects.items()):
            is_mark = len(stored.data) == 96
            if seal and is_mark:
                continue  # of a sealed segment: that it is there is all it is for

            def flip(position: int, key: str = key) -> None:
                data = bytearray(world.bucket.objects[key].data)
                data[position] ^= 1 << position % 8
                world.bucket.put(key, bytes(data), 0)

            assert await misses(reader, range(len(stored.data)), flip) == [], key
        await self._flip_manifest(world, reader)

    async def _flip_manifest(self, world: World, log: wp.Log) -> None:
        key = f"meta/logs/{log.name}"
        original = world.records.by_key[key]

        def flip(position: int) -> None:
            record = world.records.by_key[key]
            value = bytearray(record.value)
            value[position] ^= 1 << position % 8
            world.records.by_key[key] = type(record)(
                key=key, value=bytes(value), version=record.version
            )

        assert await misses(log, range(len(original.value)), flip) == []

    async def test_a_missing_end_mark(self):
        world = World()
        log = await create(env := world.env())
        await write_some(log, writers=1)
        mark = next(key for key, one in world.bucket.objects.items() if len(one.data) == 96)
        await MemoryObjectStore(world.bucket).delete([mark])
        with pytest.raises(wp.Corrupt, match="end mark is missing") as caught:
            await Log(env, log.name, log.log_id).verify()
        assert mark in caught.value.where


@asynccontextmanager
async def file_log(store: Path) -> AsyncIterator[wp.Log]:
    async with wp.connect(store, background=False) as client:
        yield await client.create_log("orders", mode="file")


class TestFile:
    """Kind file: blocks whole, and every so many bytes of what pads them to whole sectors."""

    @pytest.mark.parametrize("state", ["closed", "open"])
    async def test_blocks_and_padding(self, tmp_path, monkeypatch, state):
        monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
        async with file_log(tmp_path / "store") as log:
            await write_some(log, writers=1)
            writer = await log.open_writer()
            await writer.append(b"open")
            await log.verify()
            path = sorted((tmp_path / "store" / "buffer").rglob("*.seg"))[state == "open"]

            def flip(position: int) -> None:
                with path.open("r+b", buffering=0) as file:
                    file.seek(position)
                    (byte,) = file.read(1)
                    file.seek(position)
                    file.write(bytes([byte ^ 1 << position % 8]))

            units = 1 if state == "open" else path.stat().st_size // UNIT
            assert units == (1 if state == "open" else 4)
            positions = [
                unit * UNIT + at
                for unit in range(units)
                for at in (*range(0, 200, 3), *range(200, UNIT, 331), UNIT - 1)
            ]
            assert await misses(log, positions, flip) == []
            await writer.close()


async def test_records_of_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: False)
    store = tmp_path / "store"
    async with wp.connect(store, background=False) as client:
        log = await client.create_log("orders")
        await write_some(log, writers=1)
        path = max((store / "objects/meta/logs/orders.versions").iterdir())
        path.chmod(0o600)

        def flip(position: int) -> None:
            data = bytearray(path.read_bytes())
            data[position] ^= 1 << position % 8
            with path.open("r+b") as file:
                file.write(data)

        size = path.stat().st_size
        assert await misses(log, [*range(0, size, 11), size - 2, size - 1], flip) == []
