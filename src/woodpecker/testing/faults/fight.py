"""The fight: living writers that open the log again and again, each fencing the others."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from woodpecker.testing.faults.arena import Report, arena
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.planted import program


async def fight(
    directory: Path, *, kind: str, seconds: float, seed: int, command: str, mutant: str = ""
) -> Report:
    """Two writers for half of the time, three for the rest; two followers see it all."""
    place = Place(kind, directory, seed=seed, program=program(mutant))
    async with arena(f"fight, {kind}", place, directory, seed=seed, command=command) as run:
        run.plant(mutant)
        await run.create()
        followers = [
            await run.start("follower", max_s=3600, cursor=f"follower-{number}")
            for number in range(2)
        ]
        fighters = []
        for wait_s in (0, seconds / 2, seconds / 2):
            fighters.append(
                await run.start("writer", max_s=3600, reopen=True, resolve=True, producers=3)
            )
            await asyncio.sleep(wait_s)
        for fighter in fighters:
            fighter.signal(signal.SIGTERM)
        for fighter in fighters:
            await run.must_end(fighter, "was told to close")
        await run.settle(followers)
        if run.report.counts["take-overs"] < len(fighters) * 2:
            run.report.fail("errors", "nobody took over from anybody: this was no fight")
    return run.report
