"""Sealing in place: the file becomes the sealed object by a second name, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from woodpecker.core.file_rules import padded
from woodpecker.errors import Corrupt, NotFound
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.file import FileSegments
from woodpecker.storage.local import LocalObjectStore
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.conformance.segment_log import FakeLog, payloads_of, read

RUNTIME = SystemRuntime()
KEY = "segments/one"


@pytest.fixture
async def store(tmp_path):
    store = FileSegments(tmp_path / "buffer", RUNTIME)
    yield store
    await store.close()


@pytest.fixture
async def objects(tmp_path):
    objects = LocalObjectStore(tmp_path / "objects", RUNTIME)
    yield objects
    await objects.close()


TAIL = b"index and footer"
AT = 4096 + 8192 + 4096  # of the three blocks of ``closed``


async def closed(store, log, *, finish=True):
    segment = await log.open(store)
    for payload in (b"a", b"b" * 5000, b"c"):
        await segment.append(payload)
    if finish:
        return segment, await segment.finish()
    return segment, log.close(segment.end)


def data_path(tmp_path, log):
    (path,) = (tmp_path / "buffer" / log.log_id).glob("*.seg")
    return path


async def test_the_file_becomes_the_object(store, objects, tmp_path):
    log = FakeLog()
    segment, ref = await closed(store, log)
    assert await store.seal_in_place(ref, TAIL, AT, objects, KEY)
    data, _ = await objects.get(KEY)
    assert sum(padded(len(block.buffer)) for block in segment.blocks) == AT
    assert bytes(data)[AT:] == TAIL
    assert data_path(tmp_path, log).samefile(objects.local_path(KEY))
    assert payloads_of(await read(store, ref)) == [b"a", b"b" * 5000, b"c"]
    await store.drop(ref, keep_fence=True)
    assert bytes((await objects.get(KEY))[0]) == bytes(data)


async def test_sealing_again_changes_nothing(store, objects, tmp_path):
    """The first sealer died before its CAS; a second one, or a slow one, comes with another tail."""
    log = FakeLog()
    _, ref = await closed(store, log)
    assert await store.seal_in_place(ref, TAIL, AT, objects, KEY)
    before = objects.local_path(KEY).stat().st_mtime_ns
    assert await store.seal_in_place(ref, b"another", AT, objects, KEY)
    assert not await store.seal_in_place(ref, TAIL, AT, objects, "segments/two")
    assert objects.local_path(KEY).stat().st_mtime_ns == before


async def test_a_sealer_that_died_half_way_is_repeated(store, objects, tmp_path):
    log = FakeLog()
    _, ref = await closed(store, log)
    with data_path(tmp_path, log).open("ab") as file:  # half a tail
        file.write(b"half a tail that is longer than the real one will be")
    assert await store.seal_in_place(ref, TAIL, AT, objects, KEY)
    assert bytes((await objects.get(KEY))[0])[AT:] == TAIL


async def test_blocks_above_the_end_are_cut_off(store, objects):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"kept")
    end = segment.end
    await segment.append(b"above")
    await segment.writer.abandon()
    assert await store.seal_in_place(log.close(end), TAIL, 4096, objects, KEY)
    assert bytes((await objects.get(KEY))[0])[4096:] == TAIL


async def test_a_stopped_holder_forbids_it(store, objects):
    log = FakeLog()
    segment, ref = await closed(store, log, finish=False)
    assert not await store.seal_in_place(ref, TAIL, AT, objects, KEY)
    assert await objects.head(KEY) is None
    assert payloads_of(await read(store, ref)) == [b"a", b"b" * 5000, b"c"]
    await segment.writer.abandon()


async def test_a_taken_key_forbids_it(store, objects, tmp_path):
    log = FakeLog()
    _, ref = await closed(store, log)
    await objects.create(KEY, b"sealed by a copier")
    size = data_path(tmp_path, log).stat().st_size
    assert not await store.seal_in_place(ref, TAIL, AT, objects, KEY)
    assert bytes((await objects.get(KEY))[0]) == b"sealed by a copier"
    assert data_path(tmp_path, log).stat().st_size == size


async def test_a_bucket_forbids_it(store):
    _, ref = await closed(store, FakeLog())
    bucket = MemoryObjectStore(MemoryBucket(), RUNTIME)
    assert not await store.seal_in_place(ref, TAIL, AT, bucket, KEY)


async def test_another_file_system_forbids_it(store, tmp_path):
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("mount a tmpfs at /dev/shm to run this test")
    _, ref = await closed(store, FakeLog())
    name = f"woodpecker-{RUNTIME.token()}"
    objects = LocalObjectStore(shared / name, RUNTIME)
    try:
        assert not await store.seal_in_place(ref, TAIL, AT, objects, KEY)
        assert await objects.head(KEY) is None
    finally:
        await objects.close()
        _remove(shared / name)


def _remove(path):
    for parent, folders, files in os.walk(path, topdown=False):
        for name in files:
            (Path(parent) / name).unlink()
        for name in folders:
            (Path(parent) / name).rmdir()
    path.rmdir()


async def test_missing_blocks_are_found_before_anything_is_named(store, objects, tmp_path):
    log = FakeLog()
    _, ref = await closed(store, log)
    os.truncate(data_path(tmp_path, log), AT - 4096)
    with pytest.raises(Corrupt) as caught:
        await store.seal_in_place(ref, TAIL, AT, objects, KEY)
    assert caught.value.where.endswith(f"@{AT - 4096}")
    assert await objects.head(KEY) is None


async def test_a_dropped_segment_is_not_found(store, objects):
    _, ref = await closed(store, FakeLog())
    await store.drop(ref, keep_fence=True)
    with pytest.raises(NotFound):
        await store.seal_in_place(ref, TAIL, AT, objects, KEY)
