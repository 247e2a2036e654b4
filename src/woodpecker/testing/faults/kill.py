"""The kill loop: writers that are killed at any moment, readers all along, a verifier at the end."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

from woodpecker.testing.faults.arena import Arena, Report, arena, say
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.workers import Worker

LIFE_S = (0.005, 0.4)  # of a writer under load
STUCK_S = 2.0  # an opener that takes longer waits for a process that was stopped holding a lock
SAY_EVERY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one writer's life ends, and how often in a hundred."""

    name: str
    share: int


WAYS = (
    Way(name="killed under load", share=58),
    Way(name="killed while opening", share=12),
    Way(name="killed while closing", share=8),
    Way(name="two at once, both killed", share=10),
    Way(name="paused, overtaken, woken", share=8),
    Way(name="closed", share=4),
)


async def kill_loop(
    directory: Path, *, kind: str, kills: int, seed: int, command: str, mutant: str = ""
) -> Report:
    """Kill ``kills`` writers; see docs/testing.md. The directory must be empty."""
    place = Place(kind, directory, seed=seed)
    async with arena(f"kill loop, {kind}", place, directory, seed=seed, command=command) as run:
        run.plant(mutant)
        await run.create()
        loop = _Loop(run)
        await loop.begin()
        while run.report.counts["kills of writers"] < kills and not run.report.is_hopeless:
            await loop.life()
        await run.settle(await loop.finish())
    return run.report


class _Loop:
    """The lives of writers, one after the other, and the readers beside them."""

    def __init__(self, run: Arena) -> None:
        self._run = run
        self._rng = run.rng
        self._counts = run.report.counts
        self._followers: list[Worker] = []
        self._trimmers: list[Worker] = []
        self._paused: list[Worker] = []

    async def begin(self) -> None:
        for number in range(2):
            self._followers.append(await self._follow(number))

    async def life(self) -> None:
        """One writer, or two, until the end of the last."""
        (way,) = self._rng.choices(WAYS, [way.share for way in WAYS])
        writer = await self._writer()
        match way.name:
            case "killed while opening":
                await asyncio.sleep(self._rng.uniform(0, 0.08))
                await self._kill(writer)
            case "killed while closing":
                await self._load(writer)
                writer.signal(signal.SIGTERM)
                await asyncio.sleep(self._rng.uniform(0, 0.05))
                await self._kill(writer)
            case "two at once, both killed":
                other = await self._writer()
                await asyncio.sleep(self._rng.uniform(0.02, LIFE_S[1]))
                await self._kill(writer)
                await asyncio.sleep(self._rng.uniform(0, LIFE_S[1]))
                await self._kill(other)
            case "paused, overtaken, woken":
                await self._load(writer)
                writer.signal(signal.SIGSTOP)
                self._paused.append(writer)
            case "closed":
                await self._load(writer)
                writer.signal(signal.SIGTERM)
                await self._run.must_end(writer, "was told to close")
            case _:
                await self._load(writer)
                await self._kill(writer)
        self._counts[f"way: {way.name}"] += 1
        await self._beside()

    async def finish(self) -> list[Worker]:
        """Wake and await what is left; returns the followers."""
        await self._wake(len(self._paused))
        for trimmer in self._trimmers:
            await self._run.must_end(trimmer, "trims once")
        return self._followers

    async def _writer(self) -> Worker:
        return await self._run.start(
            "writer",
            producers=self._rng.randint(1, 6),
            pace_ms=self._rng.choice((0, 0, 1, 5)),
            big_share=self._rng.choice((0, 0, 0, 0.003)),
        )

    async def _load(self, writer: Worker) -> None:
        """Let it write for a while."""
        heard = await self._run.workers.heard(writer, "loaded", STUCK_S)
        if not heard and self._paused:
            self._counts["stops that held everybody up"] += 1  # stopped inside SQLite's lock
            for sleeper in self._paused:
                sleeper.signal(signal.SIGCONT)
        if heard or await self._run.workers.heard(writer, "loaded"):
            await asyncio.sleep(self._rng.uniform(*LIFE_S))
            return
        self._counts["lives without load"] += 1
        if await self._run.workers.has_failed(writer):
            self._run.report.fail("errors", f"{writer.job.name} ended with status {writer.status}")

    async def _kill(self, writer: Worker) -> None:
        if await self._run.workers.kill(writer):
            self._counts["kills of writers"] += 1
            if self._counts["kills of writers"] % SAY_EVERY == 0:
                say(f"  {self._counts['kills of writers']} kills")

    async def _beside(self) -> None:
        """What happens to others now and then."""
        if self._rng.random() < 0.15:
            self._trimmers.append(await self._run.start("trimmer"))
        if len(self._trimmers) > 3:
            await self._run.must_end(self._trimmers.pop(0), "trims once")
        if self._rng.random() < 0.05:
            await self._run.workers.kill(self._followers[0])
            self._counts["kills of followers"] += 1
            self._followers[0] = await self._follow(0)
        if self._rng.random() < 0.4:
            await self._wake(1)

    async def _wake(self, count: int) -> None:
        """Wake writers that slept while others took over; they must end by themselves."""
        for _ in range(min(count, len(self._paused))):
            writer = self._paused.pop(0)
            writer.signal(signal.SIGCONT)
            if self._rng.random() < 0.3:
                await self._kill(writer)
                continue
            await self._overtake()
            await self._run.must_end(writer, "was overtaken in its sleep")
            self._counts["sleepers woken"] += 1

    async def _overtake(self) -> None:
        """Make sure that somebody has opened the log since the sleeper was stopped."""
        other = await self._writer()
        await self._load(other)
        await self._kill(other)

    async def _follow(self, number: int) -> Worker:
        return await self._run.start("follower", max_s=3600, cursor=f"follower-{number}")
