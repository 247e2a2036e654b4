"""What ``doctor`` tries on a store. Everything it writes is removed again."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from woodpecker.errors import WoodpeckerError
from woodpecker.filesystems import file_system_of, is_local
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.base import Feature, ObjectStore

SMALL_BYTES, BIG_BYTES, BIG_COUNT = 4 << 10, 8 << 20, 4
SYNCS, REQUESTS = 200, 30
CLOCK_LIMIT_MS = 60_000
FREE_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was tried. ``ok`` None: worth knowing, neither good nor bad."""

    name: str
    ok: bool | None
    detail: str


@dataclass(slots=True, kw_only=True)
class Findings:
    """All checks, and the figures measured (units in the names)."""

    checks: list[Check] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, ok: bool | None, detail: str) -> None:
        """Note a check."""
        self.checks.append(Check(name=name, ok=ok, detail=detail))

    @property
    def is_usable(self) -> bool:
        """No check has failed."""
        return all(check.ok is not False for check in self.checks)


def nearest_directory(path: Path) -> Path:
    """``path``, or the closest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def probe_directory(path: Path, found: Findings) -> Path | None:
    """Check the directory and time synced writes; a scratch directory in it, None if unusable."""
    base = nearest_directory(path)
    if not base.is_dir():
        found.add("directory", ok=False, detail=f"{base} is not a directory")
        return None
    try:
        scratch = Path(tempfile.mkdtemp(prefix=".woodpecker-doctor-", dir=base))
    except OSError as error:
        found.add("directory", ok=False, detail=f"{base} cannot be written: {error.strerror}")
        return None
    made = "is there" if base == path else f"would be made in {base}"
    found.add("directory", ok=True, detail=f"{path} {made}")
    kind = "local" if is_local(base) else "network or unknown"
    found.add("file system", ok=None, detail=f"{file_system_of(base)} ({kind})")
    free = shutil.disk_usage(base).free
    found.figures["free_bytes"] = free
    is_enough = free >= FREE_LIMIT_BYTES
    found.add("free space", ok=is_enough or None, detail=f"{free / (1 << 30):.1f} GiB")
    return scratch


def probe_syncs(scratch: Path, found: Findings) -> None:
    """What one durable append to a file costs."""
    clock = SystemRuntime().monotonic_ms
    times: list[float] = []
    fd = os.open(scratch / "syncs", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(SYNCS):
            started = clock()
            os.write(fd, bytes(SMALL_BYTES))
            os.fdatasync(fd)
            times.append(clock() - started)
        started = clock()
        for _ in range(BIG_COUNT):
            os.write(fd, bytes(BIG_BYTES))
        os.fdatasync(fd)
        found.figures["sync_bytes_per_s"] = BIG_COUNT * BIG_BYTES / (clock() - started) * 1000
    except OSError as error:
        found.add("synced writes", ok=False, detail=f"{scratch}: {error.strerror}")
        return
    finally:
        os.close(fd)
    detail = _latency(found, "sync", times)
    speed = found.figures["sync_bytes_per_s"] / 1e6
    found.add("synced writes", ok=True, detail=f"4 KiB: {detail}; in bulk {speed:.0f} MB/s")


async def probe_conditions(objects: ObjectStore, found: Findings, *, holds_metadata: bool) -> None:
    """Conditional writes: without them two writers could destroy each other's data."""
    features: list[Feature] = ["create_if_absent"]
    if holds_metadata:
        features.append("compare_and_swap")
    for feature in features:
        name = feature.replace("_", " ")
        await attempt(found, name, partial(objects.probe, feature))


async def attempt(found: Findings, name: str, work: Callable[[], Awaitable[str | None]]) -> None:
    """Note a check that answers None, or what is wrong."""
    try:
        fault = await work()
    except WoodpeckerError as error:
        fault = f"{error.code}: {error}"
    found.add(name, ok=fault is None, detail=fault or "works")


async def probe_speed(objects: ObjectStore, found: Findings) -> None:
    """Latency of small requests one after another, throughput of big ones side by side."""
    runtime = SystemRuntime()
    prefix = f"probe/{runtime.token()}"
    keys = [f"{prefix}/{number}" for number in range(REQUESTS + BIG_COUNT)]
    small, big = keys[:REQUESTS], keys[REQUESTS:]
    try:
        puts = [await _timed(objects.create(key, bytes(SMALL_BYTES))) for key in small]
        gets = [await _timed(objects.get(key)) for key in small]
        found.add("put of 4 KiB", ok=True, detail=_latency(found, "put", puts))
        found.add("get of 4 KiB", ok=True, detail=_latency(found, "get", gets))
        data = bytes(BIG_BYTES)
        write_ms = await _timed(asyncio.gather(*(objects.create(key, data) for key in big)))
        read_ms = await _timed(asyncio.gather(*(objects.get(key) for key in big)))
        for name, elapsed_ms in (("put", write_ms), ("get", read_ms)):
            speed = BIG_BYTES * BIG_COUNT / elapsed_ms * 1000
            found.figures[f"{name}_bytes_per_s"] = speed
            text = f"{speed / 1e6:.0f} MB/s with {BIG_COUNT} of 8 MiB at a time"
            found.add(f"throughput of {name}", ok=True, detail=text)
    except WoodpeckerError as error:
        found.add("requests", ok=False, detail=f"{error.code}: {error}")
    finally:
        await objects.delete(keys)


async def probe_clock(objects: ObjectStore, found: Findings) -> None:
    """Retention by age does nothing while the clocks disagree."""
    runtime = SystemRuntime()
    before_ms = runtime.now_us() // 1000
    try:
        store_ms = await objects.clock_ms()
    except WoodpeckerError as error:
        found.add("clock", ok=None, detail=f"{error.code}: {error}")
        return
    if store_ms is None:
        found.add("clock", ok=None, detail="the store shows none")
        return
    own_ms = (before_ms + runtime.now_us() // 1000) // 2
    found.figures["clock_difference_ms"] = store_ms - own_ms
    is_close = abs(store_ms - own_ms) < CLOCK_LIMIT_MS
    detail = f"the store's is {store_ms - own_ms:+d} ms from this machine's"
    if not is_close:
        detail += ": retention by age waits until they agree"
    found.add("clock", ok=True if is_close else None, detail=detail)


async def _timed(work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> float:
    clock = SystemRuntime().monotonic_ms
    started = clock()
    await work
    return clock() - started


def _latency(found: Findings, name: str, times_ms: list[float]) -> str:
    ordered = sorted(times_ms)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    found.figures[f"{name}_p50_ms"], found.figures[f"{name}_p99_ms"] = p50, p99
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
