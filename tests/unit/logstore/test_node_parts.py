"""The small parts of a node, each beside a dumb second version: block index, tail cache, buffers, journal."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys
from functools import partial
from typing import Any

import pytest
from tests.unit.logstore.node_kit import FILE_BYTES, LOG, Writer

from woodpecker.codec.header import parse_header
from woodpecker.codec.journal import RECORD_BYTES, Kind
from woodpecker.core.node_disk import NO_JOURNAL, DiskState, new_disk, started
from woodpecker.core.replica import Replica
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.logstore.block_index import BlockIndex
from woodpecker.logstore.buffers import Buffers
from woodpecker.logstore.copies import Copies, record_bytes
from woodpecker.logstore.journal import FULL_BYTES, Journal
from woodpecker.logstore.settings import NodeSettings
from woodpecker.logstore.tail_cache import TailCache
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time

SEEDS = range(30)


# --- block index ---


def some_headers(rng, count):
    writer = Writer("0" * 32, seq=rng.randint(0, 50))
    time, headers = 100, []
    for _ in range(count):
        entries = rng.choice([0, 1, 1, 3])
        time += rng.randint(0, 3)
        headers.append(parse_header(writer.pack(rng.randint(0, 9), count=entries, time_us=time)))
    return headers


@pytest.mark.parametrize("seed", SEEDS)
def test_the_index_answers_like_a_list(seed):
    rng = random.Random(seed)
    headers = some_headers(rng, rng.randint(1, 40))
    places = [(rng.randrange(1, 1 << 20), 8 * rng.randrange(1 << 31)) for _ in headers]
    index = BlockIndex()
    for header, place in zip(headers, places, strict=True):
        index.append(header, place)
    end_seq, numbers = headers[-1].end_seq, range(len(headers))
    assert [index.place(n) for n in numbers] == places
    assert [index.size(n) for n in numbers] == [header.size_bytes for header in headers]
    assert [index.file(n) for n in numbers] == [file for file, _ in places]
    for seq in range(headers[0].base_seq, end_seq + 3):
        fits = [n for n in numbers if headers[n].base_seq == seq or headers[n].end_seq > seq]
        assert index.at_seq(seq, end_seq) == (fits[0] if fits else len(headers)), seq
    for time in range(98, headers[-1].base_timestamp_us + 3):
        count = rng.randint(0, len(headers))
        begun = [n for n in range(count) if headers[n].base_timestamp_us < time]
        assert index.before_time(time, count) == len(begun)
    for lac in range(headers[0].base_seq - 2, end_seq + 2):
        full = [n for n in numbers if headers[n].end_seq <= lac + 1 and headers[n].base_seq <= lac]
        assert index.confirmed(lac, end_seq) == max(full, default=-1), lac
    index.move(0, (5, 80))
    assert index.place(0) == (5, 80)
    index.truncate(1)
    assert len(index) == 1


# --- accounting ---


@pytest.mark.parametrize("seed", SEEDS)
def test_what_lives_in_which_file_adds_up(seed):
    rng, copies = random.Random(seed), Copies()
    writers = {}
    for _ in range(200):
        segment = rng.randrange(6)
        log = copies.log(LOG)
        match rng.randrange(8):
            case 0:
                copies.raise_floor(log, rng.randrange(4))
            case 1 if (copy := log.copies.get(segment)) and len(copy.index):
                copies.moved(copy, rng.randrange(len(copy.index)), (rng.randint(1, 5), 4096))
            case _ if segment >= log.floor:
                copy = log.copies.get(segment)
                if copy is None:
                    replica = Replica(incarnation="0" * 32, epoch=3)
                    copy = copies.add(LOG, segment, replica, 0.0)
                    writers[segment] = Writer("0" * 32, segment_id=segment)
                header = parse_header(writers[segment].pack(rng.randint(0, 99)))
                copies.stored(copy, header, (rng.randint(1, 5), 8))
        live: dict[int, int] = {}
        sizes = []
        for copy in copies.all():
            sizes.append(sum(copy.index.size(n) for n in range(len(copy.index))))
            assert copy.size_bytes == sizes[-1]
            for number in range(len(copy.index)):
                file = copy.index.file(number)
                live[file] = live.get(file, 0) + record_bytes(copy.index.size(number))
        assert {file: use.live_bytes for file, use in copies.uses.items() if use.live_bytes} == live
        assert all(bool(use.copies) == bool(use.live_bytes) for use in copies.uses.values())
        assert copies.unsealed_bytes == sum(sizes)
        assert copies.unsealed_segments == sum(size > 0 for size in sizes)
        assert copies.count == len(sizes)


# --- tail cache ---


def test_the_cache_is_bounded_and_the_oldest_go_first():
    copies, cache = Copies(), TailCache(20_000)
    first, second = (
        copies.add(LOG, segment, Replica(incarnation="0" * 32, epoch=3), 0.0) for segment in (0, 1)
    )
    for number in range(30):
        cache.put(first, number, bytes(1000))
        assert cache.size_bytes <= 20_000
    kept = [number for number in range(30) if cache.get(first, number) is not None]
    assert kept == list(range(30 - len(kept), 30))
    assert 10 <= len(kept) == len(cache)
    cache.put(second, 0, bytes(50_000))
    assert cache.get(second, 0) is None, "larger than the whole cache"
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_a_forgotten_copy_leaves_nothing_in_the_cache():
    copies, cache = Copies(), TailCache(1 << 20)
    idle = copies.add(LOG, 1000, Replica(incarnation="0" * 32, epoch=3), 0.0)
    cache.put(idle, 0, b"x")
    for segment in range(200):
        copy = copies.add(LOG, segment, Replica(incarnation="0" * 32, epoch=3), 0.0)
        for number in range(50):
            cache.put(copy, number, b"y")
        cache.forget(copy)
    assert len(cache) == 1
    assert cache.get(idle, 0) == b"x"
    assert len(cache._order) < 2000, "what was forgotten does not stand in line for ever"


# --- buffers ---


def test_buffers_are_used_again_when_nobody_looks_at_them():
    buffers = Buffers(64 << 20)
    first = buffers.for_block(100_000)
    place = id(first.obj)
    part = first[10:20]
    del first
    second = buffers.for_block(100_000)
    assert id(second.obj) != place, "a part of it is still in use"
    del part
    third = buffers.for_block(100_000)
    assert id(third.obj) == place
    assert buffers.owns(third)
    assert not Buffers(1 << 20).owns(third)
    assert not buffers.owns(memoryview(bytearray(10)))


@pytest.mark.parametrize("counts", ["more", "no views"])
def test_buffers_do_not_rely_on_how_an_interpreter_counts(counts, monkeypatch):
    real = sys.getrefcount
    other = {"more": lambda place: real(place) + 7, "no views": lambda _: 3}[counts]
    monkeypatch.setattr(sys, "getrefcount", other)
    spec = importlib.util.find_spec("woodpecker.logstore.buffers")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    buffers = module.Buffers(64 << 20)
    first = buffers.for_block(100_000)
    second = buffers.for_block(100_000)
    assert first.obj is not second.obj
    place = id(first.obj)
    del first
    third = buffers.for_block(100_000)
    assert third.obj is not second.obj
    if counts == "more":
        assert id(third.obj) == place
    else:
        assert buffers.size_bytes == 0


def test_buffers_have_room_for_header_and_padding_and_their_number_is_bounded():
    buffers = Buffers(4 << 20)
    held = []
    for size in (0, 1, 4096, 65_536, 262_144, 262_200, 1 << 20, 5 << 20, 40_000_000):
        block = buffers.for_block(size)
        assert len(block) == size
        assert isinstance(block.obj, bytes) is False
        assert len(memoryview(block.obj)) >= -(-(RECORD_BYTES + size) // 4096) * 4096
        held.append(block)
    held += [buffers.for_block(100_000) for _ in range(500)]
    assert buffers.size_bytes <= 4 << 20


# --- journal ---


class Lab:
    """A journal on a simulated disk."""

    def __init__(self, seed=1, **disk):
        self.disk = SimDisk(random.Random(seed), **disk)
        self.runtime = VirtualRuntime(seed)
        self.rotations: list[int] = []
        self.failures: list[OSError] = []
        self.journal = Journal(
            self.disk.open(), self.runtime, Buffers(64 << 20),
            DiskState(node="n1", incarnations=("0" * 32,), boot=1),
            file_bytes=FILE_BYTES, files={}, next_file=1, next_record=1,
            on_rotate=lambda: self.rotations.append(self.journal.current),
            on_failure=self.failures.append,
        )  # fmt: skip

    def put(self, done, block):
        return self.journal.put_block(
            Kind.BLOCK, memoryview(block), done, is_placed=False, era=0, log_id=LOG,
            segment_id=0, epoch=3, block=0,
        )  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@on_virtual_time
async def test_records_are_answered_in_order_and_lie_where_the_journal_says(seed):
    rng, lab = random.Random(seed), Lab(seed)
    await lab.journal.prepare(ahead=True)
    writer, done, places = Writer("0" * 32), [], []
    for number in range(60):
        block = writer.pack(rng.choice([0, 10, 5000, 70_000, 150_000]))
        places.append(lab.put(partial(lambda n, error: done.append((n, error)), number), block))
        if rng.random() < 0.2:
            lab.journal.put(Kind.NAME, b"orders", log_id=LOG)
        if rng.random() < 0.3:
            await lab.runtime.sleep_ms(rng.uniform(0, 1))
        await lab.journal.prepare(ahead=True)
    await lab.journal.synced()
    assert done == [(number, None) for number in range(60)]
    assert lab.journal.queued_bytes == lab.journal.queued_records == 0
    for (file, offset), block in zip(places, writer.blocks, strict=True):
        at = offset + RECORD_BYTES
        assert bytes(lab.disk.journal[file][at : at + len(block)]) == block
    assert len(lab.rotations) >= 1
    assert lab.disk.syncs < 62, "what came together was synced together"


@on_virtual_time
async def test_a_small_group_waits_for_the_disk_a_full_one_goes_along():
    lab = Lab(sync_ms=(10.0, 10.0))
    await lab.journal.prepare(ahead=True)
    done = []
    writer = Writer("0" * 32)

    def note(_error):
        done.append(lab.runtime.monotonic_ms())

    lab.put(note, writer.pack(10))
    await asyncio.sleep(0)
    began = lab.runtime.monotonic_ms()
    for _ in range(3):
        lab.put(note, writer.pack(10))
        await lab.runtime.sleep_ms(1)
    await lab.journal.synced()
    assert [round(at - began) for at in done] == [10, 20, 20, 20]
    assert lab.journal.syncs == 2
    assert FULL_BYTES < 2 << 20


@on_virtual_time
async def test_when_synced_waits_for_all_that_was_put_before():
    lab = Lab()
    await lab.journal.prepare(ahead=True)
    order = []
    lab.journal.when_synced(lambda _: order.append("nothing"))
    assert order == ["nothing"], "at once, where nothing is queued"
    lab.put(lambda _: order.append("first"), Writer("0" * 32).pack())
    lab.journal.when_synced(lambda _: order.append("after"))
    assert order == ["nothing"]
    await asyncio.sleep(0)
    lab.journal.when_synced(lambda _: order.append("also after"))
    await lab.journal.synced()
    assert order == ["nothing", "first", "after", "also after"]


@pytest.mark.parametrize("fails", [1, 2, 3])
@on_virtual_time
async def test_after_a_failed_write_everybody_is_told_and_nothing_is_written(fails):
    lab = Lab()
    await lab.journal.prepare(ahead=True)
    writer = Writer("0" * 32)
    results: list[Exception | None] = []
    lab.disk.fail_write_in = fails
    for _ in range(14):
        lab.put(results.append, writer.pack(200_000))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="journal could not be written"):
        await lab.journal.synced()
    await lab.runtime.sleep_ms(50)
    good = [result for result in results if result is None]
    assert len(results) == 14
    assert results[: len(good)] == good, "the failure is final: nothing after it succeeds"
    assert len(lab.failures) == 1
    assert lab.disk.syncs == fails - 1
    with pytest.raises(Unavailable):
        lab.put(results.append, writer.pack())
    lab.journal.when_synced(results.append)
    assert isinstance(results[-1], Unavailable)


@on_virtual_time
async def test_records_wait_for_a_file_that_is_not_there_yet():
    lab = Lab()
    await lab.journal.prepare(ahead=False)
    writer = Writer("0" * 32)
    done: list[Exception | None] = []
    for _ in range(12):
        lab.put(done.append, writer.pack(150_000))
    await lab.runtime.sleep_ms(100)
    assert 0 < len(done) < 12
    assert lab.rotations
    while len(done) < 12:
        await lab.journal.prepare(ahead=True)
        await lab.runtime.sleep_ms(10)
    assert done == [None] * 12


# --- identity and settings ---


def test_when_an_incarnation_becomes_past():
    state = new_disk("n1", "a" * 32, 4).state
    assert (state.boot, state.identity.past) == (5, frozenset())
    good: dict[str, Any] = {
        "token": "b" * 32,
        "boot_seen": 5,
        "files": [1, 2],
        "scars": [],
        "end": (2, 4096, 9),
    }

    def next_one(state, **changes):
        return started(state, **(good | changes))

    fine = next_one(state)
    assert (fine.lost, fine.state.incarnations, fine.state.boot) == ("", ("a" * 32,), 6)
    assert fine.state.joints == ((2, 9),)
    for changes, text in (
        ({"scars": [(1, 4096)]}, "file 1 at 4096"),
        ({"boot_seen": 6}, "boot 6"),
        ({"end": NO_JOURNAL, "files": []}, "gone"),
    ):
        lost = next_one(state, **changes)
        assert text in lost.lost
        assert lost.state.incarnations == ("a" * 32, "b" * 32)
        assert lost.state.identity.past == {"a" * 32}
    scarred = next_one(state, scars=[(1, 4096)]).state
    assert next_one(scarred, scars=[(1, 4096)], boot_seen=6).lost == "", "once"
    assert next_one(scarred, scars=[(1, 8192)], boot_seen=6).lost
    assert next_one(fine.state, boot_seen=6, files=[3], end=(3, 1, 20)).state.joints == ((3, 20),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"node": "no/name"},
        {"file_bytes": 1000},
        {"file_bytes": (1 << 20) + 1},
        {"journal_max_bytes": 3 << 20, "file_bytes": 1 << 20},
        {"soft_full": 0.9, "hard_full": 0.8},
        {"hard_full": 1.0},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(InvalidRequest):
        NodeSettings(**({"node": "n1"} | wrong))
