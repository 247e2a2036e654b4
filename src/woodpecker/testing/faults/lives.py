"""The lives of writers in a run with faults of nodes or networks, and the readers beside them."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass

from woodpecker.testing.faults.arena import Arena
from woodpecker.testing.faults.workers import Worker

LIFE_S = (0.02, 1.5)
OPENING_S, CLOSING_S = (0.0, 0.3), (0.0, 0.2)
LONGEST_S = 6 * 3600
SLEEPERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What happens to the writer in one round, and how often in a hundred."""

    name: str
    share: int


WAYS = (
    Way(name="spared", share=30),
    Way(name="killed under load", share=30),
    Way(name="killed while opening", share=8),
    Way(name="killed while closing", share=6),
    Way(name="fought over", share=8),
    Way(name="paused, overtaken, woken", share=12),
    Way(name="closed", share=6),
)


class Lives:
    """Writers that open the log again and again, so that one is at work whatever happens."""

    def __init__(self, run: Arena) -> None:
        self._run = run
        self._rng = run.rng
        self._counts = run.report.counts
        self._writer: Worker | None = None
        self._followers: list[Worker] = []
        self._trimmers: list[Worker] = []
        self._sleepers: list[Worker] = []

    async def begin(self) -> None:
        """Two followers and a writer."""
        for number in range(2):
            self._followers.append(await self._follow(number))
        self._writer = await self._start()
        if not await self._run.workers.heard(self._writer, "loaded"):
            self._run.report.fail("errors", "the first writer never began")

    async def turn(self) -> None:
        """What happens to the writer in this round; afterwards one is at work, or opens."""
        (way,) = self._rng.choices(WAYS, [way.share for way in WAYS])
        await asyncio.sleep(self._rng.uniform(*LIFE_S))
        writer = self._writer
        assert writer is not None
        match way.name:
            case "spared":
                return
            case "killed while opening":
                await self._kill(writer)
                opener = await self._start()
                await asyncio.sleep(self._rng.uniform(*OPENING_S))
                await self._kill(opener)
            case "killed while closing":
                writer.signal(signal.SIGTERM)
                await asyncio.sleep(self._rng.uniform(*CLOSING_S))
                await self._kill(writer)
            case "fought over":
                other = await self._start()
                await asyncio.sleep(self._rng.uniform(*LIFE_S))
                await self._kill(writer)
                self._writer = other
            case "paused, overtaken, woken":
                writer.signal(signal.SIGSTOP)
                self._sleepers.append(writer)
            case "closed":
                writer.signal(signal.SIGTERM)
                await self._run.must_end(writer, "was told to close")
            case _:
                await self._kill(writer)
        self._counts[f"writer {way.name}"] += 1
        if self._writer is writer:
            self._writer = await self._start()

    async def kill_writer(self) -> None:
        """Without a next one; see ``next_writer``."""
        assert self._writer is not None
        await self._kill(self._writer)
        self._writer = None

    async def next_writer(self) -> None:
        """After ``kill_writer``."""
        assert self._writer is None
        self._writer = await self._start()

    async def overtake(self) -> None:
        """The writer is stopped where it is; the next one takes over."""
        assert self._writer is not None
        self._writer.signal(signal.SIGSTOP)
        self._sleepers.append(self._writer)
        self._writer = await self._start()
        if not await self._run.workers.heard(self._writer, "loaded"):
            self._run.report.fail("I7", f"{self._writer.job.name} does not take over")

    async def wake_last(self) -> None:
        """Who was overtaken last; it ends."""
        await self._wake(-1)

    async def beside(self) -> None:
        """What happens to others now and then; while all servers are there."""
        while len(self._sleepers) > SLEEPERS or (self._sleepers and self._rng.random() < 0.4):
            await self._wake()
        if self._rng.random() < 0.2:
            self._trimmers.append(await self._run.start("trimmer", reopen=True))
        if len(self._trimmers) > 2:
            await self._run.must_end(self._trimmers.pop(0), "trims once")
        if self._rng.random() < 0.1:
            await self._run.workers.kill(self._followers[0])
            self._counts["kills of followers"] += 1
            self._followers[0] = await self._follow(0)
        for follower in self._followers:
            if await self._run.workers.has_failed(follower):
                self._run.report.fail("errors", f"{follower.job.name} ended: {follower.status}")

    async def finish(self) -> list[Worker]:
        """End all writers politely; returns the followers."""
        while self._sleepers:
            await self._wake()
        for trimmer in self._trimmers:
            await self._run.must_end(trimmer, "trims once")
        if self._writer is not None:
            self._writer.signal(signal.SIGTERM)
            await self._run.must_end(self._writer, "was told to close")
        return self._followers

    async def _wake(self, index: int = 0) -> None:
        """Wake a writer that slept while others took over: it hears of it, fights a little, ends."""
        sleeper = self._sleepers.pop(index)
        sleeper.signal(signal.SIGCONT)
        self._counts["sleepers woken"] += 1
        await asyncio.sleep(self._rng.uniform(*LIFE_S))
        if self._rng.random() < 0.5:
            await self._kill(sleeper)
        else:
            sleeper.signal(signal.SIGTERM)
            await self._run.must_end(sleeper, "was told to close after its sleep")

    async def _start(self) -> Worker:
        return await self._run.start(
            "writer",
            max_s=LONGEST_S,
            reopen=True,
            resolve=True,
            producers=self._rng.randint(1, 6),
            pace_ms=self._rng.choice((0, 1, 5, 20)),
            big_share=self._rng.choice((0, 0, 0, 0.003)),
        )

    async def _kill(self, writer: Worker) -> None:
        if await self._run.workers.kill(writer):
            self._counts["kills of writers"] += 1

    async def _follow(self, number: int) -> Worker:
        return await self._run.start(
            "follower", max_s=LONGEST_S, cursor=f"follower-{number}", reopen=True
        )
