"""Stores that fail under load: stopped, killed, answering wrongly or not at all, and back again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from woodpecker.testing.faults.arena import Arena, Report, arena
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.workers import Worker
from woodpecker.testing.servers.fault_proxy import Fault, FaultRule

OUTAGE_S = (0.3, 3.0)
KILL_SHARE = 0.3  # of outages in which the writer is killed as well
HEALTHY_S = (0.2, 1.0)
APPEND_TIMEOUT_MS = 3_000  # shorter than some outages, so that appends end in doubt

Outage = Callable[[Arena], Awaitable[None]]


async def outages(directory: Path, *, metadata: str, times: int, seed: int, command: str) -> Report:
    """``times`` outages of SeaweedFS, or (``metadata`` "etcd") of the etcd beside it."""
    has_etcd = metadata == "etcd"
    place = Place("object", directory, proxied=not has_etcd, etcd=has_etcd, seed=seed)
    title = f"outages of {'etcd' if has_etcd else 'the object store'}"
    async with arena(title, place, directory, seed=seed, command=command) as run:
        await run.create(append_timeout_ms=APPEND_TIMEOUT_MS)
        followers = [
            await run.start("follower", max_s=3600, cursor=f"follower-{number}")
            for number in range(2)
        ]
        writer = await _writer(run)
        ways = _etcd_ways() if has_etcd else _store_ways()
        for number in range(times):
            name, outage = ways[number % len(ways)]
            await asyncio.sleep(run.rng.uniform(*HEALTHY_S))
            if run.rng.random() < KILL_SHARE:
                writer = (await asyncio.gather(_replace(run, writer), outage(run)))[0]
            else:
                await outage(run)
            run.report.counts[f"outage: {name}"] += 1
            await run.must_progress(name)
            if run.report.is_hopeless:
                break
        await run.must_end(await run.start("trimmer"), "trims once")
        writer.signal(signal.SIGTERM)
        await run.must_end(writer, "was told to close")
        await run.settle(followers)
        _count_injected(run)
    return run.report


async def _writer(run: Arena) -> Worker:
    writer = await run.start(
        "writer", max_s=3600, reopen=True, resolve=True, producers=4, pace_ms=5
    )
    await run.workers.heard(writer, "loaded")
    return writer


async def _replace(run: Arena, writer: Worker) -> Worker:
    """Kill the writer while the store is in trouble; the next one has to open the log then."""
    await asyncio.sleep(run.rng.uniform(0, OUTAGE_S[1]))
    if await run.workers.kill(writer):
        run.report.counts["kills of writers"] += 1
    return await _writer(run)


def _count_injected(run: Arena) -> None:
    if run.place.proxy is None:
        return
    for fault, count in run.place.proxy.injected.items():
        run.report.counts[f"injected: {fault.name}"] = count
    missing = [fault.name for fault in Fault if not run.place.proxy.injected[fault]]
    if missing and run.report.counts["outage: faults of all kinds"]:
        run.report.fail("errors", f"never injected: {missing}")


# --- the object store ----------------------------------------------------------------------------------


def _store_ways() -> list[tuple[str, Outage]]:
    ways: list[tuple[str, Outage]] = [("killed", kill_store), ("stopped", stop_store)]
    ways += [(fault.value, _inject(fault)) for fault in Fault]
    ways.append(("faults of all kinds", _inject(*Fault)))
    return ways


async def kill_store(run: Arena) -> None:
    """SeaweedFS is killed and started again."""
    assert run.place.server is not None
    await run.place.server.kill()
    await asyncio.sleep(run.rng.uniform(0, 1))
    await run.place.server.start()


async def stop_store(run: Arena) -> None:
    """SeaweedFS stands still for a while."""
    assert run.place.server is not None and run.place.server.pid is not None
    os.kill(run.place.server.pid, signal.SIGSTOP)
    await asyncio.sleep(2 * run.rng.uniform(*OUTAGE_S))
    os.kill(run.place.server.pid, signal.SIGCONT)


def _inject(*faults: Fault) -> Outage:
    async def inject(run: Arena) -> None:
        proxy = run.place.proxy
        assert proxy is not None
        for fault in faults:
            probability = run.rng.choice((0.05, 0.3)) if len(faults) == 1 else 0.03
            delay_ms = run.rng.choice((50, 400))
            proxy.add(FaultRule(fault=fault, probability=probability, delay_ms=delay_ms))
        await asyncio.sleep(1 + run.rng.uniform(*OUTAGE_S))
        proxy.clear()
        await proxy.settle()

    return inject


# --- etcd ----------------------------------------------------------------------------------------------


def _etcd_ways() -> list[tuple[str, Outage]]:
    return [("etcd killed", kill_etcd), ("etcd stopped", stop_etcd)]


async def kill_etcd(run: Arena) -> None:
    """Etcd is killed and started again."""
    await asyncio.to_thread(run.place.etcd.kill)
    await asyncio.sleep(run.rng.uniform(*OUTAGE_S))
    await asyncio.to_thread(run.place.etcd.start)
    await asyncio.to_thread(run.place.etcd.wait_ready)


async def stop_etcd(run: Arena) -> None:
    """Etcd stands still for a while."""
    run.place.etcd.pause()
    await asyncio.sleep(2 * run.rng.uniform(*OUTAGE_S))
    run.place.etcd.resume()
