"""Loads on one writer: batches, submits, waiting tasks, a fixed rate. Each measures one slice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

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


class BatchAppender(Protocol):
    """What takes several entries at once."""

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        """Several, acknowledged."""


class Appender(BatchAppender, Protocol):
    """A writer of ours, or a peer's log."""

    async def append(self, payload: bytes) -> object:
        """One entry, acknowledged."""


Send = Callable[[bytes], Awaitable[asyncio.Future[Any]]]
"""Puts one entry in, waiting for room if need be; the future is done when it is acknowledged."""


async def many(
    writer: BatchAppender,
    payloads: Payloads,
    seconds: float,
    *,
    count: int | None = None,
    at_once: int = BATCHES_AT_ONCE,
) -> Slice:
    """``append_many`` of ``count`` entries (else about 1 MiB) each, several at once; all durable at the end."""
    count = count or max(1, min(BATCH_ENTRIES, BATCH_BYTES // max(1, payloads.size_bytes)))
    batches = [payloads.take(count) for _ in range(2 * at_once)]
    done, cpu, begin = Slice(), cpu_seconds(), now()

    async def lane(number: int) -> None:
        turn = number
        while turn == number or now() - begin < seconds:  # once at least, however busy the machine
            await writer.append_many(batches[turn % len(batches)])
            done.entries += count
            turn += at_once

    await asyncio.gather(*(lane(number) for number in range(at_once)))
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


async def awaiting(writer: Appender, payloads: Payloads, seconds: float, *, tasks: int) -> Slice:
    """``tasks`` tasks, each waiting for its append before the next."""
    done, cpu, begin = Slice(), cpu_seconds(), now()

    async def lane() -> None:
        last, is_first = now(), True
        while is_first or last - begin < seconds:
            is_first = False
            await writer.append(payloads.next())
            end = now()
            done.latencies.append(end - last)
            last = end

    await asyncio.gather(*(lane() for _ in range(tasks)))
    done.entries = len(done.latencies)
    return _finished(done, payloads, cpu, begin)


async def at_rate(
    send: Send,
    payloads: Payloads,
    seconds: float,
    *,
    rate: float,
    on_answer: Callable[[Any], None] = lambda _answer: None,
) -> Slice:
    """Entries at fixed moments, whether or not earlier ones are done; ends when all are acknowledged.

    A latency counts from the moment an entry was due, so that a pause is felt by all who would have
    come meanwhile (no coordinated omission). Up to a millisecond of it is the timer's.
    """
    done, cpu, begin = Slice(), cpu_seconds(), now()
    total, sent = max(1, int(seconds * rate)), 0
    is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(due: float, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            if not is_over.done():
                is_over.set_exception(error)
            return
        on_answer(future.result())
        done.latencies.append(now() - due)
        if len(done.latencies) == total:
            is_over.set_result(None)

    while sent < total and not is_over.done():
        until = min(total, int((now() - begin) * rate) + 1)
        while sent < until:
            future = await send(payloads.next())
            future.add_done_callback(partial(answered, begin + sent / rate))
            sent += 1
        await asyncio.sleep(RATE_TICK_S)
    await is_over
    done.entries = sent
    return _finished(done, payloads, cpu, begin)


def submitting(writer: LogWriter) -> Send:
    """Into a writer of ours: no task for each entry."""

    async def send(payload: bytes) -> asyncio.Future[Any]:
        try:
            return writer.submit(payload)
        except Overloaded:
            await writer.ready()
            return writer.submit(payload)

    return send


def appending(log: Appender) -> Send:
    """Into anything: a task for each entry."""

    async def send(payload: bytes) -> asyncio.Future[Any]:
        return asyncio.ensure_future(_appended(log, payload))

    return send


async def _appended(log: Appender, payload: bytes) -> object:
    return await log.append(payload)


def _finished(done: Slice, payloads: Payloads, cpu: float, begin: float) -> Slice:
    done.seconds, done.cpu_seconds = now() - begin, cpu_seconds() - cpu
    done.bytes = done.entries * payloads.size_bytes
    return done
