"""``bench stream``: from a producer to a consumer at the tail, beside the log beneath and NATS JetStream.

The service is one process (``woodpecker up``), reached over gRPC; producer and consumer are in this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from woodpecker.bench import loads
from woodpecker.bench.append import Say, size_text
from woodpecker.bench.figures import Slice, latency_figures, rate_figures
from woodpecker.bench.machine import now
from woodpecker.bench.many_channels import many_channels
from woodpecker.bench.pairs import Measure, Plan, in_turn
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.peers.base import NotHere
from woodpecker.bench.report import Row
from woodpecker.bench.stream_systems import (
    Carrier,
    ChannelCarrier,
    LogCarrier,
    Service,
    nats_carriers,
    service,
)
from woodpecker.bench.target import Target, open_target
from woodpecker.errors import InvalidRequest

RATES = (1_000.0, 10_000.0, 50_000.0)
BATCH_MESSAGES, BATCHES_AT_ONCE = 1024, 4
KEPT_UP = 0.8  # of the rate asked for
SLOW_SHARE = 0.01  # of what the other consumer reads
SIGNAL_RATE, SIGNAL_CHANNELS = 20, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What is measured; ``channels``: so many are made in the end, on 16 pchannels (0: none)."""

    plan: Plan
    rates: Sequence[float] = RATES
    size: int = 1024
    nats: bool = True
    signals_s: float = 10.0
    channels: int = 0


async def run(target: Target, wanted: StreamPlan, say: Say) -> list[Row]:
    """Rows: each rate and batches on each system, a slow consumer beside a fast one, signals, many channels.

    Raises: InvalidRequest: not a directory.
    """
    if target.directory is None or target.storage is not None:
        raise InvalidRequest("bench stream works in a directory: give --store DIR")
    directory = target.directory
    async with AsyncExitStack() as stack:
        if target.nodes is None:  # a place of its own, beside what servers keep
            target = await stack.enter_async_context(open_target(str(directory)))
        rows: list[Row] = []
        others: list[Carrier] = []
        if wanted.nats:  # first: once gRPC is at work here, nothing can be started safely
            try:
                others += await stack.enter_async_context(nats_carriers(directory))
            except NotHere as error:
                rows.append(Row(name=f"NATS: not measured: {error}", figures={}))
        running = await stack.enter_async_context(service(target.url, directory))
        carriers: list[Carrier] = [
            await stack.enter_async_context(_channel(running, "bench")),
            await stack.enter_async_context(_log(target)),
            *others,
        ]
        rows += [Row(name=f"{one.name}: {one.settings}", figures={}) for one in carriers]
        able: Sequence[Carrier] = carriers
        for rate in wanted.rates:
            say(f"at {rate:,.0f}/s")
            found = await _at_rate(able, wanted, rate)
            rows += found
            able = _able(able, found)
        say("batches")
        rows += await _batches(carriers, wanted)
        say("a slow consumer")
        rows += await _beside_a_slow_one(running, wanted)
        say("signals")
        rows.append(await _signals(target, running, wanted.signals_s))
        if wanted.channels:
            say(f"{wanted.channels:,} channels")
            rows.append(await many_channels(running, wanted.channels))
        return rows


@asynccontextmanager
async def _channel(running: Service, name: str) -> AsyncIterator[ChannelCarrier]:
    channel = await running.client.create_channel(name)
    settings = (
        "`woodpecker up`, a process of its own, over gRPC; synced before each acknowledgement"
    )
    async with channel.producer() as producer:
        yield ChannelCarrier(channel, producer, settings)


@asynccontextmanager
async def _log(target: Target) -> AsyncIterator[LogCarrier]:
    async with target.connect(background=False) as client:
        log = await target.create_log(client, "bench-log", may_roll=False)
        async with await log.open_writer() as writer:
            yield LogCarrier(log, writer)


# ------------------------------------------------------------------------------- producer to consumer


async def _at_rate(carriers: Sequence[Carrier], wanted: StreamPlan, rate: float) -> list[Row]:
    payloads = Payloads(wanted.size)
    measures = {one.name: partial(_delivered, one, payloads, rate) for one in carriers}
    found = await in_turn(measures, wanted.plan, warm_up=tuple(measures), warm_up_s=0.3)
    rows = []
    for name, slices in found.items():
        figures = {**rate_figures(slices), "asked_s": rate}
        rows.append(Row(name=f"{name} {size_text(wanted.size)} at {rate:,.0f}/s", figures=figures))
    return rows


def _able(carriers: Sequence[Carrier], rows: Sequence[Row]) -> list[Carrier]:
    """Those that kept up, to be asked for more; for the others it would only take long."""
    kept = [row.figures["entries_s"] >= KEPT_UP * row.figures["asked_s"] for row in rows]
    return [carrier for carrier, is_able in zip(carriers, kept, strict=True) if is_able]


async def _delivered(carrier: Carrier, payloads: Payloads, rate: float, seconds: float) -> Slice:
    """A fixed rate; latencies from the moment a message was due until the consumer has it."""
    began: list[float] = []

    async def send(payload: bytes) -> asyncio.Future[Any]:
        if not began:
            began.append(now())
        return await carrier.send(payload)

    async with _receiving(carrier) as received:
        done = await loads.at_rate(send, payloads, seconds, rate=rate)
        await received.wait_for(done.entries)
    done.latencies = [
        moment - began[0] - number / rate for number, moment in enumerate(received.moments)
    ]
    return done


class _Received:
    """When each message came."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self._more = asyncio.Event()

    async def take(self, arrivals: AsyncIterator[int]) -> None:
        """All of them, until cancelled."""
        async for count in arrivals:
            self.moments += [now()] * count
            self._more.set()

    async def wait_for(self, count: int) -> None:
        """Until so many have come."""
        while len(self.moments) < count:
            self._more.clear()
            await self._more.wait()


@asynccontextmanager
async def _receiving(carrier: Carrier) -> AsyncIterator[_Received]:
    async with carrier.arrivals() as arrivals:
        received = _Received()
        taking = asyncio.create_task(received.take(arrivals))
        try:
            yield received
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)


async def _batches(carriers: Sequence[Carrier], wanted: StreamPlan) -> list[Row]:
    """Throughput, until the consumer has everything."""
    payloads = Payloads(wanted.size)
    measures = {one.name: partial(_through, one, payloads) for one in carriers}
    found = await in_turn(measures, wanted.plan, warm_up=tuple(measures), warm_up_s=0.3)
    return [
        Row(
            name=f"{name} {size_text(wanted.size)} batches of {BATCH_MESSAGES} x{BATCHES_AT_ONCE}",
            figures=rate_figures(slices),
        )
        for name, slices in found.items()
    ]


async def _through(carrier: Carrier, payloads: Payloads, seconds: float) -> Slice:
    async with _receiving(carrier) as received:
        begin = now()
        done = await loads.many(
            carrier, payloads, seconds, count=BATCH_MESSAGES, at_once=BATCHES_AT_ONCE
        )
        await received.wait_for(done.entries)
    done.seconds = now() - begin
    return done


# ------------------------------------------------------------------------------------ slow consumers


async def _beside_a_slow_one(running: Service, wanted: StreamPlan) -> list[Row]:
    """What a consumer gets with, and without, another one on its channel that reads a hundredth of it."""
    async with _channel(running, "bench-slow") as carrier:
        payloads = Payloads(wanted.size)
        alone = partial(_through, carrier, payloads)

        async def beside(seconds: float) -> Slice:
            slow = asyncio.create_task(_read_slowly(carrier))
            try:
                return await alone(seconds)
            finally:
                slow.cancel()
                await asyncio.gather(slow, return_exceptions=True)

        measures: dict[str, Measure] = {"alone": alone, "beside a slow one": beside}
        found = await in_turn(measures, wanted.plan, warm_up=("alone",), warm_up_s=0.3)
    return [
        Row(name=f"consumer {name}", figures=rate_figures(slices)) for name, slices in found.items()
    ]


async def _read_slowly(carrier: ChannelCarrier) -> None:
    """One batch, then a pause ninety-nine times as long as it took."""
    begin = now()
    async for _ in carrier.channel.consume_batches(start="earliest", credit_bytes=1 << 20):
        await asyncio.sleep(max(0.001, now() - begin) * (1 / SLOW_SHARE - 1))
        begin = now()


# ------------------------------------------------------------------------------------------- signals


async def _signals(target: Target, running: Service, seconds: float) -> Row:
    """Ephemeral messages to live consumers, and how many entries the logs of the store have got by them."""
    channels = [
        await running.client.create_channel(f"signals-{number}")
        for number in range(SIGNAL_CHANNELS)
    ]
    latencies: list[float] = []

    async def listen(number: int) -> None:
        async for messages in channels[number].consume_batches(start="latest"):
            moment = now()
            latencies.extend(moment - float(one.payload) for one in messages)

    async def speak(number: int) -> int:
        async with channels[number].producer() as producer:
            begin = now()
            for at in range(int(seconds * SIGNAL_RATE)):
                await asyncio.sleep(max(0.0, begin + at / SIGNAL_RATE - now()))
                await producer.send(str(now()).encode(), ephemeral=True)
            return int(seconds * SIGNAL_RATE)

    listening = [asyncio.create_task(listen(number)) for number in range(SIGNAL_CHANNELS)]
    await asyncio.sleep(1)
    before = await _entries(target)
    counts = await asyncio.gather(*(speak(number) for number in range(SIGNAL_CHANNELS)))
    await asyncio.sleep(0.5)
    written = await _entries(target) - before
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    figures = {
        "sent": float(sum(counts)),
        "received": float(len(latencies)),
        "entries_written": float(written),
        **latency_figures(latencies),
    }
    return Row(name=f"signals, {SIGNAL_RATE}/s on {SIGNAL_CHANNELS} channels", figures=figures)


async def _entries(target: Target) -> int:
    """Entries in all logs of the service, by its store."""
    async with target.connect(background=False) as client:
        logs = [await client.open_log(name) for name in await client.list_logs("stream.")]
        return sum([await log.tail() for log in logs])
