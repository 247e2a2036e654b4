"""Work on segments that others trim meanwhile: pages, registers and blocks go; nobody is disturbed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.client.background_kit import NAME, Env, World, check_sound, create, fill

from woodpecker.client import retention as retention_jobs
from woodpecker.client.background import BackgroundWorker
from woodpecker.client.collect import collect_log
from woodpecker.client.describe import describe
from woodpecker.client.export import export_log
from woodpecker.client.log import Log
from woodpecker.core import retention
from woodpecker.errors import Corrupt

Work = Callable[[Env, Log, Path], Awaitable[Any]]

AT_WORK: dict[str, Work] = {
    "describe": lambda env, log, _: describe(env, NAME, log.log_id),
    "trim": lambda env, log, _: retention_jobs.trim(env, NAME, log.log_id, before=26),
    "drop": lambda env, _, __: retention_jobs.drop_trimmed(env, NAME),
    "export": lambda env, log, path: export_log(env, NAME, log.log_id, path),
    "sweep": lambda env, _, __: collect_log(env, NAME),
}


async def run(env: Env) -> None:
    report = await BackgroundWorker(env).run_once(NAME)
    assert not report.errors


async def made(segments: int) -> tuple[World, Log]:
    """So many sealed segments, and what is spilled."""
    world = World()
    log = await create(world.env())
    await fill(log, segments)
    await run(world.env())
    return world, log


@pytest.mark.parametrize("work", AT_WORK)
async def test_pages_that_are_trimmed_away_meanwhile_disturb_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: str
) -> None:
    """Simulator, seed 543: ``describe`` and ``trim`` raised NotFound."""
    for name, limit in (("INLINE_SEALED_MAX", 1), ("PAGE_SEGMENTS", 1), ("LEVEL_PAGES_MAX", 2)):
        monkeypatch.setattr(retention, name, limit)
    world, log = await made(12)
    env = world.env()
    load, reads = env.catalog.load, 0

    async def slow(name: str) -> Any:
        nonlocal reads
        seen = await load(name)
        reads += 1
        if reads == 1 + (work == "sweep"):  # it reads the manifest again after it has listed
            await log.trim(24)
            await run(world.env())
        return seen

    monkeypatch.setattr(env.catalog, "load", slow)
    await AT_WORK[work](env, log, tmp_path / "log.wpk")
    assert reads > 1
    assert (await log._manifest()).anchor.seq >= 24
    await run(world.env())
    await check_sound(world.env(), log, next_seq=48)


async def test_what_the_newest_manifest_names_and_is_not_there_is_damage() -> None:
    world, log = await made(3)
    first = (await log._manifest()).segments[0]
    assert first.sealed is not None
    await log.trim(4)
    await world.env().places.objects("").delete([first.sealed.key])
    with pytest.raises(Corrupt, match="is not there"):
        await retention_jobs.drop_trimmed(world.env(), NAME)
