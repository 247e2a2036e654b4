"""The writer that slept: stopped in the middle of its appends, woken when the world has moved on."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from woodpecker.testing.checkers import check_after
from woodpecker.testing.faults.arena import Arena, Report, arena
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.workers import Worker

SLEEPS_AFTER_S = (0.005, 0.4)
MEANWHILE = ("overtaken", "sealed and trimmed", "deleted", "deleted and created anew")
LOCK_TRIES = 20
LOCK_S = 0.5


async def paused(
    directory: Path, *, kind: str, times: int, seed: int, command: str, mutant: str = ""
) -> Report:
    """``times`` sleepers, each in a log of its own; what happens meanwhile takes turns."""
    place = Place(kind, directory, seed=seed)
    async with arena(f"paused writer, {kind}", place, directory, seed=seed, command=command) as run:
        run.plant(mutant)
        for number in range(times):
            run.turn_to(f"log-{number}")
            meanwhile = MEANWHILE[number % len(MEANWHILE)]
            run.report.counts[f"meanwhile: {meanwhile}"] += 1
            await _sleep_through(run, meanwhile)
            if not run.report.is_good:
                break
    return run.report


async def _sleep_through(run: Arena, meanwhile: str) -> None:
    await run.create()
    sleeper = await run.start("writer", resolve=True)
    if not await run.workers.heard(sleeper, "loaded"):
        run.report.fail("errors", f"{sleeper.job.name} never began: status {sleeper.status}")
        return
    await asyncio.sleep(run.rng.uniform(*SLEEPS_AFTER_S))
    await _stop_without_lock(run, sleeper)
    if meanwhile.startswith("deleted"):
        await _delete(run, sleeper, again=meanwhile.endswith("anew"))
        return
    await _overtake(run)
    if meanwhile == "sealed and trimmed":
        await run.must_end(await run.start("trimmer"), "trims once")
        async with run.client() as client:
            await client.run_background(run.log)
    sleeper.signal(signal.SIGCONT)
    await run.must_end(sleeper, "was overtaken in its sleep")
    await run.settle([])


async def _stop_without_lock(run: Arena, sleeper: Worker) -> None:
    """Stop it, but not while it holds the lock of SQLite: then nothing could happen meanwhile."""
    for _ in range(LOCK_TRIES):
        sleeper.signal(signal.SIGSTOP)
        if run.place.database is None or not await asyncio.to_thread(
            _is_locked, run.place.database
        ):
            return
        run.report.counts["stopped inside the lock"] += 1
        sleeper.signal(signal.SIGCONT)
        await asyncio.sleep(run.rng.uniform(*SLEEPS_AFTER_S))
    raise AssertionError("it is always stopped inside the lock of the metadata store")


def _is_locked(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=LOCK_S, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        db.execute("ROLLBACK")
        return False


async def _overtake(run: Arena) -> None:
    await run.must_end(await run.start("writer", load_s=0.2), "takes over and closes")


async def _delete(run: Arena, sleeper: Worker, *, again: bool) -> None:
    """Delete the log; perhaps create one of the same name and write to it; then wake the sleeper."""
    async with run.client() as client:
        await client.delete_log(run.log)
    deleted_ns = time.monotonic_ns()
    names = run.names
    if again:
        run.turn_to(run.log)
        await run.create()
        await _overtake(run)
    sleeper.signal(signal.SIGCONT)
    await run.must_end(sleeper, "lost its log in its sleep")
    if again:
        await run.settle([])
    new_names, run.names = run.names, names
    run.report.violations += check_after(run.history(), deleted_ns, "the log was deleted")
    run.judge_notes(run.history())
    run.names = new_names
