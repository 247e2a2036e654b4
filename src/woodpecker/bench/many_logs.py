"""``bench many-logs``: thousands of logs in one store, each with an open writer: idle, then one entry a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from woodpecker.bench.append import Say
from woodpecker.bench.figures import latency_figures
from woodpecker.bench.machine import cpu_seconds, now, open_descriptors, rss_mb
from woodpecker.bench.nodes import Nodes
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.client.client import Client
from woodpecker.client.writer import LogWriter
from woodpecker.errors import Overloaded

AT_ONCE = 16
IDLE_S = 5.0
BUSY_S = 10.0
TICK_S = 0.002
ENTRY = bytes(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyPlan:
    """How many logs; how long they are watched idle, and with one entry a second each."""

    count: int
    idle_s: float = IDLE_S
    busy_s: float = BUSY_S


async def run(target: Target, wanted: ManyPlan, say: Say) -> list[Row]:
    """Rows: creating, opening with one entry each, idling, a second entry each, one a second."""
    async with target.connect() as client, AsyncExitStack() as stack:
        bench = _Many(target, client, wanted, say)
        rows = [await bench.step("create", bench.create)]
        before_mb = rss_mb()

        async def open_one(number: int) -> None:
            log = await client.open_log(_name(number))
            bench.writers[number] = await stack.enter_async_context(await log.open_writer())
            await bench.writers[number].append(ENTRY)

        rows.append(await bench.step("open and append", open_one))
        rows.append(await bench.idle(before_mb))
        rows.append(await bench.step("append again", bench.append))
        rows.append(await bench.busy())
        say("closing")
        return rows


class _Many:
    def __init__(self, target: Target, client: Client, wanted: ManyPlan, say: Say) -> None:
        self.writers: dict[int, LogWriter] = {}
        self._target = target
        self._client = client
        self._wanted = wanted
        self._say = say

    async def create(self, number: int) -> None:
        await self._target.create_log(self._client, _name(number))

    async def append(self, number: int) -> None:
        await self.writers[number].append(ENTRY)

    async def step(self, what: str, work: Callable[[int], Awaitable[None]]) -> Row:
        """Do something with each log, several at once."""
        self._say(what)
        usage = await _Usage.start(self._target.nodes)
        waiting, count = iter(range(self._wanted.count)), self._wanted.count

        async def lane() -> None:
            for number in waiting:
                await work(number)

        await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
        figures = {
            "logs_s": count / usage.seconds,
            "cpu_ms_per_log": usage.cpu_seconds / count * 1e3,
            "rss_mb": rss_mb(),
            "open_fds": open_descriptors(),
        }
        return Row(name=f"many logs: {what}", figures=figures | await usage.of_nodes())

    async def idle(self, before_mb: float) -> Row:
        """Nothing happens."""
        count = self._wanted.count
        self._say("idle")
        tasks = len(asyncio.all_tasks())
        usage = await _Usage.start(self._target.nodes)
        self._target.requests.clear()
        await asyncio.sleep(self._wanted.idle_s)
        figures = {
            "cpu_percent": usage.cpu_seconds / usage.seconds * 100,
            "kib_per_log": (rss_mb() - before_mb) * 1e6 / 1024 / count,
            "tasks": tasks,
            "open_fds": open_descriptors(),
        }
        if self._target.counts_requests:
            figures |= self._target.requests.per_log_month(count, usage.seconds)
        return Row(
            name=f"many logs: {count} idle writers", figures=figures | await usage.of_nodes()
        )

    async def busy(self) -> Row:
        """An entry is due in each log every second; a log whose last one is not done misses its turn."""
        self._say("one entry a second in each")
        count, seconds = self._wanted.count, self._wanted.busy_s
        latencies: list[float] = []
        waiting: dict[int, asyncio.Future[int]] = {}
        missed = due = 0
        usage = await _Usage.start(self._target.nodes)
        while usage.seconds < seconds:
            while due < usage.seconds * count:
                number = due % count
                if number in waiting or not self._submit(number, waiting, latencies):
                    missed += 1
                due += 1
            await asyncio.sleep(TICK_S)
        await asyncio.gather(*waiting.values())
        await asyncio.sleep(0)  # the last callbacks
        figures = {
            "asked_s": float(count),
            "entries_s": len(latencies) / usage.seconds,
            "missed": float(missed),
            **latency_figures(latencies),
            "cpu_percent": usage.cpu_seconds / usage.seconds * 100,
            "rss_mb": rss_mb(),
            "open_fds": open_descriptors(),
        }
        return Row(
            name="many logs: one entry a second each", figures=figures | await usage.of_nodes()
        )

    def _submit(
        self, number: int, waiting: dict[int, asyncio.Future[int]], latencies: list[float]
    ) -> bool:
        try:
            future = self.writers[number].submit(ENTRY)
        except Overloaded:
            return False
        waiting[number] = future
        future.add_done_callback(partial(_answered, number, now(), waiting, latencies))
        return True


def _answered(
    number: int,
    began: float,
    waiting: dict[int, asyncio.Future[int]],
    latencies: list[float],
    future: asyncio.Future[int],
) -> None:
    del waiting[number]
    future.result()
    latencies.append(now() - began)


class _Usage:
    """What this process and the nodes use from ``start`` on."""

    def __init__(self, nodes: Nodes | None, syncs: int) -> None:
        self._nodes = nodes
        self._syncs = syncs
        self._nodes_cpu = 0.0 if nodes is None else nodes.cpu_seconds()
        self._begin, self._cpu = now(), cpu_seconds()

    @classmethod
    async def start(cls, nodes: Nodes | None) -> _Usage:
        """Begin."""
        return cls(nodes, 0 if nodes is None else await nodes.syncs())

    @property
    def seconds(self) -> float:
        """So far."""
        return now() - self._begin

    @property
    def cpu_seconds(self) -> float:
        """Of this process, so far."""
        return cpu_seconds() - self._cpu

    async def of_nodes(self) -> dict[str, float]:
        """Figures of the nodes, if there are any."""
        nodes = self._nodes
        if nodes is None:
            return {}
        return {
            "nodes_cpu_percent": (nodes.cpu_seconds() - self._nodes_cpu) / self.seconds * 100,
            "node_rss_mb": nodes.rss_mb(),
            "node_fds": nodes.open_descriptors(),
            "node_syncs": await nodes.syncs() - self._syncs,
        }


def _name(number: int) -> str:
    return f"bench-{number}"
