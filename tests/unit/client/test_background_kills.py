"""Background work is killed at every write, before and after its effect; the next worker goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.client.background_kit import (
    NAME,
    Env,
    Killed,
    World,
    check_sound,
    create,
    entries,
    fill,
    orphans,
    payload,
)

from woodpecker.client import export
from woodpecker.client.background import BackgroundWorker
from woodpecker.client.deletion import delete_log
from woodpecker.client.import_file import import_log
from woodpecker.client.log import Log
from woodpecker.client.retention import trim
from woodpecker.codec import endmark
from woodpecker.core import retention
from woodpecker.errors import NotFound

SEGMENTS = 5
NEXT_SEQ = 4 * SEGMENTS

Work = Callable[[Env, str], Awaitable[object]]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that few segments reach every level of pages."""
    monkeypatch.setattr(retention, "INLINE_SEALED_MAX", 2)
    monkeypatch.setattr(retention, "PAGE_SEGMENTS", 1)
    monkeypatch.setattr(retention, "LEVEL_PAGES_MAX", 2)


async def written(segments: int = SEGMENTS) -> tuple[World, str]:
    world = World()
    log = await create(world.env())
    await fill(log, segments)
    return world, log.log_id


async def kill_everywhere(world: World, log_id: str, work: Work, then: Work) -> int:
    """Run ``work`` killed at each of its writes in turn; after each, ``then`` on what is left."""
    deaths = 0
    for after in (False, True):
        for kill_at in range(1, 1_000):
            other = world.copy()
            env = other.env(kill_at, after=after)
            try:
                await work(env, log_id)
            except Killed:
                deaths += 1
            if not env.killer.is_dead:
                break
            await then(other.env(), log_id)
    return deaths


async def run_all(env: Env, log_id: str) -> None:
    report = await BackgroundWorker(env).run_once(NAME)
    assert not report.errors, report.errors


async def finish(env: Env, log_id: str) -> None:
    """The next worker ends the work; nothing is lost, nothing is left over."""
    await run_all(env, log_id)
    manifest = await check_sound(env, Log(env, NAME, log_id), next_seq=NEXT_SEQ)
    assert not retention.has_unsealed(manifest)
    await run_all(env, log_id)
    assert await orphans(env, env.world, Log(env, NAME, log_id)) == []


async def test_sealing_and_paging_killed_at_every_write() -> None:
    world, log_id = await written()
    deaths = await kill_everywhere(world, log_id, run_all, finish)
    assert deaths > 60


async def test_trimming_and_dropping_killed_at_every_write() -> None:
    world, log_id = await written()
    await run_all(world.env(), log_id)  # sealed, partly in pages

    async def work(env: Env, log_id: str) -> None:
        await trim(env, NAME, log_id, before=13, hold=True)
        await run_all(env, log_id)

    deaths = await kill_everywhere(world, log_id, work, finish)
    assert deaths > 15


async def test_trimming_segments_that_were_never_sealed_killed_at_every_write() -> None:
    world, log_id = await written()

    async def work(env: Env, log_id: str) -> None:
        await trim(env, NAME, log_id, before=NEXT_SEQ - 3)
        await run_all(env, log_id)

    async def then(env: Env, log_id: str) -> None:
        await finish(env, log_id)
        writer = await Log(env, NAME, log_id).open_writer()
        assert await writer.append(payload(NEXT_SEQ)) == NEXT_SEQ  # it goes on where it was
        await writer.close()

    assert await kill_everywhere(world, log_id, work, then) > 30


async def test_deletion_killed_at_every_write() -> None:
    world = World()
    log = await create(world.env())
    await fill(log, 2, close=False)  # its writer still stands
    await log.cursor("billing")

    async def work(env: Env, log_id: str) -> None:
        await delete_log(env, NAME, log_id=log_id)

    async def then(env: Env, log_id: str) -> None:
        """Either it has not begun, or the worker ends it: only end marks are left."""
        manifest = (await env.catalog.load(NAME)).manifest
        assert manifest is not None
        if not (manifest.is_tombstone or manifest.deleting):
            assert len(await entries(env, Log(env, NAME, log_id))) == 8
            return
        with pytest.raises(NotFound):
            await Log(env, NAME, log_id).open_writer()
        report = await BackgroundWorker(env).run_once(NAME)
        assert not report.errors
        stored = env.world.bucket.objects
        assert {len(item.data) for item in stored.values()} == {endmark.END_MARK_BYTES}
        assert not [key for key in env.world.records.by_key if "cursors" in key]
        again = await create(env)  # the name is free
        await fill(again, 1)
        assert len(await entries(env, again)) == 4

    assert await kill_everywhere(world, log.log_id, work, then) > 20


async def test_import_killed_at_every_write(tmp_path: Path) -> None:
    world, log_id = await written(3)
    env = world.env()
    await Log(env, NAME, log_id).cursor("billing")
    path = tmp_path / "orders.wpx"
    await export.export_log(env, NAME, log_id, path)

    async def work(env: Env, log_id: str) -> None:
        await import_log(env, "copy", path)

    async def then(env: Env, log_id: str) -> None:
        """It has appeared complete, or not at all; a day later nothing of it is left."""
        manifest = (await env.catalog.load("copy")).manifest
        if manifest is not None and not manifest.deleting:
            copied = Log(env, "copy", manifest.log_id)
            assert len(await entries(env, copied)) == 12
            await copied.verify()
            return
        if manifest is None:
            return
        with pytest.raises(NotFound):
            await env.catalog.read("copy")
        await BackgroundWorker(env).run_once("copy")
        now = (await env.catalog.load("copy")).manifest
        assert now == manifest  # it may still be running
        env.world.runtime.ahead_us += 25 * 3_600_000_000
        report = await BackgroundWorker(env).run_once("copy")
        assert not report.errors
        left = [key for key in env.world.bucket.objects if key.startswith(manifest.log_id)]
        assert left == []
        again = await import_log(env, "copy", path)
        assert again.entries == 12

    assert await kill_everywhere(world, log_id, work, then) > 10
