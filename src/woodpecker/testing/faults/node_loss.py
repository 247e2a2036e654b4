"""What a writer notices when nodes go away: a steady load, nodes killed, figures before, meanwhile, after.

With one of three nodes gone no append may fail, and none may wait for the missing one. With two or three gone
appends wait, and go on as soon as a quorum is there again. Nothing acknowledged is lost, not by a lost disk either.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import woodpecker as wp
from woodpecker.client.log import Log
from woodpecker.testing.faults.arena import Arena, Report, arena
from woodpecker.testing.faults.load import Load, payload
from woodpecker.testing.faults.nodes import Nodes
from woodpecker.testing.faults.places import Place

RESUME_S = 60.0
WAIT_S = 3.0  # appends wait for so long before nodes come back
WHOLE_S = 120.0


async def node_loss(
    directory: Path, *, seconds: float, rate: float, seed: int, command: str
) -> Report:
    """Phases of ``seconds`` each, ``rate`` appends of 1 KiB a second."""
    place = Place("quorum", directory, seed=seed)
    async with arena("loss of nodes", place, directory, seed=seed, command=command) as run:
        async with run.client() as client:
            log = await client.create_log(run.log, mode="quorum")
            async with await log.open_writer() as writer:
                load = Load(writer, rate)
                load.begin()
                try:
                    facts = await _phases(run, Nodes(run), load, seconds)
                finally:
                    await load.end()
            facts |= await _judge(run, log, load)
        run.report.details = {"seed": seed, "rate_per_s": rate, "payload_bytes": 1024, **facts}
        run.report.table = _table(load, facts)
    return run.report


async def _phases(run: Arena, nodes: Nodes, load: Load, seconds: float) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    await _await_three(nodes, facts, "begin")
    await _quiet(load, "all three nodes", seconds)
    (one,) = nodes.some(1)
    load.phase("one killed")
    await nodes.kill(one)
    await asyncio.sleep(seconds)
    await _must_not_fail(run, load)
    load.phase("it comes back")
    one.spawn()
    await nodes.heal()
    await _await_three(nodes, facts, "one killed")
    await asyncio.sleep(seconds)
    await _must_not_fail(run, load)
    for count, word in ((2, "two"), (3, "all three")):
        facts |= await _quorum_lost(run, nodes, load, count, word)
        await _await_three(nodes, facts, f"{word} killed")
        await _quiet(load, f"after {word} were killed", seconds)
    load.phase("one loses its disk")
    (one,) = nodes.some(1)
    await nodes.kill(one)
    one.lose_disk()
    run.report.counts["disks lost"] += 1
    one.spawn()
    await nodes.heal()
    await _await_three(nodes, facts, "disk lost")
    await _must_not_fail(run, load)
    await _quiet(load, "at the end", seconds)
    return facts


async def _await_three(nodes: Nodes, facts: dict[str, Any], what: str) -> None:
    """Three members again, and no unsealed segment that lacks one. All nodes are there."""
    began_s = time.monotonic()
    async with asyncio.timeout(WHOLE_S):
        while not await nodes.is_whole(members=3):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    facts[f"{what}: three copies again after s"] = round(time.monotonic() - began_s, 3)


async def _quiet(load: Load, phase: str, seconds: float) -> None:
    load.phase(phase)
    await asyncio.sleep(seconds)
    await load.phase_over()


async def _must_not_fail(run: Arena, load: Load) -> None:
    figures = await load.phase_over()
    if figures.failed:
        why = Counter(load.failures).most_common(1)
        run.report.fail("I1", f"{figures.phase}: {figures.failed} appends failed: {why}")


async def _quorum_lost(
    run: Arena, nodes: Nodes, load: Load, count: int, word: str
) -> dict[str, float]:
    """``count`` are killed; appends wait; two are there again, and appends go on."""
    victims = nodes.some(count)
    load.phase(f"{word} killed")
    await nodes.kill(*victims)
    await asyncio.sleep(WAIT_S)
    if not load.open:
        run.report.fail("errors", f"{count} nodes are gone and no append waits")
    if load.failures:
        run.report.fail("I1", f"{count} nodes gone: {load.failures[0]}")
    back = victims[: count - 1]
    resumed = asyncio.create_task(load.resumed(RESUME_S))
    began_s = time.monotonic()
    for victim in back:
        victim.spawn()
    await asyncio.gather(*(victim.wait_ready() for victim in back))
    ready_s = time.monotonic() - began_s
    try:
        resumed_s = await resumed
    except TimeoutError:
        run.report.fail("I7", f"no append goes on {RESUME_S} s after {count} nodes were killed")
        resumed_s = RESUME_S
    victims[-1].spawn()
    await nodes.heal()
    await _must_not_fail(run, load)
    return {
        f"{word} killed: two ready again after s": round(ready_s, 3),
        f"{word} killed: appends go on after s": round(resumed_s, 3),
    }


async def _judge(run: Arena, log: Log, load: Load) -> dict[str, Any]:
    """Every acknowledged append is there, once, at its seq."""
    acknowledged = {append.seq: append.number for append in load.appends if append.seq is not None}
    found, wrong = 0, 0
    async for entry in log.read():
        number = acknowledged.get(entry.seq)
        if number is not None:
            found += 1
            wrong += bytes(entry.payload) != payload(number)
    lost = len(acknowledged) - found
    if lost or wrong:
        run.report.fail("I1", f"{lost} acknowledged entries are lost, {wrong} have other bytes")
    try:
        await log.verify()
    except wp.WoodpeckerError as error:
        run.report.fail("I6", f"verify: {error}")
    run.report.counts["appends"] = len(load.appends)
    run.report.counts["appends failed"] = len(load.failures)
    return {
        "phases": [asdict(figures) for figures in load.figures],
        "acknowledged": len(acknowledged),
        "failed": len(load.failures),
        "lost": lost,
    }


def _table(load: Load, facts: dict[str, Any]) -> str:
    """For people."""
    lines = [f"  {'phase':28} {'appends':>8} {'failed':>7}   p50      p99      p99.9    max (ms)"]
    for figures in load.figures:
        times = "".join(
            f"{'-' if ms is None else format(ms, '.2f'):<9}" for ms in figures.quantiles_ms.values()
        )
        lines.append(
            f"  {figures.phase:28} {figures.appends:>8,} {figures.failed:>7,}   {times}".rstrip()
        )
    lines += [f"  {name}: {value}" for name, value in facts.items() if " after s" in name]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """One line."""
    broken = [str(violation) for violation in report.violations]
    return json.dumps({**report.details, "broken": broken})
