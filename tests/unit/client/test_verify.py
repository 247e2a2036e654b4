"""``verify`` looks at every byte: one flipped bit anywhere is found, and its place is named."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.unit.client.background_kit import NAME, Env, World, create, entries, fill, payload

from woodpecker.client.background import BackgroundWorker
from woodpecker.client.log import Log
from woodpecker.client.verify import verify_log
from woodpecker.codec import keys, records
from woodpecker.core import retention
from woodpecker.core.register import Register
from woodpecker.errors import Corrupt, InvalidRequest, NotFound
from woodpecker.metadata.history import History

SEGMENTS = 4


async def sealed_log(monkeypatch: pytest.MonkeyPatch) -> tuple[World, str]:
    """Four sealed segments, two of them in pages, then an open one with two blocks."""
    monkeypatch.setattr(retention, "INLINE_SEALED_MAX", 2)
    monkeypatch.setattr(retention, "PAGE_SEGMENTS", 1)
    world = World()
    log = await create(world.env())
    next_seq = await fill(log, SEGMENTS)
    await BackgroundWorker(log._env).run_once(NAME)
    writer = await log.open_writer()
    for seq in (next_seq, next_seq + 1):
        await writer.append(payload(seq), timestamp_us=1_000_000 + seq)
    return world, log.log_id


def flip(world: World, key: str, bit: int) -> None:
    stored = world.bucket.objects[key]
    data = bytearray(stored.data)
    data[bit // 8] ^= 1 << bit % 8
    world.bucket.objects[key] = replace(stored, data=bytes(data))


async def test_a_sound_log_tells_its_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log_id = await sealed_log(monkeypatch)
    seen: list[tuple[int, int]] = []
    report = await verify_log(
        world.env(), NAME, log_id, progress=lambda done, of: seen.append((done, of))
    )
    assert (report.entries, report.first_seq, report.next_seq) == (18, 0, 18)
    assert (report.segments, report.blocks) == (5, 18)
    assert seen[-1][0] == 18
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    ranged = await verify_log(world.env(), NAME, log_id, start=5, end=9)
    assert (ranged.first_seq, ranged.next_seq, ranged.entries) == (4, 12, 8)
    writer = await Log(world.env(), NAME, log_id).open_writer()  # closes the open segment
    await writer.close()
    closed = await verify_log(world.env(), NAME, log_id)
    assert closed.digest == report.digest
    assert closed.digest == (await world.env().catalog.read(NAME)).digest


@pytest.mark.parametrize("what", [keys.SealedKey, keys.PageKey, keys.BlockKey])
async def test_one_flipped_bit_anywhere_is_found(
    monkeypatch: pytest.MonkeyPatch, what: type
) -> None:
    world, log_id = await sealed_log(monkeypatch)
    found = [key for key in world.bucket.objects if isinstance(keys.parse_object(key), what)]
    found = [key for key in found if len(world.bucket.objects[key].data) > 96]  # no end marks
    assert found
    chance = random.Random(3)
    for key in found:
        size = len(world.bucket.objects[key].data)
        # dense at both ends (headers, index, register, footer), sparse in the payloads
        bits = [*range(0, 1040, 29), *range(8 * size - 8 * 700, 8 * size, 31)]
        bits += [chance.randrange(8 * size) for _ in range(25)]
        for bit in bits:
            if not 0 <= bit < 8 * size:
                continue
            other = world.copy()
            flip(other, key, bit)
            with pytest.raises((Corrupt, InvalidRequest)) as caught:
                await verify_log(other.env(), NAME, log_id)
            assert key in str(caught.value), (key, bit, caught.value)


async def test_a_flipped_bit_in_the_manifest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log_id = await sealed_log(monkeypatch)
    key = keys.manifest(NAME)
    record = world.records.by_key[key]
    for bit in range(0, 8 * len(record.value), 61):
        data = bytearray(record.value)
        data[bit // 8] ^= 1 << bit % 8
        other = world.copy()
        other.records.by_key[key] = replace(record, value=bytes(data))
        with pytest.raises((Corrupt, InvalidRequest)):
            await verify_log(other.env(), NAME, log_id)


async def test_a_missing_object_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log_id = await sealed_log(monkeypatch)
    for what in (keys.SealedKey, keys.PageKey):
        key = next(k for k in world.bucket.objects if isinstance(keys.parse_object(k), what))
        other = world.copy()
        del other.bucket.objects[key]
        with pytest.raises(Corrupt, match="not there"):
            await verify_log(other.env(), NAME, log_id)


async def test_a_register_that_is_not_the_fold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    world, log_id = await sealed_log(monkeypatch)
    env = world.env()
    key = keys.manifest(NAME)
    manifest = await env.catalog.read(NAME)
    forged = replace(manifest, register=replace(manifest.register, ended=True))
    record = world.records.by_key[key]
    world.records.by_key[key] = replace(record, value=records.encode_manifest(forged))
    with pytest.raises(Corrupt, match="fold of the blocks"):
        await verify_log(env, NAME, log_id)


async def test_a_register_replaced_while_verify_runs_is_no_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    log = await create(world.env())
    await fill(log, 1)  # closed by its writer; several blocks of growing timestamps
    load, calls = History.load_register, []

    async def gone_once(self: History, inline: Register, key: str | None) -> Register:
        calls.append(key)
        if len(calls) == 2:  # the checkpoint, after the segment has been walked
            raise NotFound("collected: the log was closed anew meanwhile")
        return await load(self, inline, key)

    monkeypatch.setattr(History, "load_register", gone_once)
    report = await verify_log(world.env(), NAME, log.log_id)
    assert (report.entries, report.next_seq) == (4, 4)
    assert len(calls) > 2


async def test_bad_ranges_are_refused() -> None:
    world = World()
    log = await create(world.env())
    with pytest.raises(InvalidRequest):
        await verify_log(world.env(), NAME, log.log_id, start=-1)
    empty = await verify_log(world.env(), NAME, log.log_id)
    assert (empty.entries, empty.first_seq, empty.next_seq) == (0, 0, 0)


# --- repair ------------------------------------------------------------------------------------------


async def damaged(env: Env, log_id: str, index: int) -> str:
    manifest = await env.catalog.read(NAME)
    segments = [segment async for segment in env.segments(manifest)]
    sealed = segments[index].sealed
    assert sealed is not None
    return sealed.key


@pytest.mark.parametrize("from_end", [4, 200, 300, 420])
async def test_damage_behind_the_blocks_is_repaired(
    monkeypatch: pytest.MonkeyPatch, from_end: int
) -> None:
    world, log_id = await sealed_log(monkeypatch)
    env = world.env()
    key = await damaged(env, log_id, 1)
    sound = world.bucket.objects[key].data
    flip(world, key, 8 * (len(sound) - from_end))
    report = await verify_log(world.env(), NAME, log_id, repair=True)
    assert report.repaired == (key,)
    assert report.entries == 18
    assert world.bucket.objects[key].data == sound


async def test_a_lost_object_is_rebuilt_from_blocks_not_deleted_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    log = await create(world.env())
    await fill(log, 2)
    blocks = dict(world.bucket.objects)
    await BackgroundWorker(world.env()).run_once(NAME)
    key = await damaged(world.env(), log.log_id, 0)
    sound = world.bucket.objects[key].data
    world.bucket.objects.update(blocks)  # as if the worker had died before it deleted them
    del world.bucket.objects[key]
    report = await verify_log(world.env(), NAME, log.log_id, repair=True)
    assert report.repaired == (key,)
    assert world.bucket.objects[key].data == sound
    assert len(await entries(world.env(), log)) == 8


async def test_what_cannot_be_repaired_is_left_alone_and_told_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, log_id = await sealed_log(monkeypatch)
    key = await damaged(world.env(), log_id, 1)
    flip(world, key, 8 * 40_000)  # inside a payload
    bad = world.bucket.objects[key].data
    with pytest.raises(Corrupt, match="entries 4 to 7") as caught:
        await verify_log(world.env(), NAME, log_id, repair=True)
    assert key in caught.value.where
    assert world.bucket.objects[key].data == bad
