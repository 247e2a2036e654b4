"""Loads on one writer: batches, submits, waiting tasks, a fixed rate. Each measures one slice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from woodpecker.bench.figures import Slice
from woodpecker.bench.machine import cpu_seconds, now
from woodpecker.bench.payloads import Payloads
from woodpecker.client.writer import LogWriter
from woodpecker.errors import Overloaded

BATCH_BYTES = 1 << 20
BATCH_ENTRIES = 10_000
BATCHES_AT_ONCE = 8
SUBMITS_A_TURN = 500
RATE_TICK_S = 0.001


async def many(writer: LogWriter, payloads: Payloads, seconds: float) -> Slice:
    """``append_many`` of about 1 MiB each, several at once; all durable at the end."""
    count = max(1, min(BATCH_ENTRIES, BATCH_BYTES // max(1, payloads.size_bytes)))
    batches = [payloads.take(count) for _ in range(2 * BATCHES_AT_ONCE)]
    done, cpu, begin = Slice(), cpu_seconds(), now()

    async def lane(number: int) -> None:
        turn = number
        while now() - begin < seconds:
            await writer.append_many(batches[turn % len(batches)])
            done.entries += count
            turn += BATCHES_AT_ONCE

    await asyncio.gather(*(lane(number) for number in range(BATCHES_AT_ONCE)))
    return _finished(done, payloads, cpu, begin)


async def submit(writer: LogWriter, payloads: Payloads, seconds: float) -> Slice:
    """One call an entry without waiting for each; all durable at the end."""
    done, cpu, begin = Slice(), cpu_seconds(), now()
    put = writer.submit
    while now() - begin < seconds:
        for payload in payloads.take(SUBMITS_A_TURN):
            try:
                put(payload)
            except Overloaded:
                await writer.ready()
                put(payload)
        done.entries += SUBMITS_A_TURN
        await asyncio.sleep(0)
    await writer.flush()
    return _finished(done, payloads, cpu, begin)


async def awaiting(writer: LogWriter, payloads: Payloads, seconds: float, *, tasks: int) -> Slice:
    """``tasks`` tasks, each waiting for its append before the next."""
    done, cpu, begin = Slice(), cpu_seconds(), now()

    async def lane() -> None:
        last = now()
        while last - begin < seconds:
            await writer.append(payloads.next())
            end = now()
            done.latencies.append(end - last)
            last = end

    await asyncio.gather(*(lane() for _ in range(tasks)))
    done.entries = len(done.latencies)
    return _finished(done, payloads, cpu, begin)


async def at_rate(
    writer: LogWriter,
    payloads: Payloads,
    seconds: float,
    *,
    rate: float,
    on_answer: Callable[[int], None] = lambda _seq: None,
) -> Slice:
    """Entries at fixed moments, whether or not earlier ones are done.

    A latency counts from the moment an entry was due, so that a pause is felt by all who would have
    come meanwhile (no coordinated omission). Up to a millisecond of it is the timer's.
    """
    done, cpu, begin = Slice(), cpu_seconds(), now()
    total, sent = max(1, int(seconds * rate)), 0

    def answered(due: float, future: asyncio.Future[int]) -> None:
        on_answer(future.result())
        done.latencies.append(now() - due)

    while sent < total:
        until = min(total, int((now() - begin) * rate) + 1)
        while sent < until:
            await _submit_at(writer, payloads, partial(answered, begin + sent / rate))
            sent += 1
        await asyncio.sleep(RATE_TICK_S)
    await writer.flush()
    await asyncio.sleep(0)  # the last callbacks
    done.entries = sent
    return _finished(done, payloads, cpu, begin)


async def _submit_at(
    writer: LogWriter, payloads: Payloads, answered: Callable[[asyncio.Future[int]], None]
) -> None:
    payload = payloads.next()
    try:
        future = writer.submit(payload)
    except Overloaded:
        await writer.ready()
        future = writer.submit(payload)
    future.add_done_callback(answered)


def _finished(done: Slice, payloads: Payloads, cpu: float, begin: float) -> Slice:
    done.seconds, done.cpu_seconds = now() - begin, cpu_seconds() - cpu
    done.bytes = done.entries * payloads.size_bytes
    return done
