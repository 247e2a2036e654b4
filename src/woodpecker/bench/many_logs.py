"""``bench many-logs``: thousands of logs in one store, each with an open writer that is idle."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from woodpecker.bench.append import Say
from woodpecker.bench.machine import cpu_seconds, now, open_descriptors, rss_mb
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.client.client import Client
from woodpecker.client.writer import LogWriter

AT_ONCE = 16
IDLE_S = 5.0


async def run(target: Target, count: int, say: Say, *, idle_s: float = IDLE_S) -> list[Row]:
    """Rows: creating, opening with one entry each, idling, a second entry each, closing."""
    async with target.connect() as client, AsyncExitStack() as stack:
        rows = [await _step("create", count, lambda n: _create(client, n), say)]
        writers: dict[int, LogWriter] = {}
        before_mb = rss_mb()

        async def open_one(number: int) -> None:
            log = await client.open_log(f"bench-{number}")
            writers[number] = await stack.enter_async_context(await log.open_writer())
            await writers[number].append(b"first")

        rows.append(await _step("open and append", count, open_one, say))
        rows.append(await _idle(count, before_mb, idle_s, say))
        rows.append(await _step("append again", count, lambda n: _append(writers[n]), say))
        say("closing")
        return rows


async def _create(client: Client, number: int) -> None:
    await client.create_log(f"bench-{number}")


async def _append(writer: LogWriter) -> None:
    await writer.append(b"second")


async def _step(what: str, count: int, work: object, say: Say) -> Row:
    assert callable(work)
    say(what)
    waiting, begin, cpu = iter(range(count)), now(), cpu_seconds()

    async def lane() -> None:
        for number in waiting:
            await work(number)

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))
    seconds = now() - begin
    return Row(
        name=f"many logs: {what}",
        figures={
            "logs_s": count / seconds,
            "cpu_ms_per_log": (cpu_seconds() - cpu) / count * 1e3,
            "rss_mb": rss_mb(),
            "open_fds": open_descriptors(),
        },
    )


async def _idle(count: int, before_mb: float, idle_s: float, say: Say) -> Row:
    say("idle")
    tasks = len(asyncio.all_tasks())
    cpu = cpu_seconds()
    await asyncio.sleep(idle_s)
    return Row(
        name=f"many logs: {count} idle writers",
        figures={
            "cpu_percent": (cpu_seconds() - cpu) / idle_s * 100,
            "kib_per_log": (rss_mb() - before_mb) * 1e6 / 1024 / count,
            "tasks": tasks,
            "open_fds": open_descriptors(),
        },
    )
