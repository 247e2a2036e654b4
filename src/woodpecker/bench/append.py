"""``bench append``: throughput and latency of one writer, beside the limit of the back end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from woodpecker.bench import loads
from woodpecker.bench.figures import Slice, rate_figures
from woodpecker.bench.machine import forget_peak, peak_rss_mb
from woodpecker.bench.nodes import NodesMeter
from woodpecker.bench.pairs import Measure, Pairs, Plan, measure
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.raw_file import RawFile
from woodpecker.bench.raw_quorum import RawQuorum, raw_quorum
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.client.client import Client
from woodpecker.client.writer import LogWriter

SIZES = (100, 1024, 16_384, 1 << 20)
IN_FLIGHT = (1, 8, 64, 1000)
LATENCY_BYTES = 1024
LADDER = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9)
QUORUM_SIZES = (100, 1024, 16_384, 65_536, 262_144, 1 << 20)
MODES = {"many": loads.many, "submit": loads.submit}

Load = Callable[[LogWriter, Payloads, float], Awaitable[Slice]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendPlan:
    """What to measure. ``rates``: entries a second of the open loop."""

    plan: Plan
    sizes: Sequence[int] = SIZES
    modes: Sequence[str] = tuple(MODES)
    in_flight: Sequence[int] = IN_FLIGHT
    in_flight_bytes: int = LATENCY_BYTES
    rates: Sequence[float] = ()
    is_ladder: bool = False  # rates are shares of what goes in, from light load to nearly too much
    background: bool = False  # seal what is full while the next is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Slices of the back end alone. ``growing``: on a disk, throughput into blocks never written."""

    throughput: Measure
    latency: Measure
    note: str
    growing: Measure | None = None


async def run(target: Target, wanted: AppendPlan, say: Say) -> list[Row]:
    """All rows. Raises: errors of the store."""
    connected = target.connect(background=wanted.background)
    async with limits_of(target) as limits, connected as client:
        bench = _Bench(target, client, limits, wanted, say)
        rows = [Row(name=limits.note, figures={})]
        for size in wanted.sizes:
            rows += [await bench.throughput(mode, size) for mode in wanted.modes]
        for tasks in wanted.in_flight:
            rows.append(await bench.waiting(tasks, wanted.in_flight_bytes))
        rates = wanted.rates
        if wanted.is_ladder:
            most = await bench.most(wanted.in_flight_bytes)
            rates = [most * step for step in LADDER]
        for rate in rates:
            rows.append(await bench.open_loop(rate, wanted.in_flight_bytes))
        return rows


@asynccontextmanager
async def limits_of(target: Target) -> AsyncIterator[Limits]:
    """What the back end of ``target`` can do alone."""
    if target.directory is not None and target.nodes is not None:
        async with raw_quorum(target.directory, len(target.nodes.processes)) as sinks:
            yield _blocking(sinks)
    elif target.directory is not None and target.is_file:
        disk = RawFile(target.directory.with_name(f"{target.directory.name}.raw"))

        async def growing(seconds: float) -> Slice:
            return disk.growing(seconds)

        try:
            yield replace(_blocking(disk), growing=growing)
        finally:
            disk.close()
    else:
        raw = target.raw()
        note = "limit: PUTs of 4 MiB, 8 at once; one at a time: PUTs of 1 KiB"
        yield Limits(throughput=raw.puts, latency=raw.small_puts, note=note)


def _blocking(raw: RawFile | RawQuorum) -> Limits:
    async def throughput(seconds: float) -> Slice:
        return raw.throughput(seconds)

    async def latency(seconds: float) -> Slice:
        return raw.latency(seconds)

    return Limits(throughput=throughput, latency=latency, note=raw.choose())


class _Bench:
    def __init__(
        self, target: Target, client: Client, limits: Limits, wanted: AppendPlan, say: Say
    ) -> None:
        self._target = target
        self._client = client
        self._limits = limits
        self._plan = wanted.plan
        self._may_roll = wanted.background
        self._say = say
        self._count = 0

    async def throughput(self, mode: str, size: int) -> Row:
        """As much as goes in, against synced writes or PUTs as fast as the back end takes them."""
        name = f"append {mode} {size_text(size)}"
        pairs, figures = await self._run(name, MODES[mode], size, self._limits.throughput)
        limit = _without_latencies(pairs.limit_figures())
        if pairs.others:
            limit["new_blocks_mb_s"] = rate_figures(pairs.others)["mb_s"]
            figures["of_new_blocks"] = pairs.ratio_to_others
        return Row(name=name, figures=figures, limit=limit, ratio=pairs.throughput_ratio)

    async def waiting(self, tasks: int, size: int) -> Row:
        """Tasks that wait for each append; alone it is compared with a bare synced write or PUT."""
        name = f"append await x{tasks} {size_text(size)}"
        load = partial(loads.awaiting, tasks=tasks)
        limit = self._limits.latency if tasks == 1 else None
        pairs, figures = await self._run(name, load, size, limit)
        if limit is None:
            return Row(name=name, figures=figures)
        return Row(
            name=name,
            figures=figures,
            limit=pairs.limit_figures(),
            ratio=pairs.latency_ratio,
            note="ratio of the median latencies: 1 is the bare write",
        )

    async def open_loop(self, rate: float, size: int) -> Row:
        """Latency at a fixed rate, counted from the moment each entry was due."""
        name = f"append {size_text(size)} at {rate:,.0f}/s"

        async def load(writer: LogWriter, payloads: Payloads, seconds: float) -> Slice:
            return await loads.at_rate(loads.submitting(writer), payloads, seconds, rate=rate)

        _, figures = await self._run(name, load, size, None)
        return Row(name=name, figures={"asked_s": rate, **figures})

    async def most(self, size: int) -> float:
        """About how many entries a second go in one by one, to choose rates by."""
        _, figures = await self._run("what goes in", loads.submit, size, None)
        return figures["entries_s"]

    async def _run(
        self, name: str, load: Load, size: int, limit: Measure | None
    ) -> tuple[Pairs, dict[str, float]]:
        self._say(name)
        self._count += 1
        self._target.requests.clear()
        log = await self._target.create_log(
            self._client, f"bench-{self._count}", may_roll=self._may_roll
        )
        payloads = Payloads(size)
        nodes = self._target.nodes
        meter = None if nodes is None else await NodesMeter.start(nodes)
        forget_peak()
        async with await log.open_writer() as writer:

            async def ours(seconds: float) -> Slice:
                return await load(writer, payloads, seconds)

            other = self._limits.growing if limit is self._limits.throughput else None
            pairs = await measure(ours, limit, self._plan, other=other)
        figures = pairs.figures() | {"peak_rss_mb": peak_rss_mb()}
        if meter is not None:
            figures |= await meter.figures(pairs.volume_bytes)
            await self._client.delete_log(log.name)  # so that nodes do not seal it meanwhile
        elif not self._target.is_file:
            figures |= self._target.requests.per_gib(pairs.volume_bytes)
        return pairs, figures


def _without_latencies(figures: dict[str, float]) -> dict[str, float]:
    """Of large writes nobody waits for the single one."""
    return {name: value for name, value in figures.items() if not name.endswith("_ms")}


def size_text(size_bytes: int) -> str:
    """A size as short as it can be said."""
    if size_bytes % (1 << 20) == 0:
        return f"{size_bytes >> 20} MiB"
    return f"{size_bytes >> 10} KiB" if size_bytes % 1024 == 0 else f"{size_bytes} B"
