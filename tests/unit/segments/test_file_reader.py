"""Reader of kind ``file``: finding places, reading ahead, damage, waking in other processes."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import woodpecker
from woodpecker.core.ids import ZERO_DIGEST, Kind, State
from woodpecker.core.manifest import FilePlace, Segment
from woodpecker.direct_file import DataFile
from woodpecker.errors import Closed, Corrupt, NotFound, Unavailable
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments import file_append, file_index
from woodpecker.segments.file import FileSegments
from woodpecker.segments.file_wake import Wakes
from woodpecker.testing.conformance.segment_log import FakeLog, payloads_of, read

RUNTIME = SystemRuntime()
PATIENCE_S = 20


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "buffer"


@pytest.fixture
async def store(directory):
    store = FileSegments(directory, RUNTIME)
    yield store
    await store.close()


@pytest.fixture
async def other(directory):
    store = FileSegments(directory, RUNTIME)
    yield store
    await store.close()


async def many(store, log, sizes):
    segment = await log.open(store)
    rng = random.Random(3)
    payloads = [rng.randbytes(size) for size in sizes]
    for payload in payloads:
        await segment.append(payload)
    return segment, payloads


@pytest.mark.parametrize("bound", ["open", "closed"])
async def test_reads_over_chunk_borders(store, other, bound):
    rng = random.Random(4)
    sizes = [rng.choice([1, 4000, 60_000, 1 << 20, 3 << 20]) for _ in range(40)]
    log = FakeLog()
    segment, payloads = await many(store, log, sizes)
    ref = await segment.finish() if bound == "closed" else log.ref()
    for start in (0, 1, 17, 39):
        assert payloads_of(await read(other, ref, start)) == payloads[start:]
    await segment.writer.abandon()


@pytest.mark.parametrize("hint_bytes", [1 << 40, 100_000])
async def test_every_place_is_found_by_index_hint_and_walk(
    store, directory, monkeypatch, hint_bytes
):
    monkeypatch.setattr(file_index, "STRIDE_BYTES", 20_000)
    monkeypatch.setattr(file_append, "HINT_EVERY_BYTES", hint_bytes)
    log = FakeLog()
    segment, payloads = await many(store, log, [100] * 120)
    for seq in (0, 1, 59, 60, 61, 118, 119):
        fresh = FileSegments(directory, RUNTIME)  # knows no place yet
        for opened in (store, fresh):
            found = await read(opened, log.ref(), seq)
            assert found[0].header.base_seq == seq
            assert payloads_of(found) == payloads[seq:]
            source = opened.source(log.ref())
            time_us = segment.blocks[seq].header.base_timestamp_us
            assert await source.seq_at(time_us) == seq
            await source.close()
        await fresh.close()
    await segment.writer.abandon()


async def test_finding_a_late_place_again_reads_no_header_before_it(store, other, monkeypatch):
    monkeypatch.setattr(file_index, "STRIDE_BYTES", 4096)
    log = FakeLog()
    segment, _ = await many(store, log, [100] * 300)
    ref = await segment.finish()
    await read(other, ref, 290)
    offsets = []
    original = DataFile.read

    def noted(self, into, offset):
        offsets.append(offset)
        return original(self, into, offset)

    monkeypatch.setattr(DataFile, "read", noted)
    assert len(await read(other, ref, 290)) == 10
    assert min(offsets) >= 289 * 4096


async def test_damage_below_what_is_published_is_told(store, other, directory):
    log = FakeLog()
    segment, _ = await many(store, log, [100] * 10)
    (path,) = (directory / log.log_id).glob("*.seg")
    with path.open("r+b") as file:
        file.seek(4 * 4096 + 150)
        file.write(b"!")
    for ref in (log.ref(), await segment.finish()):
        with pytest.raises(Corrupt) as caught:
            await read(other, ref)
        assert caught.value.where == f"{path}@{4 * 4096}"


async def test_a_file_that_lost_its_end_is_corrupt_not_short(store, other, directory):
    log = FakeLog()
    segment, _ = await many(store, log, [100] * 4)
    ref = await segment.finish()
    (path,) = (directory / log.log_id).glob("*.seg")
    for size in (3 * 4096, 3 * 4096 + 10, 2 * 4096 + 1000):
        os.truncate(path, size)
        with pytest.raises(Corrupt):
            await read(other, ref)


async def test_a_missing_side_file_hides_an_open_segment_but_no_closed_one(store, other, directory):
    log = FakeLog()
    segment, payloads = await many(store, log, [100] * 3)
    (side,) = (directory / log.log_id).glob("*.side")
    with side.open("r+b") as file:  # never cut: the writer has it mapped
        file.write(bytes(4096))
    with pytest.raises(Unavailable, match="side file"):
        await read(other, log.ref())
    side.unlink()
    with pytest.raises(NotFound):
        await read(other, log.ref())
    assert payloads_of(await read(other, await segment.finish())) == payloads


async def test_a_closed_reader_says_so(store):
    log = FakeLog()
    segment, _ = await many(store, log, [1])
    source = store.source(log.ref())
    iterator = source.blocks(0)
    await anext(iterator)
    for _ in range(2):
        await source.close()
    with pytest.raises(Closed):
        await anext(source.blocks(0))
    with pytest.raises(Closed):
        await source.visible_end()
    await segment.writer.abandon()


async def test_a_reader_keeps_reading_what_is_dropped_meanwhile(store, other):
    """Its file stays as long as it is open; who comes later finds nothing."""
    log = FakeLog()
    segment, payloads = await many(store, log, [2 << 20] * 6)
    ref = await segment.finish()
    source = other.source(ref)
    iterator = source.blocks(0)
    seen = [await anext(iterator)]
    await store.drop(ref, keep_fence=True)
    seen += [block async for block in iterator]
    assert payloads_of(seen) == payloads
    await source.close()
    with pytest.raises(NotFound):
        await read(other, ref)


WRITER = """
import asyncio, sys
from pathlib import Path
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.file import FileSegments
from woodpecker.testing.conformance.segment_log import FakeLog

async def main():
    store, log = FileSegments(Path(sys.argv[1]), SystemRuntime()), FakeLog()
    segment = await log.open(store)
    place = log.ref().segment.place
    print(place.host, place.boot, place.buffer, flush=True)
    for number in range(50):
        sys.stdin.readline()
        await segment.append(b"%d" % number)
    sys.stdin.readline()

asyncio.run(main())
"""


@pytest.mark.parametrize("has_inotify", [True, False])
async def test_a_reader_is_woken_by_another_process_and_reads_on_after_its_death(
    directory, other, monkeypatch, has_inotify
):
    polls = []
    original = Wakes.poll

    def noted(self, is_due, timeout_ms):
        polls.append(timeout_ms)
        return original(self, is_due, timeout_ms)

    monkeypatch.setattr(Wakes, "poll", noted)
    other._wakes._is_missing = not has_inotify
    writer: Any = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)],
        env={**os.environ, "PYTHONPATH": str(Path(woodpecker.__path__[0]).parent)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        log = FakeLog()
        host, boot, buffer = writer.stdout.readline().split()
        _open_elsewhere(log, host=host, boot=boot, buffer=buffer)
        source = other.source(log.ref())
        seen: list[bytes] = []
        async with asyncio.timeout(PATIENCE_S):
            for number in range(50):
                waiting = asyncio.create_task(source.wait_visible(number, 10_000))
                await asyncio.sleep(0)
                writer.stdin.write("\n")
                writer.stdin.flush()
                while await source.visible_end() <= number:
                    await waiting
                    waiting = asyncio.create_task(source.wait_visible(number, 10_000))
                await waiting
                seen += payloads_of([block async for block in source.blocks(number)])
    finally:
        writer.kill()
        writer.wait()
        writer.stdin.close()
        writer.stdout.close()
    expected = [b"%d" % number for number in range(50)]
    assert seen == expected
    assert payloads_of([block async for block in source.blocks(0)]) == expected
    assert bool(polls) is not has_inotify
    await source.close()
    found = await other.recover(log.ref(), token="e" * 32)
    assert (found.end.block, found.end.seq) == (49, 50)


def _open_elsewhere(log, *, host, boot, buffer):
    """As the writer's process has it in its manifest."""
    place = FilePlace(host=host, boot=boot, buffer=buffer)
    log.put(
        Segment(
            id=0, kind=Kind.FILE, state=State.OPEN, epoch=1, token=f"{1:032x}", base_seq=0,
            prev_digest=ZERO_DIGEST, place=place,
        )
    )  # fmt: skip
