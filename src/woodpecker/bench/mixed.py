"""``bench mixed``: writers, readers that follow them and readers that catch up, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from woodpecker.bench import loads
from woodpecker.bench.append import Say, limits_of, size_text
from woodpecker.bench.figures import Slice, latency_figures, rate_figures, total
from woodpecker.bench.machine import forget_peak, now, peak_rss_mb
from woodpecker.bench.nodes import NodesMeter
from woodpecker.bench.pairs import Plan, measure
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.client.client import Client
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter

BATCH_BYTES = 1 << 20
LOOK_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPlan:
    """``writers`` logs get ``rate`` entries a second together; each is followed by ``tails`` readers.

    ``catch_ups`` readers go through ``volume_bytes`` written before, over and over.
    """

    plan: Plan
    writers: int
    tails: int
    catch_ups: int
    rate: float
    size: int
    volume_bytes: int


@dataclass(slots=True)
class _Watched:
    """One log: when its entries were acknowledged, and when they reached each reader."""

    log: Log
    writer: LogWriter
    acknowledged: dict[int, float] = field(default_factory=dict)
    arrived: list[dict[int, float]] = field(default_factory=list)

    def delays(self) -> list[float]:
        """Seconds from the acknowledgement to each reader."""
        return [
            max(0.0, moment - self.acknowledged[seq])
            for seen in self.arrived
            for seq, moment in seen.items()
            if seq in self.acknowledged
        ]


async def run(target: Target, wanted: MixedPlan, say: Say) -> list[Row]:
    """Rows for appending, tailing and catching up. Raises: errors of the store."""
    async with (
        limits_of(target) as limits,
        target.connect() as client,
        AsyncExitStack() as stack,
    ):
        say("writing what is to be caught up on")
        old = await _old(target, client, wanted)
        watched = [
            await _watched(target, client, stack, f"bench-mixed-{n}") for n in range(wanted.writers)
        ]
        mix = _Mix(old, watched, wanted)
        meter = None if target.nodes is None else await NodesMeter.start(target.nodes)
        target.requests.clear()
        forget_peak()
        say("all at once")
        async with mix:
            pairs = await measure(mix.one_slice, limits.latency, wanted.plan)
        figures = {"asked_s": wanted.rate, **pairs.figures(), "peak_rss_mb": peak_rss_mb()}
        if meter is not None:
            figures |= await meter.figures(pairs.volume_bytes)
        if target.counts_requests:
            figures |= target.requests.per_gib(pairs.volume_bytes)
        append = Row(
            name=f"mixed: {wanted.writers} writers {size_text(wanted.size)} at {wanted.rate:,.0f}/s",
            figures=figures,
            limit=pairs.limit_figures(),
            ratio=pairs.latency_ratio,
            note="ratio of the median latencies: 1 is the bare write, alone",
        )
        return [Row(name=limits.note, figures={}), append, *mix.rows()]


async def _old(target: Target, client: Client, wanted: MixedPlan) -> Log:
    log = await target.create_log(client, "bench-old")
    payloads = Payloads(wanted.size)
    count = max(1, BATCH_BYTES // wanted.size)
    async with await log.open_writer() as writer:
        for _ in range(max(1, wanted.volume_bytes // (count * wanted.size))):
            await writer.append_many(payloads.take(count))
    return log


async def _watched(target: Target, client: Client, stack: AsyncExitStack, name: str) -> _Watched:
    log = await target.create_log(client, name)
    return _Watched(log, await stack.enter_async_context(await log.open_writer()))


class _Mix:
    """The readers, from ``async with`` on; the writers write while a slice runs."""

    def __init__(self, old: Log, watched: Sequence[_Watched], wanted: MixedPlan) -> None:
        self._old = old
        self._watched = watched
        self._wanted = wanted
        self._caught = Slice()
        self._is_running = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        for one in self._watched:
            for _ in range(self._wanted.tails):
                one.arrived.append({})
                self._start(self._follow(one, one.arrived[-1]))
        for (
            one
        ) in self._watched:  # readers of an empty log have to find its first segment: not counted
            await one.writer.append(b"first")
            while not all(one.arrived):  # noqa: ASYNC110  readers only note what they see
                await asyncio.sleep(LOOK_S)
        for _ in range(self._wanted.catch_ups):
            self._start(self._catch_up())

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def one_slice(self, seconds: float) -> Slice:
        """Everything at once for a while; what is told is the writers' part."""
        payloads = Payloads(self._wanted.size)
        rate = self._wanted.rate / len(self._watched)
        self._is_running.set()
        try:
            slices = await asyncio.gather(
                *(self._write(one, payloads, seconds, rate) for one in self._watched)
            )
        finally:
            self._is_running.clear()
        for task in self._tasks:
            if task.done():
                task.result()  # a reader that has failed
        done = total(slices)
        done.seconds = max(one.seconds for one in slices)
        done.cpu_seconds = max(one.cpu_seconds for one in slices)  # each saw the whole process
        self._caught.seconds += done.seconds
        return done

    def rows(self) -> list[Row]:
        """What the readers have seen."""
        delays = [delay for one in self._watched for delay in one.delays()]
        rows = []
        if delays:
            figures = latency_figures(delays) | {"entries": float(len(delays))}
            rows.append(
                Row(name=f"mixed: {self._wanted.tails} tail readers a log", figures=figures)
            )
        if self._wanted.catch_ups:
            name = f"mixed: {self._wanted.catch_ups} catch-up readers together"
            rows.append(Row(name=name, figures=rate_figures([self._caught])))
        return rows

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _write(self, one: _Watched, payloads: Payloads, seconds: float, rate: float) -> Slice:
        def acknowledged(seq: int) -> None:
            one.acknowledged[seq] = now()

        return await loads.at_rate(
            loads.submitting(one.writer), payloads, seconds, rate=rate, on_answer=acknowledged
        )

    async def _follow(self, one: _Watched, arrived: dict[int, float]) -> None:
        async for batch in one.log.read_batches(follow=True):
            moment = now()
            arrived.update((seq, moment) for seq in range(batch.first_seq, batch.end_seq))

    async def _catch_up(self) -> None:
        """Read while a slice runs; between slices wait, so that the limit is measured alone."""
        while True:
            async for batch in self._old.read_batches():
                await self._is_running.wait()
                self._caught.entries += len(batch.payloads)
                self._caught.bytes += batch.payload_bytes
