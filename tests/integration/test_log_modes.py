"""One log that changes its kind and its storage: seqs go on, followers notice nothing."""

from __future__ import annotations

import asyncio
import os
import warnings

import pytest

import woodpecker as wp
from woodpecker.core.ids import Kind

ENTRIES = 60


@pytest.fixture
async def client(tmp_path):
    async with wp.connect((tmp_path / "store").as_uri()) as client:
        yield client


async def follow(log, count: int) -> list[tuple[int, bytes]]:
    found = []
    async for entry in log.read(follow=True):
        found.append((entry.seq, entry.payload))
        if len(found) == count:
            break
    return found


def wanted(count: int) -> list[tuple[int, bytes]]:
    return [(n, b"%d" % n) for n in range(count)]


async def kinds(client, name: str) -> list[Kind]:
    manifest = await client.environment.catalog.read(name)
    return [segment.kind for segment in manifest.segments]


@pytest.mark.parametrize("modes", [["file", "object"], ["object", "file"], ["file", "object"] * 3])
async def test_a_living_writer_changes_the_mode_at_its_next_roll(client, modes):
    log = await client.create_log("orders", mode=modes[0], segment_max_blocks=4)
    total = ENTRIES * len(modes)
    followers = [asyncio.create_task(follow(log, total)) for _ in range(3)]
    seen = set()
    async with await log.open_writer() as writer:
        seq = 0
        for mode in modes:
            await log.alter(mode=mode)
            for _ in range(ENTRIES):
                assert await writer.append(b"%d" % seq) == seq
                seq += 1
            seen.update((await kinds(client, "orders"))[-1:])
    assert seen == {Kind(mode) for mode in modes}
    async with asyncio.timeout(60):
        for follower in followers:
            assert await follower == wanted(total)
    assert [(e.seq, e.payload) async for e in log.read()] == wanted(total)
    report = await log.verify()
    assert report is not None


@pytest.mark.parametrize("is_closed", [True, False])
async def test_a_change_of_mode_takes_effect_when_the_log_is_opened_again(client, is_closed):
    log = await client.create_log("orders", mode="file")
    follower = asyncio.create_task(follow(log, 3 * ENTRIES))
    writers = []
    for round_, mode in enumerate(["file", "object", "file"]):
        await log.alter(mode=mode)
        writer = await log.open_writer()
        writers.append(writer)
        for n in range(round_ * ENTRIES, (round_ + 1) * ENTRIES):
            assert await writer.append(b"%d" % n) == n
        assert (await kinds(client, "orders"))[-1] is Kind(mode)
        if is_closed:
            await writer.close()
    for writer in writers:
        await writer.close()
    async with asyncio.timeout(60):
        assert await follower == wanted(3 * ENTRIES)


async def test_segments_go_to_another_storage_from_the_next_one_on(client, tmp_path):
    log = await client.create_log("orders", mode="object", segment_max_blocks=4)
    follower = asyncio.create_task(follow(log, 3 * ENTRIES))
    places = [tmp_path / "store", tmp_path / "second", tmp_path / "third"]
    async with await log.open_writer() as writer:
        seq = 0
        for place in places:
            await log.alter(storage=place.as_uri())
            for _ in range(ENTRIES):
                assert await writer.append(b"%d" % seq) == seq
                seq += 1
    async with asyncio.timeout(60):
        assert await follower == wanted(3 * ENTRIES)
    assert any(any((place / "objects").rglob("*")) for place in places[1:])
    await client.run_background("orders")
    assert [(e.seq, e.payload) async for e in log.read()] == wanted(3 * ENTRIES)
    await log.verify()


async def test_a_session_goes_on_through_changes_of_mode(client):
    log = await client.create_log("orders", mode="file", segment_max_blocks=3)
    sequence = 0
    for mode in ("file", "object", "file"):
        await log.alter(mode=mode)
        async with await log.open_writer(producer="p") as writer:
            assert writer.next_sequence == sequence
            for _ in range(10):
                await writer.append_many([b"%d" % sequence], sequence=sequence)
                sequence += 1
            repeat = await writer.append_many([b"%d" % (sequence - 1)], sequence=sequence - 1)
            assert repeat == range(sequence - 1, sequence)
    assert [(e.seq, e.payload) async for e in log.read()] == wanted(sequence)


@pytest.mark.parametrize("mode", ["file", "object"])
async def test_a_forked_child_is_refused_and_the_parent_goes_on(client, mode):
    log = await client.create_log("orders", mode=mode)
    async with await log.open_writer() as writer:
        assert await writer.append(b"0") == 0
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 3.12 warns of threads; this child uses none
            pid = os.fork()
        if pid == 0:  # the child: it may only leave by _exit
            try:
                answers = []
                for call in (lambda: writer.submit(b"x"), lambda: writer.reserve(1)):
                    try:
                        call()
                        answers.append("taken")
                    except wp.Closed:
                        answers.append("closed")
                os.write(writing, " ".join(answers).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = await asyncio.to_thread(pipe.read)
        os.waitpid(pid, 0)
        assert answer == b"closed closed"
        assert await writer.append(b"1") == 1
    assert [(e.seq, e.payload) async for e in log.read()] == wanted(2)
