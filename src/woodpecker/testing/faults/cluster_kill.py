"""The kill loop of kind ``quorum``: nodes, writers, object store and etcd, struck at the same time.

A round strikes nodes, the writer and perhaps a store at once, lets everything come back, and demands progress
before the next one. Readers follow throughout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from woodpecker.testing.faults.arena import Arena, Report, arena, say
from woodpecker.testing.faults.lives import Lives
from woodpecker.testing.faults.nodes import Nodes
from woodpecker.testing.faults.outage import (
    Outage,
    kill_etcd,
    kill_store,
    stop_etcd,
    stop_store,
)
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.planted import program

APPEND_TIMEOUT_MS = 5_000  # shorter than some outages, so that appends end in doubt
STORE_SHARE = 0.2
SAY_EVERY = 20
STORE_WAYS: tuple[tuple[str, Outage], ...] = (
    ("etcd killed", kill_etcd),
    ("etcd stopped", stop_etcd),
    ("object store killed", kill_store),
    ("object store stopped", stop_store),
)
KILLS = ("kills of nodes", "kills of writers")


async def cluster_kill_loop(
    directory: Path,
    *,
    kills: int,
    seed: int,
    command: str,
    nodes: int = 3,
    only: Sequence[str] = (),
    mutant: str = "",
) -> Report:
    """Kill nodes and writers, ``kills`` together; see docs/testing.md. The directory must be empty.

    Args:
        only: names of the strikes on nodes that may happen (``nodes.STRIKES``); default: all.
    """
    place = Place(
        "quorum", directory, proxied=True, seed=seed, nodes=nodes, program=program(mutant)
    )
    async with arena("kill loop, quorum", place, directory, seed=seed, command=command) as run:
        run.plant(mutant)
        await run.create(append_timeout_ms=APPEND_TIMEOUT_MS)
        lives = Lives(run)
        struck = Nodes(run, lives, only)
        await lives.begin()
        rounds = 0
        while _kills(run) < kills and not run.report.is_hopeless:
            await _round(run, struck, lives)
            rounds += 1
            if rounds % SAY_EVERY == 0:
                say(f"  {rounds} rounds, {_kills(run)} kills")
        run.report.counts["rounds"] = rounds
        await struck.await_whole()
        await run.settle(await lives.finish())
        await struck.end()
    return run.report


def _kills(run: Arena) -> int:
    return sum(run.report.counts[what] for what in KILLS)


async def _round(run: Arena, struck: Nodes, lives: Lives) -> None:
    strike = await struck.draw()
    acts = [struck.strike(strike), _strike_store(run)]
    if not strike.takes_writer:
        acts.append(lives.turn())
    await asyncio.gather(*acts)
    await struck.heal()
    await run.must_progress(strike.name)
    await lives.beside()


async def _strike_store(run: Arena) -> None:
    if run.rng.random() < STORE_SHARE:
        name, outage = run.rng.choice(STORE_WAYS)
        await outage(run)
        run.report.counts[f"store: {name}"] += 1
