"""Processes that append and return right away: all of them must end with status 0."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from woodpecker.testing.faults.arena import Arena, Report, arena
from woodpecker.testing.faults.places import Place

TIMEOUT_S = 60

_POLITE = """
import asyncio, sys
import woodpecker as wp

async def main():
    async with wp.connect(sys.argv[1]) as client:
        log = await client.open_log("kill")
        async with await log.open_writer() as writer:
            await writer.append(b"last words")

asyncio.run(main())
"""
_HASTY = """
import asyncio, sys
import woodpecker as wp

async def main():
    client = await wp.connect(sys.argv[1]).open()
    log = await client.open_log("kill")
    writer = await log.open_writer()
    await writer.append(b"last words")
    writer.submit(b"unheard of")

asyncio.run(main())
"""
SCRIPTS = {"closes everything": _POLITE, "closes nothing": _HASTY}


async def clean_exit(directory: Path, *, kind: str, times: int, seed: int, command: str) -> Report:
    """``times`` processes; what each appended must be in the log, in any order."""
    place = Place(kind, directory, seed=seed)
    async with arena(f"clean exit, {kind}", place, directory, seed=seed, command=command) as run:
        await run.create()
        for number in range(times):
            way = list(SCRIPTS)[number % len(SCRIPTS)]
            await _once(run, way)
            run.report.counts[way] += 1
        async with run.client() as client:
            log = await client.open_log(run.log)
            async with await log.open_writer():
                words = [entry.payload async for entry in log.read()].count(b"last words")
        run.report.counts["entries found"] = words
        if words != times:
            run.report.fail("I1", f"{times} entries were acknowledged, {words} are there")
    return run.report


async def _once(run: Arena, way: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPTS[way],
        run.place.doors[-1][0],  # it tells all that is needed
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    if process.returncode != 0:
        text = output.decode(errors="replace")[-1500:]
        run.report.fail("errors", f"a process that {way} ended with {process.returncode}: {text}")
