"""The worker and its jobs: retention, sealing, deletion, the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.client.background_kit import (
    NAME,
    Env,
    World,
    check_sound,
    create,
    entries,
    fill,
    orphans,
    payload,
)

from woodpecker.client import collect, sealing
from woodpecker.client import retention as retention_jobs
from woodpecker.client.background import BackgroundWorker
from woodpecker.client.collect import collect_log
from woodpecker.client.deletion import GRAVE_MS, delete_log
from woodpecker.client.log import Log
from woodpecker.client.sealing import first_to_seal, seal_log, seal_segment
from woodpecker.codec import keys
from woodpecker.codec.endmark import END_MARK_BYTES
from woodpecker.codec.records import encode_manifest
from woodpecker.core import retention
from woodpecker.core.commands import AlterLog, CloseSegment
from woodpecker.core.ids import State
from woodpecker.core.manifest import Manifest, Options
from woodpecker.errors import Fenced, NotFound, Unavailable
from woodpecker.metadata import history

DAY_US = 86_400_000_000


async def made(segments: int = 3, **options: Any) -> tuple[World, Log]:
    world = World()
    log = await create(world.env(), **options)
    await fill(log, segments)
    return world, log


async def run(env: Env) -> None:
    report = await BackgroundWorker(env).run_once(NAME)
    assert not report.errors


# --- sealing -----------------------------------------------------------------------------------------


async def test_two_sealers_of_one_segment_write_the_same_and_both_succeed() -> None:
    world, log = await made(1)
    env, other = world.env(), world.env()
    manifest = await env.catalog.read(NAME)
    segment = first_to_seal(manifest)
    assert segment is not None
    await asyncio.gather(
        seal_segment(env, manifest, segment), seal_segment(other, manifest, segment)
    )
    await check_sound(env, log, next_seq=4)
    assert await orphans(env, world, log) == []


async def test_a_segment_closed_by_a_clock_far_ahead_is_sealed_all_the_same() -> None:
    world = World()
    log = await create(world.env())
    world.runtime.ahead_us = 40 * DAY_US
    await fill(log, 1)
    world.runtime.ahead_us = 0
    assert await seal_log(world.env(), NAME, settle_ms=120_000) == 1


async def test_a_predecessor_trimmed_away_while_a_segment_is_sealed_is_no_damage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, log = await made(1)
    await run(world.env())
    await fill(log, 1, first=4)
    write_sealed, tries = sealing.write_sealed, []

    async def slow(env: Any, manifest: Manifest, segment: Any, **how: bool) -> Any:
        tries.append(segment.id)
        if len(tries) == 1:  # the register before it is in the sealed object that goes now
            await log.trim(4)
            await retention_jobs.drop_trimmed(world.env(), NAME)
        return await write_sealed(env, manifest, segment, **how)

    monkeypatch.setattr(sealing, "write_sealed", slow)
    assert await seal_log(world.env(), NAME) == 1
    assert len(tries) == 2
    await check_sound(world.env(), log, next_seq=8)


async def test_a_sound_object_at_the_key_is_adopted_and_a_broken_one_replaced() -> None:
    world, log = await made(1)
    blocks = dict(world.bucket.objects)
    await seal_log(world.env(), NAME)
    (key,) = [k for k in world.bucket.objects if isinstance(keys.parse_object(k), keys.SealedKey)]
    sealed = world.bucket.objects[key]
    for data, expected in ((sealed.data, sealed.etag), (sealed.data[:-1], None), (b"", None)):
        other, log_2 = await made(0)
        other.bucket.objects = {**blocks, key: replace(sealed, data=data)}
        other.records.by_key = dict(world.records.by_key)
        env = other.env()
        # the manifest as it was before: the same segment, CLOSED
        manifest = await env.catalog.read(NAME)
        closed = replace(manifest.segments[0], state=State.CLOSED, sealed=None)
        record = keys.manifest(NAME)
        before = replace(manifest, segments=(closed,))
        other.records.by_key[record] = replace(
            other.records.by_key[record], value=encode_manifest(before)
        )
        assert await seal_log(env, NAME) == 1
        assert other.bucket.objects[key].data == sealed.data
        if expected is not None:
            assert other.bucket.objects[key].etag == expected  # not written again
        assert len(await entries(env, Log(env, NAME, log.log_id))) == 4
        assert log_2.log_id != log.log_id


async def test_a_register_too_big_for_the_record_lies_beside_it_and_old_ones_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "REGISTER_INLINE_BYTES", 10)
    world, log = await made(3)

    def registers() -> list[str]:
        return [k for k in world.bucket.objects if "/registers/" in k]

    assert len(registers()) == 3  # the empty segment dropped at the close leaves none
    await run(world.env())
    manifest = await check_sound(world.env(), log, next_seq=12)
    assert registers() == [manifest.register_key]
    await log.trim(9)
    await run(world.env())
    manifest = await check_sound(world.env(), log, next_seq=12)
    assert sorted(registers()) == sorted(
        k for k in (manifest.register_key, manifest.anchor.register_key) if k
    )
    assert manifest.anchor.register_key is not None


async def test_blocks_stay_while_the_seal_is_not_in_the_manifest() -> None:
    world, _ = await made(1)
    before = {k for k in world.bucket.objects if isinstance(keys.parse_object(k), keys.BlockKey)}
    env = world.env()

    async def refuse(*args: object, **kwargs: object) -> None:
        raise Unavailable("the metadata store is away")

    env.catalog.change = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable):
        await seal_log(env, NAME)
    assert before <= world.bucket.objects.keys()
    await collect_log(world.env(), NAME)
    assert before <= world.bucket.objects.keys()


async def test_background_work_never_touches_a_healthy_writer() -> None:
    """103 fencings in six hours elsewhere: the auditor truncated a segment that was being written."""
    world = World()
    log = await create(world.env(), retention_bytes=1)
    writer = await log.open_writer()
    for seq in range(20):
        assert await writer.append(payload(seq), timestamp_us=1_000_000 + seq) == seq
        worker = BackgroundWorker(world.env())
        report = await worker.run_once(NAME)
        assert not report.errors
    manifest = await world.env().catalog.read(NAME)
    assert manifest.epoch == 1
    assert manifest.trim_point > 0
    await writer.close()
    await check_sound(world.env(), log, next_seq=20)


# --- retention ---------------------------------------------------------------------------------------


async def test_age_by_the_stores_clock_takes_whole_segments() -> None:
    world, log = await made(3, retention_age_s=1)  # written at 1970: all of it is old
    await run(world.env())
    manifest = await check_sound(world.env(), log, next_seq=12)
    assert (manifest.trim_point, manifest.next_seq) == (12, 12)
    assert not any(segment.end for segment in manifest.segments)  # perhaps an OPEN one is left
    assert manifest.anchor.digest == manifest.digest
    blocks = [k for k in world.bucket.objects if k.startswith(log.log_id)]
    assert await orphans(world.env(), world, log) == []
    assert all(isinstance(keys.parse_object(k), keys.BlockKey) for k in blocks)  # end marks


async def test_a_cursor_holds_retention() -> None:
    world, log = await made(3, retention_age_s=1)
    await log.cursor("slow", start=6)
    await run(world.env())
    assert (await log._manifest()).trim_point == 6


async def test_a_worker_whose_clock_is_off_trims_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world, log = await made(3, retention_age_s=3600, retention_bytes=1)
    env = world.env()
    objects = env.places.objects("")

    async def clock_ms() -> int:
        return world.runtime.now_us() // 1000 - 301_000

    objects.clock_ms = clock_ms  # type: ignore[method-assign]
    await run(env)
    assert (await log._manifest()).trim_point == 0
    assert "301 s apart" in caplog.text


async def test_size_keeps_at_least_what_was_asked_for_across_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "INLINE_SEALED_MAX", 1)
    monkeypatch.setattr(retention, "PAGE_SEGMENTS", 2)
    world, log = await made(6)
    await run(world.env())
    manifest = await log._manifest()
    assert manifest.pages
    sizes = [s.bytes async for s in world.env().segments(manifest)]
    options = replace(manifest.options, retention_bytes=sum(sizes[3:]))
    command = AlterLog(log_id=log.log_id, options=options, attributes={})
    await world.env().catalog.change(NAME, command)
    await run(world.env())
    manifest = await check_sound(world.env(), log, next_seq=24)
    assert manifest.trim_point == 12
    kept = [s.id async for s in world.env().segments(manifest) if s.end is not None]
    assert len(kept) == 3
    assert await orphans(world.env(), world, log) == []


async def test_the_sweep_gets_over_pages_that_were_trimmed_away_inside_an_upper_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, limit in (("INLINE_SEALED_MAX", 1), ("PAGE_SEGMENTS", 1), ("LEVEL_PAGES_MAX", 2)):
        monkeypatch.setattr(retention, name, limit)
    world, log = await made(12)
    await run(world.env())
    assert max(page.level for page in (await log._manifest()).pages) >= 2
    await log.trim(24)
    await run(world.env())  # drops six segments; the pages of the lowest level go
    await run(world.env())
    await check_sound(world.env(), log, next_seq=48)
    assert await orphans(world.env(), world, log) == []


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
async def test_a_sealed_object_with_another_end_goes_though_its_segment_is_in_a_page(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Simulator, seed 2937: uploaded by a take-over that came to another end, and found too late."""
    monkeypatch.setattr(retention, "INLINE_SEALED_MAX", 1)
    monkeypatch.setattr(retention, "PAGE_SEGMENTS", 2)
    monkeypatch.setattr(collect, "BATCH_OBJECTS", batch)
    world, log = await made(6)
    await run(world.env())
    env = world.env()
    objects = env.places.objects("")
    for segment in [segment async for segment in env.segments(await log._manifest())][:4]:
        assert segment.end is not None
        for seq in (segment.end.seq - 1, segment.end.seq + 1):
            await objects.create(keys.sealed(log.log_id, segment.id, seq, "ab" * 16), b"left over")
    assert len(await orphans(env, world, log)) == 8
    assert await collect.collect_log(env, NAME) == 8
    assert await orphans(env, world, log) == []
    await check_sound(world.env(), log, next_seq=24)


# --- deletion ----------------------------------------------------------------------------------------


async def test_deletion_fences_the_writer_and_frees_the_name() -> None:
    world = World()
    log = await create(world.env())
    writer = await log.open_writer()
    await writer.append(b"acknowledged")
    await delete_log(world.env(), NAME)
    with pytest.raises((Fenced, NotFound)):
        await writer.append(b"too late")
    again = await create(world.env())
    assert await entries(world.env(), again) == []
    with pytest.raises(NotFound):
        await delete_log(world.env(), NAME, log_id=log.log_id)


async def test_end_marks_go_after_30_days_and_the_record_after_them() -> None:
    world, log = await made(2)
    await delete_log(world.env(), NAME)
    marks = [k for k in world.bucket.objects if k.startswith(log.log_id)]
    assert {len(world.bucket.objects[k].data) for k in marks} == {END_MARK_BYTES}
    assert len(marks) >= 2
    world.bucket.put(marks[0][:-1] + "9", b"x" * 500, 0)  # a block that arrived late
    world.runtime.ahead_us += GRAVE_MS * 1000 - 10_000_000
    await run(world.env())
    assert sorted(k for k in world.bucket.objects if k.startswith(log.log_id)) == sorted(marks)
    world.runtime.ahead_us += 20_000_000
    await run(world.env())  # deletes the marks ...
    assert not [k for k in world.bucket.objects if k.startswith(log.log_id)]
    await run(world.env())  # ... and, nothing having come to light since, the grave and the record
    assert (await world.env().catalog.load(NAME)).manifest is None
    again = await create(world.env())
    await fill(again, 1)


async def test_the_grave_of_an_older_log_of_the_name_is_kept_beside_the_new_one() -> None:
    world, log = await made(1)
    await delete_log(world.env(), NAME)
    again = await create(world.env())
    await fill(again, 1)
    assert [g.log_id for g in (await again._manifest()).graves] == [log.log_id]
    world.runtime.ahead_us += GRAVE_MS * 1000 + 10_000_000
    await run(world.env())
    await run(world.env())
    assert (await again._manifest()).graves == ()
    await check_sound(world.env(), again, next_seq=4)


async def test_a_segment_that_cannot_be_fenced_needs_force() -> None:
    world = World()
    log = await create(world.env())
    writer = await log.open_writer()
    await writer.append(b"a")
    env = world.env()
    store = env.places.segments(Options().mode, "")

    async def recover(*args: object, **kwargs: object) -> CloseSegment:
        raise Unavailable("it is on another host")

    store.recover = recover  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable, match="--force"):
        await delete_log(env, NAME)
    with pytest.raises(NotFound):  # begun: nobody can open it any more
        await log.open_writer()
    await delete_log(env, NAME, force=True)
    assert (await env.catalog.load(NAME)).manifest.is_tombstone  # type: ignore[union-attr]


# --- the loop ----------------------------------------------------------------------------------------


def sealed_count(manifest: Manifest) -> int:
    return sum(segment.sealed is not None for segment in manifest.segments)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_what_a_writer_rolled_is_sealed_at_once() -> None:
    world = World()
    log = await create(world.env())
    worker = BackgroundWorker(log._env)
    worker.start()
    await fill(log, 3)

    async def is_sealed() -> bool:
        return sealed_count(await log._manifest()) == 3

    await eventually(is_sealed)
    await worker.stop()
    await check_sound(world.env(), log, next_seq=12)


async def test_a_failing_log_is_tried_again_and_does_not_hold_up_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    env = world.env()
    bad = await create(env, "bad")
    good = await create(env, "good")
    await fill(bad, 2)
    await fill(good, 2)
    (broken,) = [
        k for k in world.bucket.objects if k.startswith(bad.log_id) and k.endswith("0/000000000001")
    ]
    whole = world.bucket.objects.pop(broken)
    worker = BackgroundWorker(env)
    worker.start()

    async def good_is_sealed() -> bool:
        return sealed_count(await good._manifest()) == 2

    async def bad_has_failed() -> bool:
        return "bad" in worker._trouble

    await eventually(good_is_sealed)
    await eventually(bad_has_failed)
    world.bucket.objects[broken] = whole

    async def bad_is_sealed() -> bool:
        return sealed_count(await bad._manifest()) == 2

    await eventually(bad_is_sealed)
    await worker.stop()
    assert caplog.text.count("background work on log bad failed") == 1


async def test_a_manifest_that_cannot_be_read_does_not_hide_other_logs() -> None:
    world = World()
    log = await create(world.env())
    await fill(log, 1)
    world.records.write(keys.manifest("aaa-broken"), b"nonsense")
    report = await BackgroundWorker(world.env()).run_once()
    assert list(report.errors) == ["aaa-broken"]
    assert report.sealed == 1


async def test_one_process_at_a_time_holds_the_lease_and_stop_gives_it_up() -> None:
    world = World()
    first, second = BackgroundWorker(world.env()), BackgroundWorker(world.env())
    await first._tick(0.0)
    await second._tick(0.0)
    assert first._lease is not None
    assert second._lease is None
    await first.stop()
    await second._tick(0.0)
    assert second._lease is not None
    await second.stop()


async def test_a_tick_leaves_young_segments_to_who_closed_them() -> None:
    world, log = await made(2)
    worker = BackgroundWorker(world.env())
    worker.start()
    await worker._tick(0.0)
    worker._wake.set()

    async def is_idle() -> bool:
        return not worker._pending and not worker._running

    await eventually(is_idle)
    assert sealed_count(await log._manifest()) == 0
    world.runtime.ahead_us += 130_000_000
    await worker._tick(0.0)
    worker._wake.set()

    async def is_sealed() -> bool:
        return sealed_count(await log._manifest()) == 2

    await eventually(is_sealed)
    await worker.stop()


async def test_a_read_only_client_does_nothing() -> None:
    world, log = await made(2)
    env = world.env()
    env.read_only = True
    worker = BackgroundWorker(env)
    worker.start()
    assert worker._loop is None
    await worker.stop()
    assert sealed_count(await log._manifest()) == 0


async def test_objects_of_layers_above_are_never_swept_but_go_with_the_log() -> None:
    world, log = await made(1)
    key = keys.caller_object(log.log_id, "checkpoints/1")
    unknown = f"{log.log_id}/something/new"
    world.bucket.put(key, b"state", 0)
    world.bucket.put(unknown, b"of a newer version", 0)
    await run(world.env())
    assert {key, unknown} <= world.bucket.objects.keys()
    await delete_log(world.env(), NAME)
    assert not {key, unknown} & world.bucket.objects.keys()
