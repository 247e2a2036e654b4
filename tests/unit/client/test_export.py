"""Export and import: the same log somewhere else, or a clear error and nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.unit.client.background_kit import NAME, World, create, entries, fill, payload

from woodpecker.client.background import BackgroundWorker
from woodpecker.client.entry import Entry
from woodpecker.client.export import export_log
from woodpecker.client.import_file import import_log
from woodpecker.client.log import Log
from woodpecker.client.reader import read
from woodpecker.codec import keys
from woodpecker.core import retention
from woodpecker.errors import AlreadyExists, Corrupt, InvalidRequest, LogEnded, NotFound


async def rich_log(world: World) -> Log:
    """Sealed and closed segments, an open one, headers, a producer, a cursor, a trimmed beginning."""
    log = await create(world.env())
    await fill(log, 3)
    await BackgroundWorker(log._env).run_once(NAME)
    writer = await log.open_writer(producer="p")
    for seq in range(12, 15):
        await writer.append(payload(seq), headers={"n": str(seq)}, timestamp_us=2_000_000 + seq)
    await log.trim(5)
    await BackgroundWorker(log._env).run_once(NAME)
    cursor = await log.cursor("billing", start=7)
    await cursor.commit(9, data=b"opaque")
    world.bucket.put(keys.caller_object(log.log_id, "checkpoints/1"), b"state", 0)
    return log


async def all_of(log: Log) -> list[Entry]:
    return [entry async for entry in read(log._env, log.name, log.log_id)]


def facts(found: list[Entry]) -> list[tuple[object, ...]]:
    return [(e.seq, e.payload, e.headers, e.timestamp_us) for e in found]


async def test_a_log_is_the_same_after_export_and_import_elsewhere(tmp_path: Path) -> None:
    world, elsewhere = World(), World()
    log = await rich_log(world)
    seen: list[tuple[int, int]] = []
    path = tmp_path / "orders.wpx"
    told = await export_log(
        world.env(), NAME, log.log_id, path, progress=lambda done, of: seen.append((done, of))
    )
    assert (told.first_seq, told.next_seq, told.cursors, told.objects) == (4, 15, 1, 1)
    assert seen[-1] == (11, 11)
    assert path.stat().st_size == told.bytes
    done = await import_log(elsewhere.env(), "copy", path)
    assert (done.first_seq, done.next_seq, done.entries) == (4, 15, told.entries)
    env = elsewhere.env()
    manifest = await env.catalog.read("copy")
    copy = Log(env, "copy", manifest.log_id)
    assert manifest.log_id != log.log_id
    assert manifest.trim_point == 5
    assert facts(await all_of(copy)) == facts(await all_of(log))
    assert (await copy.verify()).digest == done.digest == manifest.digest
    (cursor,) = await copy.cursors()
    assert (cursor.name, cursor.position, cursor.data) == ("billing", 9, b"opaque")
    stored = elsewhere.bucket.objects[keys.caller_object(copy.log_id, "checkpoints/1")]
    assert stored.data == b"state"
    original = await log._manifest()
    assert original.open_segment is not None
    writer = await copy.open_writer()
    assert await writer.append(b"goes on") == 15
    await writer.close()
    assert not list(tmp_path.glob("*.part"))


async def test_the_register_survives(tmp_path: Path) -> None:
    world = World()
    log = await rich_log(world)
    writer = await log.open_writer()
    await writer.end_log()
    path = tmp_path / "ended.wpx"
    await export_log(world.env(), NAME, log.log_id, path)
    await import_log(world.env(), "copy", path)
    env = world.env()
    mine, copied = await log._manifest(), await env.catalog.read("copy")
    assert copied.ended
    assert copied.register == mine.register
    assert copied.register.producer("p") is not None
    with pytest.raises(LogEnded):
        await Log(env, "copy", copied.log_id).open_writer()


async def test_an_empty_and_a_wholly_trimmed_log_can_be_moved(tmp_path: Path) -> None:
    world = World()
    log = await create(world.env())
    path = tmp_path / "a.wpx"
    report = await export_log(world.env(), NAME, log.log_id, path)
    assert (report.entries, report.next_seq) == (0, 0)
    await import_log(world.env(), "empty", path)
    await fill(log, 2)
    await log.trim(8)
    await BackgroundWorker(world.env()).run_once(NAME)
    report = await export_log(world.env(), NAME, log.log_id, path)
    assert (report.first_seq, report.next_seq) == (8, 8)
    await import_log(world.env(), "trimmed", path)
    env = world.env()
    for name, next_seq in (("empty", 0), ("trimmed", 8)):
        manifest = await env.catalog.read(name)
        writer = await Log(env, name, manifest.log_id).open_writer()
        assert await writer.append(b"x") == next_seq
        await writer.close()


async def test_long_logs_come_with_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "INLINE_SEALED_MAX", 2)
    monkeypatch.setattr(retention, "PAGE_SEGMENTS", 1)
    monkeypatch.setattr(retention, "LEVEL_PAGES_MAX", 2)
    world = World()
    log = await create(world.env())
    await fill(log, 6)
    path = tmp_path / "a.wpx"
    await export_log(world.env(), NAME, log.log_id, path)
    await import_log(world.env(), "copy", path)
    env = world.env()
    manifest = await env.catalog.read("copy")
    assert {page.level for page in manifest.pages} >= {0, 1}
    copy = Log(env, "copy", manifest.log_id)
    assert len(await entries(env, copy)) == 24
    await copy.verify()
    await BackgroundWorker(env).run_once("copy")
    assert len(await entries(env, copy)) == 24


async def test_sealing_during_the_export_does_not_disturb_it(tmp_path: Path) -> None:
    world = World()
    log = await create(world.env())
    await fill(log, 3)
    env = world.env()
    plain = env.places.objects("").get
    reads = 0

    async def get(key: str, **place: int) -> object:
        """In the middle of a segment everything is sealed, and its blocks are deleted."""
        nonlocal reads
        reads += isinstance(keys.parse_object(key), keys.BlockKey)
        if reads == 7:
            reads += 1
            await BackgroundWorker(world.env()).run_once(NAME)
        return await plain(key, **place)

    env.places.objects("").get = get  # type: ignore[method-assign,assignment]
    path = tmp_path / "a.wpx"
    report = await export_log(env, NAME, log.log_id, path)
    assert reads >= 8
    assert not retention.has_unsealed(await log._manifest())
    assert (report.entries, report.blocks, report.segments) == (12, 12, 3)
    await import_log(world.env(), "copy", path)


async def test_one_flipped_bit_in_the_file_is_found_and_makes_nothing(tmp_path: Path) -> None:
    world = World()
    log = await rich_log(world)
    path, bad = tmp_path / "a.wpx", tmp_path / "bad.wpx"
    await export_log(world.env(), NAME, log.log_id, path)
    data = path.read_bytes()
    before = set(world.bucket.objects)
    chance = random.Random(5)
    bits = [*range(0, 4_000, 37), *range(8 * len(data) - 8_000, 8 * len(data), 41)]
    bits += [chance.randrange(8 * len(data)) for _ in range(60)]
    for bit in bits:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        bad.write_bytes(flipped)
        with pytest.raises((Corrupt, InvalidRequest)):
            await import_log(world.env(), "copy", bad)
    for cut in (0, 5, 12, 400, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:cut])
        with pytest.raises(Corrupt):
            await import_log(world.env(), "copy", bad)
    bad.write_bytes(data + b"\0")
    with pytest.raises(Corrupt):
        await import_log(world.env(), "copy", bad)
    assert set(world.bucket.objects) == before
    assert (await world.env().catalog.load("copy")).manifest is None


async def test_refusals(tmp_path: Path) -> None:
    world = World()
    log = await create(world.env())
    await fill(log, 1)
    path = tmp_path / "a.wpx"
    await export_log(world.env(), NAME, log.log_id, path)
    with pytest.raises(AlreadyExists):
        await import_log(world.env(), NAME, path)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        await import_log(world.env(), "copy", tmp_path / "missing")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        await export_log(world.env(), NAME, log.log_id, tmp_path / "no" / "such" / "place")
    with pytest.raises(NotFound):
        await export_log(world.env(), "nobody", log.log_id, path)
    assert len(await entries(world.env(), log)) == 4
