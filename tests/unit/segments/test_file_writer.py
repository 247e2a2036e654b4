"""Writer of kind ``file``: failing, full, slow and hanging disks; where writes happen; resources."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import woodpecker
from woodpecker.core.file_rules import INLINE_MAX_BYTES, UNIT_BYTES, Pace
from woodpecker.direct_file import DataFile, make_buffer
from woodpecker.errors import Fenced, NotWritten, OutcomeUnknown, Unavailable
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.runtime.threads import Lane, Threads
from woodpecker.segments import file_append
from woodpecker.segments.file import FileSegments
from woodpecker.segments.file_aligned import BUFFER_BYTES, Buffers
from woodpecker.segments.file_append import Appender
from woodpecker.segments.file_side import SideFile
from woodpecker.segments.file_writer import Disk
from woodpecker.testing.conformance.segment_log import TAKER, FakeLog, payloads_of, read

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
def in_threads(monkeypatch):
    monkeypatch.setattr(Pace, "allows_inline", lambda *_: False)


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(Pace, "allows_inline", lambda *_: True)


@pytest.fixture(params=["inline", "in_threads"])
def anywhere(request):
    """Both ways a small block may take."""
    request.getfixturevalue(request.param)


def inner(segment) -> Any:
    """The writer with its parts, which the port does not show."""
    return segment.writer


def raising(number, calls=None):
    def fail(*args):
        if calls is not None:
            calls.append(args)
        raise OSError(number, os.strerror(number))

    return fail


# ------------------------------------------------------------------------------ failing disks


@pytest.mark.parametrize(("method", "number"), [("sync", errno.EIO), ("write", errno.ENOSPC)])
async def test_a_failed_write_or_sync_ends_the_writer(store, anywhere, monkeypatch, method, number):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"kept")
    source = store.source(log.ref())
    calls: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(DataFile, method, raising(number, calls))
        with pytest.raises(OutcomeUnknown, match=os.strerror(number)):
            await segment.append(b"lost")
    with pytest.raises(OutcomeUnknown):  # the disk is well again; the writer stays ended
        await segment.append(b"later")
    assert len(calls) == 1  # never tried again
    assert await source.visible_end() == 1
    await source.close()
    with pytest.raises(OutcomeUnknown):
        await segment.writer.finish(segment.end)
    await segment.writer.abandon()


async def test_all_blocks_behind_a_failed_one_fail(store, in_threads, monkeypatch):
    log = FakeLog()
    segment = await log.open(store)
    monkeypatch.setattr(DataFile, "sync", raising(errno.EIO))
    futures = [segment.submit(segment.pack([b"x"])) for _ in range(2)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [OutcomeUnknown, OutcomeUnknown]
    await segment.writer.abandon()


async def test_the_fence_is_looked_at_after_the_sync(store, anywhere, monkeypatch):
    """A taker-over sets the word between the write and the sync: no acknowledgement."""
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"kept")
    sync = DataFile.sync

    def fenced_meanwhile(file):
        inner(segment)._appender.side.fence()
        sync(file)

    monkeypatch.setattr(DataFile, "sync", fenced_meanwhile)
    with pytest.raises(Fenced):
        await segment.append(b"late")
    source = store.source(log.ref())
    assert await source.visible_end() == 1
    await source.close()
    await segment.writer.abandon()


async def test_the_order_of_a_write(store, anywhere, monkeypatch):
    log = FakeLog()
    segment = await log.open(store)
    trace = []

    def traced(owner, name):
        original = getattr(owner, name)

        def call(*args):
            trace.append(name)
            return original(*args)

        monkeypatch.setattr(owner, name, call)

    def look(_side):
        trace.append("look")
        return False

    traced(DataFile, "write")
    traced(DataFile, "sync")
    traced(SideFile, "publish")
    monkeypatch.setattr(SideFile, "is_fenced", property(look))
    block = segment.pack([b"x"])
    future = segment.submit(block)
    future.add_done_callback(lambda _: trace.append("acknowledged"))
    await future
    await asyncio.sleep(0)
    assert trace == ["write", "sync", "look", "publish", "acknowledged"]
    await segment.writer.abandon()


@pytest.mark.parametrize("is_direct", [True, False])
async def test_short_writes_are_completed(store, directory, anywhere, monkeypatch, is_direct):
    if not is_direct:
        without_direct(monkeypatch)
    log = FakeLog()
    segment = await log.open(store)
    pwrite, pwritev, short = os.pwrite, os.pwritev, []

    def short_pwrite(fd, data, offset):
        short.append(1)
        step = max(4096 + 512, len(data) // 3 // 512 * 512)  # what a direct write may stop at
        return pwrite(fd, data[:step], offset)

    def short_pwritev(fd, buffers, offset, flags):
        short.append(1)
        step = max(4096 + 1, len(buffers[0]) // 3)
        return pwritev(fd, [buffers[0][:step]], offset, flags)

    if is_direct:
        monkeypatch.setattr(os, "pwrite", short_pwrite)
    else:
        monkeypatch.setattr(os, "pwritev", short_pwritev)
    payloads = [os.urandom(size) for size in (1, 5000, 50_000, 3 << 20)]
    for payload in payloads:
        await segment.append(payload)
    assert len(short) > len(payloads)
    assert payloads_of(await read(store, await segment.finish())) == payloads


async def test_a_file_system_that_writes_nothing_is_a_failed_one(store, anywhere, monkeypatch):
    segment = await FakeLog().open(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *_: 512)
        patch.setattr(os, "pwritev", lambda *_: 512)
        with pytest.raises(OutcomeUnknown, match="wrote 512 bytes only"):
            await segment.append(b"x" * 5000)
    await segment.writer.abandon()


def without_direct(monkeypatch):
    """A file system that refuses O_DIRECT."""
    original = os.open

    def refusing(path, flags, *args, **kwargs):
        if flags & os.O_DIRECT and not flags & os.O_DIRECTORY:
            if flags & os.O_CREAT:  # as Linux does: the file is made, then the flag refused
                os.close(original(path, flags & ~os.O_DIRECT, *args, **kwargs))
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return original(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refusing)


async def test_without_direct_writes_everything_works_too(store, anywhere, monkeypatch):
    without_direct(monkeypatch)
    log = FakeLog()
    segment = await log.open(store)
    payloads = [os.urandom(size) for size in (1, 70_000, 5 << 20)]
    for payload in payloads:
        await segment.append(payload)
    assert not inner(segment)._appender.file.is_direct
    await segment.writer.abandon()
    found = await store.recover(log.ref(), token=TAKER)
    assert found.end == segment.end
    assert payloads_of(await read(store, log.close(segment.end))) == payloads


async def test_a_hanging_disk_fails_the_block_but_not_the_loop(store, in_threads, monkeypatch):
    log = FakeLog()
    segment = await log.open(store, timeout_ms=100)
    hang = threading.Event()
    sync = DataFile.sync

    def hanging(file):
        hang.wait(PATIENCE_S)
        sync(file)

    monkeypatch.setattr(DataFile, "sync", hanging)
    with pytest.raises(OutcomeUnknown, match="100 ms"):
        await asyncio.wait_for(segment.append(b"x"), PATIENCE_S)
    with pytest.raises(Unavailable):  # nor does letting go hang
        await asyncio.wait_for(segment.writer.abandon(), PATIENCE_S)
    hang.set()
    await asyncio.wait_for(inner(segment)._lane.start(lambda: None), PATIENCE_S)
    source = store.source(log.ref())
    assert await source.visible_end() == 0  # what came too late is not shown
    await source.close()
    found = await store.recover(log.ref(), token=TAKER)  # the lock is free: all was released
    assert found.end == segment.end


# ------------------------------------------------------------------------------ full disks


async def test_no_room_is_told_before_anything_is_written_and_the_writer_lives(store, monkeypatch):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", raising(errno.ENOSPC))
        with pytest.raises(NotWritten, match="No space left"):
            segment.writer.reserve(8 << 20)
        segment.writer.reserve(100)  # there is room for this
        await segment.append(b"b")
    segment.writer.reserve(8 << 20)
    await segment.append(b"c" * (8 << 20))
    assert [len(p) for p in payloads_of(await read(store, await segment.finish()))] == [
        1, 1, 8 << 20,
    ]  # fmt: skip


FULL = """
import asyncio, resource, sys
from pathlib import Path
from woodpecker.errors import NotWritten
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.file import FileSegments
from woodpecker.testing.conformance.segment_log import FakeLog, payloads_of, read

async def main():
    store, log = FileSegments(Path(sys.argv[1]), SystemRuntime()), FakeLog()
    segment = await log.open(store)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, hard))
    count = 0
    while True:
        try:
            await segment.append(b"x" * 200_000)
        except NotWritten:
            segment.blocks.pop()
            break
        count += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await segment.append(b"after")
    found = payloads_of(await read(store, await segment.finish()))
    assert len(found) == count + 1 and found[-1] == b"after"
    await store.close()
    print(count)

asyncio.run(main())
"""


async def test_a_really_full_disk_refuses_and_goes_on(tmp_path):
    """The kernel's limit on file sizes, in a process of its own, stands for the full disk."""
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("raise the hard limit on file sizes (ulimit -f unlimited) to run this test")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "buffer")],
        env={**os.environ, "PYTHONPATH": str(Path(woodpecker.__path__[0]).parent)},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 25 <= int(done.stdout) <= 31


async def test_a_full_disk_refuses_to_open_a_segment_and_leaves_nothing(
    store, directory, monkeypatch
):
    log = FakeLog()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", raising(errno.ENOSPC))
        with pytest.raises(NotWritten):
            await log.open(store)
    assert await store.held(log.log_id) == []
    segment = await log.open(store)
    await segment.append(b"a")
    await segment.finish()


# ------------------------------------------------------------------------------ where it happens


async def test_a_lone_small_block_on_a_fast_disk_is_synced_in_the_loop(store, inline, monkeypatch):
    log = FakeLog()
    segment = await log.open(store)
    threads = []
    append = Appender.append

    def noted(self, block):
        threads.append(threading.get_ident())
        return append(self, block)

    monkeypatch.setattr(Appender, "append", noted)
    here = threading.get_ident()
    future = segment.submit(segment.pack([b"x"]))
    assert future.done()
    await segment.append(b"x" * INLINE_MAX_BYTES)  # too large
    assert [thread == here for thread in threads] == [True, False]
    await segment.writer.abandon()


async def test_two_active_logs_are_written_in_threads(store, inline):
    segments = [await FakeLog(log_id=f"{n:032x}").open(store) for n in range(2)]
    assert segments[0].submit(segments[0].pack([b"x"])).done()
    for segment in (segments[1], segments[0]):
        future = segment.submit(segment.pack([b"x"]))
        assert not future.done()
        await future
    for segment in segments:
        await segment.writer.abandon()


def test_a_log_is_alone_again_after_a_second():
    disk, one, two = Disk(RUNTIME, open_writers=8), object(), object()
    assert disk.is_alone(one, 0)
    assert disk.is_alone(one, 10)
    assert not disk.is_alone(two, 20)
    assert not disk.is_alone(two, 1019)
    assert disk.is_alone(two, 1020)
    assert disk.is_alone(one, 2020)


async def test_small_blocks_meet_zeros_and_zeros_never_meet_blocks(store, directory):
    """Thousands of small blocks race the zeroing thread; every byte must survive."""
    log = FakeLog()
    segment = await log.open(store)
    for number in range(1500):
        await segment.append(b"%d" % number * 300)
    zeros = inner(segment)._appender.zeros
    assert zeros.end > inner(segment)._appender.position.offset - UNIT_BYTES
    large = os.urandom(2 << 20)
    await segment.append(large)
    for number in range(100):
        await segment.append(b"%d" % number)
    found = payloads_of(await read(store, await segment.finish()))
    assert found[:1500] == [b"%d" % number * 300 for number in range(1500)]
    assert found[1500:] == [large, *(b"%d" % number for number in range(100))]


async def test_zeros_that_come_late_are_not_written(tmp_path, monkeypatch):
    file = DataFile.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    room = file_append.Room(file, Threads("test", 1))
    zeros = file_append.ZeroAhead(file, room, Threads("test", 1))
    room.ensure(1 << 20)
    asked: list[Any] = []
    monkeypatch.setattr(Threads, "put", lambda _, work: asked.append(work))
    zeros.ask(0)
    block = make_buffer(UNIT_BYTES)
    block[:] = b"\1" * UNIT_BYTES
    zeros.take(UNIT_BYTES)
    file.write(memoryview(block), 0)
    asked[0]()
    assert (tmp_path / "data").read_bytes()[:UNIT_BYTES] == b"\1" * UNIT_BYTES
    file.close()


async def test_padding_and_unused_room_are_zero_and_room_is_given_back(store, directory):
    log = FakeLog()
    segment = await log.open(store)
    pool = inner(segment)._buffers
    dirty = pool.take(BUFFER_BYTES)
    dirty[:] = b"\xff" * len(dirty)
    pool.give(dirty)
    small = pool.take(UNIT_BYTES)
    small[:] = b"\xff" * len(small)
    pool.give(small)
    await segment.append(b"x" * 300_001)
    await segment.append(b"y")
    sizes = [len(block.buffer) for block in segment.blocks]
    (path,) = (directory / log.log_id).glob("*.seg")
    raw = path.read_bytes()
    start = 0
    for size in sizes:
        end = start + -(-size // UNIT_BYTES) * UNIT_BYTES
        assert not any(raw[start + size : end])
        start = end
    assert not any(raw[start:])
    assert len(raw) >= 1 << 20
    await segment.finish()
    assert path.stat().st_size == start


# ------------------------------------------------------------------------------ resources


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


async def test_finished_abandoned_and_closed_things_hold_no_descriptor(store):
    await read_once(store)
    before = open_descriptors()
    for ending in ("finish", "abandon"):
        log = FakeLog(log_id=RUNTIME.token())
        segment = await log.open(store)
        await segment.append(b"x")
        source = store.source(log.ref())
        assert await source.visible_end() == 1
        assert open_descriptors() > before
        await source.close()
        if ending == "finish":
            await segment.finish()
        else:
            await segment.writer.abandon()
        assert open_descriptors() == before


async def read_once(store):
    """Opens what a store opens once: the descriptor for waking."""
    log = FakeLog(log_id=RUNTIME.token())
    segment = await log.open(store)
    source = store.source(log.ref())
    await source.wait_visible(0, 1)
    await source.close()
    await segment.writer.abandon()


async def test_a_cancelled_prepare_releases_what_it_made(store):
    await read_once(store)
    before = open_descriptors()
    log = FakeLog(log_id=RUNTIME.token())
    opening = asyncio.create_task(log.open(store))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(PATIENCE_S):
        while open_descriptors() != before:
            await asyncio.sleep(0.01)


def test_large_buffers_are_used_again_and_huge_ones_given_back():
    pool = Buffers()
    taken = [pool.take(BUFFER_BYTES) for _ in range(5)]
    for buffer in taken:
        pool.give(buffer)
    kept = [pool.take(BUFFER_BYTES) for _ in range(4)]
    assert sum(any(buffer is old for old in taken) for buffer in kept) == 3
    huge = pool.take(128 << 20)
    assert len(huge) >= 128 << 20
    pool.give(huge)
    assert len(pool.take(BUFFER_BYTES)) < 128 << 20


async def test_lanes_keep_their_order_and_share_few_threads():
    threads = Threads("test-lanes", 3)
    lanes = [Lane(threads) for _ in range(200)]
    seen: dict[int, list[int]] = {number: [] for number in range(len(lanes))}
    used = set()

    def work(number, step):
        used.add(threading.get_ident())
        seen[number].append(step)

    futures = [
        lane.start(partial(work, number, step))
        for step in range(20)
        for number, lane in enumerate(lanes)
    ]
    await asyncio.gather(*futures)
    assert all(steps == list(range(20)) for steps in seen.values())
    assert 1 <= len(used) <= 3
    async with asyncio.timeout(PATIENCE_S):
        while not all(lane.is_idle for lane in lanes):
            await asyncio.sleep(0.001)
    threads.stop()
    async with asyncio.timeout(PATIENCE_S):
        while any(t.name == "test-lanes" for t in threading.enumerate()):
            await asyncio.sleep(0.01)
