"""``bench read``: catching up on what is written, as batches, payloads and entries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from woodpecker.bench.append import Say, size_text
from woodpecker.bench.figures import Slice
from woodpecker.bench.machine import cpu_seconds, forget_peak, now, peak_rss_mb
from woodpecker.bench.pairs import Pairs, Plan, measure
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.raw_file import forget_cache, read_files
from woodpecker.bench.report import Row
from woodpecker.bench.target import Target
from woodpecker.client.background import BackgroundWorker
from woodpecker.client.client import Client
from woodpecker.client.log import Log
from woodpecker.errors import InvalidRequest

SIZES = (100, 1024, 16_384, 1 << 20)
WAYS = ("batches", "payloads", "entries")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPlan:
    """``volume_bytes`` of payload are written, then read ``pairs`` times in each way."""

    pairs: int
    volume_bytes: int
    sizes: Sequence[int] = SIZES
    ways: Sequence[str] = WAYS


async def run(target: Target, wanted: ReadPlan, say: Say) -> list[Row]:
    """All rows. Raises: errors of the store."""
    rows = []
    async with target.connect(background=False) as client:
        for size in wanted.sizes:
            say(f"writing {size_text(wanted.volume_bytes)} of {size_text(size)}")
            log = await _filled(target, client, size, wanted.volume_bytes)
            parts = await _sealed_parts(client, log)
            for way in wanted.ways:
                say(f"read {way} {size_text(size)}")
                rows.append(await _row(target, client, log, parts, way, size, wanted))
    return rows


async def _filled(target: Target, client: Client, size: int, volume_bytes: int) -> Log:
    """A log of sealed segments."""
    name = f"bench-{size}"
    log = await target.create_log(client, name)
    payloads = Payloads(size)
    batch = max(1, (1 << 20) // size)
    async with await log.open_writer() as writer:
        for _ in range(max(1, volume_bytes // (batch * size))):
            await writer.append_many(payloads.take(batch))
    report = await BackgroundWorker(client.environment).run_once(name)
    for error in report.errors.values():
        raise error
    return log


async def _sealed_parts(client: Client, log: Log) -> dict[str, int]:
    """Size by key of the sealed objects of a log."""
    env = client.environment
    manifest = await env.catalog.read(log.name, log_id=log.log_id)
    parts = {}
    async for segment in env.segments(manifest):
        if segment.sealed is None:
            raise InvalidRequest(f"segment {segment.id} was not sealed: nothing to compare with")
        parts[segment.sealed.key] = segment.sealed.size
    return parts


async def _row(
    target: Target, client: Client, log: Log, parts: dict[str, int], way: str, size: int,
    wanted: ReadPlan,
) -> Row:  # fmt: skip
    files = _files(target, client, parts)
    read = _WAYS[way]
    raw = target.raw() if not target.is_file else None  # keeps its connections, as ours does
    forget_peak()
    target.requests.clear()

    async def ours(_seconds: float) -> Slice:
        forget_cache(files)
        cpu, begin = cpu_seconds(), now()
        done = await read(log)
        done.seconds, done.cpu_seconds = now() - begin, cpu_seconds() - cpu
        return done

    async def limit(_seconds: float) -> Slice:
        if raw is None:
            return read_files(files, direct=True)
        prefix = f"{target.settings.path}/" if target.settings.path else ""
        return await raw.reads({prefix + key: size for key, size in parts.items()})

    pairs: Pairs = await measure(ours, limit, Plan(pairs=wanted.pairs, seconds=0))
    figures = pairs.figures() | {"peak_rss_mb": peak_rss_mb()}
    if not target.is_file:
        figures |= target.requests.per_gib(pairs.volume_bytes)
    return Row(
        name=f"read {way} {size_text(size)}",
        figures=figures,
        limit=pairs.limit_figures(),
        ratio=pairs.throughput_ratio,
    )


def _files(target: Target, client: Client, parts: dict[str, int]) -> list[Path]:
    if not target.is_file:
        return []
    objects = client.environment.places.objects("")
    paths = [objects.local_path(key) for key in parts]
    return [path for path in paths if path is not None]


async def _batches(log: Log) -> Slice:
    """Verified batches, not cut into entries."""
    done = Slice()
    async for batch in log.read_batches():
        done.entries += len(batch)
        done.bytes += batch.payload_bytes
    return done


async def _payloads(log: Log) -> Slice:
    """Every payload as bytes, in lists."""
    done = Slice()
    async for batch in log.read_batches():
        done.entries += len(batch.payloads)
        done.bytes += batch.payload_bytes
    return done


async def _entries(log: Log) -> Slice:
    """Every entry as an object, one by one."""
    done = Slice()
    async for entry in log.read():
        done.entries += 1
        done.bytes += len(entry.payload)
    return done


_WAYS: dict[str, Callable[[Log], Awaitable[Slice]]] = {
    "batches": _batches,
    "payloads": _payloads,
    "entries": _entries,
}
