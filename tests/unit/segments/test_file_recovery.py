"""Take-over of a file: torn tails, damage, living writers, reboots, moved directories, hints."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import Any

import pytest

from woodpecker.codec.block import HEADER_BYTES
from woodpecker.core.file_rules import UNIT_BYTES, padded
from woodpecker.core.manifest import FilePlace
from woodpecker.core.register import GrantProducer
from woodpecker.errors import Corrupt, Fenced, InvalidRequest, NotFound, Unavailable
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments import file_append, file_place, file_side
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.file import FileSegments
from woodpecker.segments.file_aligned import Window
from woodpecker.testing.conformance.segment_log import TAKER, FakeLog, payloads_of, read

RUNTIME = SystemRuntime()
PUBLISHED_AT = 520  # in a side file: the word `published bytes`


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


def only(directory, log, ending):
    (path,) = (directory / log.log_id).glob(f"*.{ending}")
    return path


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def unpublish(directory, log, end_bytes):
    """As if the writer had died before it acknowledged what stands behind ``end_bytes``."""
    overwrite(only(directory, log, "side"), PUBLISHED_AT, end_bytes.to_bytes(8, "little"))


async def written(store, log, payloads):
    """A dead writer's segment."""
    segment = await log.open(store)
    for payload in payloads:
        await segment.append(payload)
    await segment.writer.abandon()
    return segment


def end_of(segment, count):
    header = segment.blocks[count - 1].header
    return (header.number, header.end_seq, header.digest.hex())


async def recovered(store, log):
    end = (await store.recover(log.ref(), token=TAKER)).end
    return None if end is None else (end.block, end.seq, end.digest)


# ------------------------------------------------------------------------------ where it ends


async def test_a_last_block_torn_at_any_byte_is_cut(store, directory):
    log = FakeLog()
    segment = await written(store, log, [b"first", b"second", b"\xff" * 170])
    unpublish(directory, log, 2 * UNIT_BYTES)
    path = only(directory, log, "seg")
    last = bytes(segment.blocks[-1].buffer)
    assert last[-1] != 0
    for kept in range(len(last)):
        overwrite(path, 2 * UNIT_BYTES, last[:kept] + bytes(len(last) - kept))
        assert await recovered(store, log) == end_of(segment, 2), kept
    overwrite(path, 2 * UNIT_BYTES, last)
    assert await recovered(store, log) == end_of(segment, 3)


async def test_a_large_last_block_torn_at_sectors_is_cut(store, directory):
    log = FakeLog()
    block = os.urandom(100_000)
    segment = await written(store, log, [b"first", block])
    unpublish(directory, log, UNIT_BYTES)
    path = only(directory, log, "seg")
    size = len(segment.blocks[-1].buffer)
    for sector in range(0, size, 4096):
        flip(path, UNIT_BYTES + min(sector + 700, size - 1))
        assert await recovered(store, log) == end_of(segment, 1)
        flip(path, UNIT_BYTES + min(sector + 700, size - 1))
    for size_left in (0, 1, UNIT_BYTES - 1, UNIT_BYTES + 1, size // 2):  # the size itself was lost
        os.truncate(path, UNIT_BYTES + size_left)
        assert await recovered(store, log) == end_of(segment, 1)


@pytest.mark.parametrize("payload", [b"", b"last"])  # a block of controls has no seq of its own
async def test_a_last_block_that_was_published_is_never_cut(store, directory, payload):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"first")
    if payload:
        await segment.append(payload)
    else:
        await segment.submit(segment.pack(control=GrantProducer(id="p", epoch=1)))
    await segment.writer.abandon()
    path = only(directory, log, "seg")
    stored = path.read_bytes()
    for damage in (bytes(UNIT_BYTES), b"\0" + stored[UNIT_BYTES + 1 : 2 * UNIT_BYTES]):
        overwrite(path, UNIT_BYTES, damage)
        with pytest.raises(Corrupt, match=r"block 1 \(seq 1\) .* published") as caught:
            await store.recover(log.ref(), token=TAKER)
        assert caught.value.where == f"{path}@{UNIT_BYTES}"
    for size in (0, UNIT_BYTES - 1, UNIT_BYTES):
        os.truncate(path, size)
        with pytest.raises(Corrupt, match="published"):
            await store.recover(log.ref(), token=TAKER)
    path.write_bytes(stored)
    assert await recovered(store, log) == end_of(segment, 2)


async def test_what_another_boot_published_forbids_no_cut(store, directory, monkeypatch):
    log = FakeLog()
    segment = await written(store, log, [b"first", b"second"])
    os.truncate(only(directory, log, "seg"), UNIT_BYTES)
    monkeypatch.setattr(file_place, "boot_id", lambda: "99" * 16)
    rebooted = FileSegments(directory, RUNTIME)
    assert await recovered(rebooted, log) == end_of(segment, 1)
    await rebooted.close()


@pytest.mark.parametrize("block", [0, 1, 3])
@pytest.mark.parametrize("byte", [0, 30, 100, HEADER_BYTES + 3])
async def test_a_damaged_block_followed_by_a_good_one_is_never_cut(store, directory, block, byte):
    log = FakeLog()
    await written(store, log, [b"payload %d" % n for n in range(5)])
    path = only(directory, log, "seg")
    flip(path, block * UNIT_BYTES + byte)
    with pytest.raises(Corrupt) as caught:
        await store.recover(log.ref(), token=TAKER)
    assert caught.value.where == f"{path}@{block * UNIT_BYTES}"
    flip(path, block * UNIT_BYTES + byte)
    assert await recovered(store, log) is not None


async def test_a_lost_block_far_before_a_good_one_is_never_cut(store, directory):
    log = FakeLog()
    segment = await written(store, log, [b"a", os.urandom(3 << 20), b"last"])
    middle = padded(len(segment.blocks[1].buffer))
    overwrite(only(directory, log, "seg"), UNIT_BYTES, bytes(middle))
    with pytest.raises(Corrupt, match="block 1 "):
        await store.recover(log.ref(), token=TAKER)


async def test_old_blocks_inside_a_torn_payload_do_not_forbid_the_cut(store, directory):
    """A log that stores a copy of its own file, and of another log's."""
    log, stranger = FakeLog(), FakeLog(log_id="77" * 16)
    copied = await written(store, stranger, [b"x", b"y", b"z"])
    segment = await log.open(store)
    await segment.append(b"one")
    await segment.append(b"two")
    stored = (only(directory, log, "seg")).read_bytes()[: 2 * UNIT_BYTES]
    foreign = only(directory, stranger, "seg").read_bytes()[: 3 * UNIT_BYTES]
    lead = bytes(UNIT_BYTES - HEADER_BYTES - 4)  # so that they begin on whole units
    await segment.append(lead + stored + foreign)
    await segment.writer.abandon()
    raw = only(directory, log, "seg").read_bytes()
    assert raw[3 * UNIT_BYTES : 3 * UNIT_BYTES + 8] == b"WPBLOCK\n"
    assert len(copied.blocks) == 3
    assert await recovered(store, log) == end_of(segment, 3)
    unpublish(directory, log, 2 * UNIT_BYTES)
    flip(only(directory, log, "seg"), 2 * UNIT_BYTES + 200)
    assert await recovered(store, log) == end_of(segment, 2)


# ------------------------------------------------------------------------------ who may live


async def test_a_stopped_writer_is_fenced_through_the_word(store, other):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"kept")
    end = segment.end
    found = await other.recover(log.ref(), token=TAKER)  # its lock is held by the writer
    assert found.end == end
    with pytest.raises(Fenced) as caught:
        await segment.append(b"late")
    assert caught.value.outcome == "unknown"
    await segment.writer.abandon()


async def test_a_live_close_after_the_fence_fails(store, other):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"kept")
    await other.recover(log.ref(), token=TAKER)
    with pytest.raises(Fenced):
        await segment.writer.finish(segment.end)


async def test_without_its_side_file_a_locked_segment_is_unavailable(store, other, directory):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"kept")
    side = only(directory, log, "side")
    raw = side.read_bytes()
    side.unlink()
    with pytest.raises(Unavailable, match="locked by a living process"):
        await other.recover(log.ref(), token=TAKER)
    side.write_bytes(b"\1" + raw[1:])
    with pytest.raises(Unavailable, match="not the side file"):
        await other.recover(log.ref(), token=TAKER)
    await segment.writer.abandon()
    assert await recovered(other, log) == end_of(segment, 1)  # the lock is free: no word is needed
    assert side.read_bytes()[:1] == b"\1"


async def test_after_a_reboot_the_words_are_void(store, directory, monkeypatch):
    log = FakeLog()
    segment = await written(store, log, [b"a", b"b"])
    monkeypatch.setattr(file_place, "boot_id", lambda: "99" * 16)
    rebooted = FileSegments(directory, RUNTIME)
    source = rebooted.source(log.ref())
    assert await source.visible_end() == 0
    assert [block async for block in source.blocks(0)] == []
    await source.close()
    only(directory, log, "side").unlink()  # it may even be lost
    assert await recovered(rebooted, log) == end_of(segment, 2)
    await rebooted.close()


async def test_a_file_of_another_host_or_directory_is_unavailable_and_named(store, other):
    log = FakeLog()
    await written(store, log, [b"a"])
    ref = log.ref()
    place = ref.segment.place
    assert place is not None
    for moved, name in (
        (replace(place, host="other-host"), "other-host"),
        (replace(place, buffer="other-buffer"), "other-buffer"),
    ):
        wrong = SegmentRef(log_id=ref.log_id, segment=replace(ref.segment, place=moved))
        with pytest.raises(Unavailable, match=name):
            await other.recover(wrong, token=TAKER)
        with pytest.raises(Unavailable, match=name):
            await read(other, wrong)
        with pytest.raises(Unavailable, match=name):
            await other.drop(wrong, keep_fence=True)


async def test_a_missing_file_is_never_an_empty_segment(store, directory):
    log = FakeLog()
    await written(store, log, [b"a"])
    only(directory, log, "seg").unlink()
    with pytest.raises(Corrupt, match="missing"):
        await store.recover(log.ref(), token=TAKER)
    with pytest.raises(NotFound):
        await read(store, log.ref())


async def test_recovery_fails_if_the_disk_cannot_sync(store, monkeypatch):
    log = FakeLog()
    await written(store, log, [b"a"])

    def broken(fd):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(Unavailable):
            await store.recover(log.ref(), token=TAKER)
    assert await recovered(store, log) is not None


# ------------------------------------------------------------------------------ accepted losses


async def salvaged(store, log):
    end = (await store.salvage(log.ref(), token=TAKER)).end
    return None if end is None else (end.block, end.seq, end.digest)


@pytest.mark.parametrize("block", [0, 2])
async def test_salvage_keeps_what_stands_before_the_damage(store, directory, block):
    log = FakeLog()
    segment = await written(store, log, [b"payload %d" % n for n in range(5)])
    flip(only(directory, log, "seg"), block * UNIT_BYTES + 140)
    assert await salvaged(store, log) == (end_of(segment, block) if block else None)


async def test_salvage_gives_up_what_was_published(store, directory):
    log = FakeLog()
    segment = await written(store, log, [b"first", b"second"])
    os.truncate(only(directory, log, "seg"), UNIT_BYTES)
    assert await salvaged(store, log) == end_of(segment, 1)


async def test_salvage_does_not_trust_the_hint(store, directory, hints):
    log = FakeLog()
    segment = await written(store, log, [b"x" * 3000] * 50)
    flip(only(directory, log, "seg"), 3 * UNIT_BYTES + 500)
    assert await recovered(store, log) == end_of(segment, 50)
    assert await salvaged(store, log) == end_of(segment, 3)


async def test_salvage_of_a_missing_file_fences_who_may_still_hold_it(store, other, directory):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"lost")
    only(directory, log, "seg").unlink()
    assert await salvaged(other, log) is None
    with pytest.raises(Fenced):
        await segment.append(b"late")
    await segment.writer.abandon()
    only(directory, log, "side").unlink()
    with pytest.raises(Unavailable, match="restart the machine"):
        await other.salvage(log.ref(), token=TAKER)


# ------------------------------------------------------------------------------ the hint


@pytest.fixture
def hints(monkeypatch):
    """A hint every 64 KiB; returns the offsets at which scans begin to read."""
    monkeypatch.setattr(file_append, "HINT_EVERY_BYTES", 64 << 10)
    offsets = []
    view = Window.view

    def noted(self, offset, size_bytes):
        offsets.append(offset)
        return view(self, offset, size_bytes)

    monkeypatch.setattr(Window, "view", noted)
    return offsets


async def test_recovery_starts_behind_the_hint(store, other, hints):
    log = FakeLog()
    segment = await written(store, log, [b"x" * 3000] * 50)
    hints.clear()
    found = await other.recover(log.ref(), token=TAKER)
    assert (found.end.block, found.end.seq, found.end.digest) == end_of(segment, 50)
    assert min(hints) == 47 * UNIT_BYTES  # the last block of the prefix: 48 of them were hinted
    assert found.bytes == sum(len(block.buffer) for block in segment.blocks)
    first, last = segment.blocks[0].header, segment.blocks[-1].header
    assert found.first_timestamp_us == first.base_timestamp_us
    assert found.last_timestamp_us == last.base_timestamp_us


async def test_many_small_blocks_are_hinted_by_their_number(store, other, hints, monkeypatch):
    monkeypatch.setattr(file_append, "HINT_EVERY_BYTES", 1 << 40)
    monkeypatch.setattr(file_append, "HINT_EVERY_BLOCKS", 10)
    log = FakeLog()
    segment = await written(store, log, [b"x"] * 25)
    hints.clear()
    assert await recovered(other, log) == end_of(segment, 25)
    assert min(hints) == 19 * UNIT_BYTES


async def test_a_hint_that_does_not_fit_is_void(store, directory, hints):
    log = FakeLog()
    segment = await written(store, log, [b"x" * 3000] * 50)
    side = only(directory, log, "side")
    good = side.read_bytes()
    for slot in (1024, 1536):
        flip(side, slot + 9)
    hints.clear()
    assert await recovered(store, log) == end_of(segment, 50)
    assert min(hints) == 0
    side.write_bytes(good)
    flip(only(directory, log, "seg"), 47 * UNIT_BYTES + 200)  # the block it ends with is damaged
    with pytest.raises(Corrupt, match="block 47 "):
        await store.recover(log.ref(), token=TAKER)


async def test_a_hint_beyond_the_file_is_void(store, directory, hints):
    log = FakeLog()
    segment = await written(store, log, [b"x" * 3000] * 50)
    os.truncate(only(directory, log, "seg"), 10 * UNIT_BYTES)
    unpublish(directory, log, 10 * UNIT_BYTES)
    assert await recovered(store, log) == end_of(segment, 10)


async def test_register_facts_before_the_hint_are_walked(store, other, hints):
    log = FakeLog()
    segment = await log.open(store)
    await segment.submit(segment.pack(control=GrantProducer(id="p", epoch=1)))
    for _ in range(40):
        await segment.append(b"x" * 3000)
    await segment.writer.abandon()
    found = await other.recover(log.ref(), token=TAKER)
    assert [facts.controls for facts in found.facts] == [(GrantProducer(id="p", epoch=1),)]


async def test_damage_in_the_hinted_prefix_is_found_by_reading(store, other, directory, hints):
    log = FakeLog()
    segment = await written(store, log, [b"x" * 3000] * 50)
    flip(only(directory, log, "seg"), 3 * UNIT_BYTES + 500)
    found = await other.recover(log.ref(), token=TAKER)
    assert found.end == segment.end
    with pytest.raises(Corrupt):
        await read(other, log.close(found.end))


# ------------------------------------------------------------------------------ the directory


async def test_two_openers_of_one_segment_number_do_not_meet(store, other):
    """The slower opener prepares, and drops, without touching the file of the one that won."""
    slow, fast = FakeLog(), FakeLog(epoch=2)
    winner = await fast.open(other)
    await winner.append(b"kept")
    loser = await slow.open(store)
    await loser.writer.abandon()
    assert await store.held(fast.log_id) == [(0, f"{1:032x}"), (0, f"{2:032x}")]
    await store.drop(slow.ref(), keep_fence=True)
    await winner.append(b"and more")
    assert payloads_of(await read(store, await winner.finish())) == [b"kept", b"and more"]


async def test_an_attempt_without_descriptors_leaves_no_file_behind(store, directory, monkeypatch):
    """A mapping takes a descriptor of its own: the last one may be gone after the file was made."""
    log = FakeLog()

    def none_left(*args):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(file_side, "mmap", none_left)
        with pytest.raises(Unavailable, match="Too many open files"):
            await log.open(store)
    assert list((directory / log.log_id).iterdir()) == []
    log.manifest = replace(log.manifest, next_segment_id=0)
    segment = await log.open(store)  # the same attempt, tried again
    await segment.append(b"there")
    await segment.writer.abandon()


async def test_the_same_attempt_cannot_prepare_twice(store):
    log = FakeLog()
    segment = await log.open(store)
    log.manifest = replace(log.manifest, next_segment_id=0)
    with pytest.raises(Unavailable, match="drop it first"):
        await log.prepare(store)
    await segment.append(b"unhurt")
    await segment.finish()


async def test_ids_are_made_once_and_kept(directory):
    places: list[Any] = []
    for _ in range(2):
        store = FileSegments(directory, RUNTIME)
        log = FakeLog(log_id=RUNTIME.token())
        segment = await log.open(store)
        places.append(log.ref().segment.place)
        await segment.writer.abandon()
        await store.close()
    assert places[0] == places[1]
    assert places[0] == FilePlace(
        host=places[0].host,
        boot=file_place.boot_id(),
        buffer=(directory / "buffer-id").read_text().strip(),
    )
    assert all(len(one) == 32 for one in (places[0].host, places[0].boot, places[0].buffer))


async def test_a_machine_without_id_gets_one_in_the_directory(directory, monkeypatch, tmp_path):
    monkeypatch.setattr(file_place, "_MACHINE_ID", tmp_path / "missing")
    store = FileSegments(directory, RUNTIME)
    log = FakeLog()
    await written(store, log, [b"a"])
    place = log.ref().segment.place
    assert place is not None
    assert place.host == (directory / "host-id").read_text().strip()
    await store.close()


async def test_the_directory_of_a_deleted_log_goes_with_its_last_file(store, directory):
    log = FakeLog()
    await written(store, log, [b"a"])
    assert await store.logs() == [log.log_id]
    await store.drop(log.ref(), keep_fence=True)
    assert (directory / log.log_id).is_dir()
    await store.drop(log.ref(), keep_fence=False)
    assert await store.logs() == []


async def test_a_network_file_system_is_refused(directory, monkeypatch):
    monkeypatch.setattr(file_place, "file_system_of", lambda _: "nfs4")
    store = FileSegments(directory, RUNTIME)
    with pytest.raises(InvalidRequest, match="nfs4"):
        await FakeLog().open(store)
    assert not directory.exists()
    await store.close()


async def test_read_only_reads_and_changes_nothing(store, directory):
    log = FakeLog()
    segment = await log.open(store)
    await segment.append(b"a")
    reader = FileSegments(directory, RUNTIME, read_only=True)
    before = only(directory, log, "side").read_bytes()
    source = reader.source(log.ref())
    assert payloads_of([block async for block in source.blocks(0)]) == [b"a"]
    await source.wait_visible(1, 30)
    await source.close()
    assert only(directory, log, "side").read_bytes() == before
    for refused in (
        reader.recover(log.ref(), token=TAKER),
        reader.drop(log.ref(), keep_fence=True),
        log.prepare(reader),
    ):
        with pytest.raises(InvalidRequest, match="reading only"):
            await refused
    empty = FileSegments(directory / "nothing", RUNTIME, read_only=True)
    with pytest.raises(NotFound):
        await read(empty, log.ref())
    for one in (reader, empty):
        await one.close()
    await segment.writer.abandon()
