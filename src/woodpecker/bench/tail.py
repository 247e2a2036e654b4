"""``bench tail``: from the acknowledgement of an entry until a following reader has it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from woodpecker.bench.append import Say, size_text
from woodpecker.bench.figures import latency_figures
from woodpecker.bench.machine import now
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.processes import child
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.client.log import Log

SETTLE_S = 0.3  # a reader has begun to wait by then
GAP_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class TailPlan:
    """``count`` entries, one after the other; ``gap_s`` between an acknowledgement and the next.

    The first one, which readers of an empty log have to find a segment for, is told apart.
    """

    count: int
    size: int = 1024
    gap_s: float = GAP_S


async def run(target: Target, wanted: TailPlan, say: Say) -> list[Row]:
    """A row for a reader in this process, one for a reader in another."""
    async with target.connect(background=False) as client:
        rows = []
        for where, follow in (("same process", _follow_here), ("other process", _follow_there)):
            say(f"tail, {where}")
            log = await target.create_log(client, f"bench-{where.partition(' ')[0]}")
            acknowledged, arrived = await follow(target, log, wanted)
            first, *delays = (max(0.0, arrived[seq] - acknowledged[seq]) for seq in acknowledged)
            figures = latency_figures(delays)
            figures |= {"first_ms": first * 1e3, "entries": float(len(delays))}
            rows.append(Row(name=f"tail {where} {size_text(wanted.size)}", figures=figures))
        return rows


async def _follow_here(
    _target: Target, log: Log, wanted: TailPlan
) -> tuple[dict[int, float], dict[int, float]]:
    arrived: dict[int, float] = {}

    async def follow() -> None:
        async for batch in log.read_batches(follow=True):
            moment = now()
            arrived.update((seq, moment) for seq in range(batch.first_seq, batch.end_seq))
            if batch.end_seq > wanted.count:
                return

    reader = asyncio.create_task(follow())
    try:
        acknowledged = await _append(log, wanted)
        await reader
    finally:
        reader.cancel()
    return acknowledged, arrived


async def _follow_there(
    target: Target, log: Log, wanted: TailPlan
) -> tuple[dict[int, float], dict[int, float]]:
    async with child("follow", target.url, log.name, str(wanted.count + 1)) as process:
        assert process.stdout is not None
        acknowledged = await _append(log, wanted)
        text = await process.stdout.read()
    pairs = (line.split() for line in text.decode().splitlines())
    return acknowledged, {int(seq): float(moment) for seq, moment in pairs}


async def _append(log: Log, wanted: TailPlan) -> dict[int, float]:
    """When each append was acknowledged."""
    payloads = Payloads(wanted.size, pool_bytes=1 << 20)
    acknowledged: dict[int, float] = {}
    async with await log.open_writer() as writer:
        await asyncio.sleep(SETTLE_S)
        for number in range(wanted.count + 1):
            seq = await writer.append(payloads.next())
            acknowledged[seq] = now()
            await asyncio.sleep(wanted.gap_s if number else SETTLE_S)
        await asyncio.sleep(SETTLE_S)  # the segment stays open until the reader has everything
    return acknowledged
