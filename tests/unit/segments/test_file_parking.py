"""Writers that do not write for a while let go of descriptors and lock, and take them back safely."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import AsyncIterator

import pytest

from woodpecker.core.ids import State
from woodpecker.direct_file import DataFile
from woodpecker.errors import Fenced, NotWritten
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments import file_recovery
from woodpecker.segments.file import FileSegments
from woodpecker.testing.conformance.segment_log import (
    TAKER,
    FakeLog,
    OpenSegment,
    payloads_of,
    read,
)

RUNTIME = SystemRuntime()
AT_ONCE = 3


@pytest.fixture
async def store(tmp_path) -> AsyncIterator[FileSegments]:
    store = FileSegments(tmp_path / "buffer", RUNTIME, open_writers=AT_ONCE)
    yield store
    await store.close()


def names_held(tmp_path) -> list[str]:
    """Files of the store that this process has open."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return [link for link in links if link.startswith(str(tmp_path))]


async def open_log(store, number: int) -> tuple[FakeLog, OpenSegment]:
    log = FakeLog(log_id=f"{number:032x}")
    return log, await log.open(store)


async def parked_log(store, tmp_path) -> tuple[FakeLog, OpenSegment]:
    """A log with one block whose writer holds nothing any more."""
    log, segment = await open_log(store, 99)
    await segment.append(b"before")
    for number in range(AT_ONCE + 1):
        await (await open_log(store, number))[1].append(b"x")
    assert not any(log.log_id in name for name in names_held(tmp_path))
    return log, segment


async def test_few_of_many_writers_hold_descriptors_and_all_go_on(store, tmp_path):
    opened = [await open_log(store, number) for number in range(12)]
    for turn in range(3):
        for _, segment in opened:
            await segment.append(b"%d" % turn)
        assert len(names_held(tmp_path)) <= (AT_ONCE + 1) * 3
    for log, segment in opened:
        assert payloads_of(await read(store, log.ref())) == [b"0", b"1", b"2"]
        closed = await segment.finish()
        assert payloads_of(await read(store, closed)) == [b"0", b"1", b"2"]
    assert names_held(tmp_path) == []


async def test_large_blocks_written_at_once_all_arrive(store, tmp_path):
    opened = [await open_log(store, number) for number in range(8)]
    futures = [
        segment.submit(segment.pack([bytes([turn]) * 100_000]))
        for turn in range(4)
        for _, segment in opened
    ]
    await asyncio.gather(*futures)
    for log, _ in opened:
        assert [p[:1] for p in payloads_of(await read(store, log.ref()))] == [
            bytes([turn]) for turn in range(4)
        ]


async def test_a_parked_writer_meets_the_fence_of_a_taker_that_had_the_lock(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    recovered = await store.recover(log.ref(), token=TAKER)
    assert recovered.end == segment.end
    with pytest.raises(Fenced) as caught:
        await segment.append(b"after")
    assert caught.value.outcome == "not_written"
    closed = log.close(recovered.end)
    assert payloads_of(await read(store, closed)) == [b"before"]


async def test_a_parked_writer_whose_file_was_dropped_is_fenced(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    await store.drop(log.ref(), keep_fence=True)
    with pytest.raises(Fenced) as caught:
        await segment.append(b"after")
    assert caught.value.outcome == "not_written"
    await segment.writer.abandon()


async def test_a_parked_writer_is_fenced_while_another_holds_the_lock(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    path = next((tmp_path / "buffer" / log.log_id).glob("*.seg"))
    fd = os.open(path, os.O_RDWR)
    assert file_recovery.try_lock(fd)
    with pytest.raises(Fenced):
        await segment.append(b"after")
    os.close(fd)
    with pytest.raises(Fenced):  # it has ended: the lock being free again changes nothing
        await segment.append(b"after")


async def test_a_writer_that_came_back_holds_the_lock_again(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    await segment.append(b"after")
    path = next((tmp_path / "buffer" / log.log_id).glob("*.seg"))
    fd = os.open(path, os.O_RDWR)
    assert not file_recovery.try_lock(fd)
    os.close(fd)
    recovered = await store.recover(log.ref(), token=TAKER)
    assert recovered.end == segment.end
    with pytest.raises(Fenced) as caught:
        await segment.append(b"too late")
    assert caught.value.outcome == "unknown"  # it was written, and then the fence was seen


async def test_a_parked_writer_finishes(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    closed = await segment.finish()
    assert closed.segment.state is State.CLOSED
    assert payloads_of(await read(store, closed)) == [b"before"]
    size = next((tmp_path / "buffer" / log.log_id).glob("*.seg")).stat().st_size
    assert size == 4096  # unused room was given back


async def test_a_parked_writer_that_was_fenced_does_not_finish(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    await store.recover(log.ref(), token=TAKER)
    with pytest.raises(Fenced):
        await segment.writer.finish(segment.end)


async def test_a_parked_writer_is_abandoned(store, tmp_path):
    log, segment = await parked_log(store, tmp_path)
    await segment.writer.abandon()
    assert payloads_of(await read(store, log.ref())) == [b"before"]


async def test_a_prepared_segment_is_never_parked(store, tmp_path):
    log = FakeLog(log_id="ab" * 16)
    _, _, writer = await log.prepare(store)
    for number in range(AT_ONCE + 2):
        await (await open_log(store, number))[1].append(b"x")
    assert any(log.log_id in name for name in names_held(tmp_path))
    await writer.abandon()


async def test_no_descriptor_left_refuses_and_the_writer_lives(store, tmp_path, monkeypatch):
    log, segment = await parked_log(store, tmp_path)

    def none_left(*_args, **_kwargs):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    block = segment.pack([b"after"])
    with monkeypatch.context() as patch:
        patch.setattr(DataFile, "open", none_left)
        with pytest.raises(NotWritten, match="Too many open files"):
            segment.writer.reserve(100)
    await segment.submit(block)
    assert payloads_of(await read(store, log.ref())) == [b"before", b"after"]


async def test_a_burst_over_more_logs_than_descriptors_is_written_in_turn(tmp_path):
    """Every writer has a block at once; only so many may have files open; nobody is ended by that."""
    script = """
import asyncio, resource, sys
import woodpecker as wp
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
async def main():
    async with wp.connect(sys.argv[1], background=False) as client:
        writers = []
        for i in range(200):
            writer = await (await client.create_log(f"l{i}")).open_writer()
            await writer.append(b"x")
            writers.append(writer)
        for _ in range(3):
            got = await asyncio.gather(*(w.append(b"y") for w in writers), return_exceptions=True)
            bad = [g for g in got if isinstance(g, BaseException)]
            assert not bad, (len(bad), bad[0])
        await asyncio.sleep(0.5)
        log = await client.open_log("l7")
        assert [e.payload async for e in log.read()] == [b"x", b"y", b"y", b"y"]
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path / "store"), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]


async def test_a_parked_writer_gives_its_room_back(store, tmp_path):
    opened = [await open_log(store, number) for number in range(12)]
    for _, segment in opened:
        await segment.append(b"x")
    sizes = sorted(path.stat().st_size for path in tmp_path.rglob("*.seg"))
    assert sizes[:4] == [4096] * 4  # one block; the rest of the room was ahead of it
    for log, segment in opened:
        await segment.append(b"y")  # it comes back
        assert payloads_of(await read(store, log.ref())) == [b"x", b"y"]
        await segment.finish()
