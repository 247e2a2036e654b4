"""The background worker: seals, trims, drops, pages and sweeps; one task for all logs of a process.

Nothing it does is needed for safety, and everything is safe to do twice or to kill. A lease only keeps
the processes that share a store from doing the same work at the same time. Without it a process still
sees to its own logs: those its writers rolled just now, and files that only this machine can reach. What
lies on nodes (kind quorum) is left to them, unless it is still not sealed minutes later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from woodpecker.client.collect import collect_log
from woodpecker.client.deletion import drop_dead_files, finish_deletions, is_import
from woodpecker.client.environment import Environment
from woodpecker.client.paging import spill
from woodpecker.client.retention import apply_retention, drop_trimmed
from woodpecker.client.sealing import first_to_seal, hand_over, seal_log
from woodpecker.codec import keys, records
from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Manifest
from woodpecker.core.retention import has_unsealed, has_work
from woodpecker.errors import NotFound, WoodpeckerError
from woodpecker.metadata.base import Lease
from woodpecker.observability.names import Counter, Event

TICK_MS = 60_000.0
SWEEP_MS = 6 * 3_600_000.0
FIRST_SWEEP_MS = 600_000.0  # short-lived processes never sweep
LOCAL_TICKS = 10  # without the lease, every so many ticks this machine's own files are seen to
SETTLE_MS = 120_000  # a segment closed this recently is left to the process that closed it
LEAVE_MS = 300_000  # ... and to the nodes that hold it (kind quorum), if they can be asked
LEASE = keys.lease("background")
LEASE_TTL_MS = 30_000
JOBS = 2  # logs worked on at the same time
DECODED_AT_ONCE = 32  # manifests, in one turn of the loop
RETRY_LIMIT_MS = 600_000.0

_log = logging.getLogger("woodpecker.background")


@dataclass(slots=True, kw_only=True)
class WorkReport:
    """What one call of ``run_once`` did; ``errors`` by name of the log."""

    logs: int = 0
    sealed: int = 0
    dropped: int = 0
    paged: int = 0
    deleted: int = 0
    errors: dict[str, WoodpeckerError] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What to do for one log."""

    sweep: bool = False
    settle_ms: int = 0
    leave_ms: int = LEAVE_MS


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """A log whose last job failed."""

    attempts: int
    not_before_ms: float
    text: str


class BackgroundWorker:
    """See the module. ``start`` once, ``stop`` once; ``run_once`` works without either.

    Concurrency: one loop.
    """

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._holder = env.runtime.token()
        self._pending: dict[str, _Job] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._trouble: dict[str, _Trouble] = {}
        self._clocks: dict[str, int | None] = {}  # storage -> its clock minus ours, of this tick
        self._wake = env.hub.has_work
        self._loop: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._ticks = 0
        self._next_tick_ms = 0.0
        self._next_sweep_ms = 0.0

    def start(self) -> None:
        """Begin to work in the background; nothing happens for a read-only client."""
        if self._env.read_only or self._loop is not None:
            return
        now_ms = self._env.runtime.monotonic_ms()
        self._next_tick_ms = now_ms + TICK_MS * self._env.runtime.random()
        self._next_sweep_ms = now_ms + FIRST_SWEEP_MS * (1 + self._env.runtime.random())
        self._loop = self._env.runtime.spawn(self._run(), "woodpecker background")

    async def stop(self) -> None:
        """End at once; what was begun is finished by whoever comes next."""
        tasks = [task for task in (self._loop, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop = None
        self._running.clear()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.release()

    async def run_once(self, name: str | None = None, *, sweep: bool = True) -> WorkReport:
        """Do now all there is to do for one log or for all, one after the other, without the lease.

        Raises: NotFound: no log of that name, living or dead. Failures of single logs are reported.
        """
        report = WorkReport()
        self._clocks.clear()
        async for manifest in self._manifests(report) if name is None else self._one(name):
            report.logs += 1
            try:
                await self._work(manifest, _Job(sweep=sweep, leave_ms=0), report)
            except WoodpeckerError as error:
                report.errors[manifest.name] = error
        return report

    # --- the loop ---

    async def _run(self) -> None:
        while True:
            await self._wait()
            self._wake.clear()
            dirty, self._env.hub.dirty = self._env.hub.dirty, set()
            for name in sorted(dirty):
                self._pending[name] = self._pending.get(name, _Job())
            if self._env.runtime.monotonic_ms() >= self._next_tick_ms:
                await self._try_tick()
            self._start_jobs()

    async def _wait(self) -> None:
        """Until there is news, a tick is due, or a log may be tried again."""
        due_ms = [self._next_tick_ms]
        if len(self._running) < JOBS:
            waiting = [name for name in self._pending if name not in self._running]
            due_ms += [
                self._trouble[name].not_before_ms for name in waiting if name in self._trouble
            ]
        wait_ms = min(due_ms) - self._env.runtime.monotonic_ms()
        try:
            async with asyncio.timeout(max(0.0, wait_ms) / 1000):
                await self._wake.wait()
        except TimeoutError:
            return

    def _start_jobs(self) -> None:
        now_ms = self._env.runtime.monotonic_ms()
        for name in list(self._pending):
            if len(self._running) == JOBS:
                return
            trouble = self._trouble.get(name)
            if name in self._running or (trouble and trouble.not_before_ms > now_ms):
                continue
            job = self._pending.pop(name)
            task = self._env.runtime.spawn(self._job(name, job), f"woodpecker background {name}")
            self._running[name] = task

    async def _job(self, name: str, job: _Job) -> None:
        """One log's work; a failure is remembered, never raised."""
        try:
            seen = await self._env.catalog.load(name)
            if seen.manifest is not None:
                await self._work(seen.manifest, job, WorkReport())
            self._trouble.pop(name, None)
        except NotFound:
            self._trouble.pop(name, None)  # deleted meanwhile
        except WoodpeckerError as error:
            self._failed(name, job, error)
        except Exception:  # noqa: BLE001  a bug must not end the work for all other logs
            _log.exception("background work on log %s failed", name)
            self._env.observer.count(Counter.BACKGROUND_ERRORS, job="bug")
        finally:
            self._running.pop(name, None)
            self._wake.set()

    def _failed(self, name: str, job: _Job, error: WoodpeckerError) -> None:
        known = self._trouble.get(name)
        attempts = known.attempts + 1 if known else 1
        pause = delay_ms(
            attempts, self._env.runtime.random(), first_ms=1_000.0, limit_ms=RETRY_LIMIT_MS
        )
        self._env.observer.count(Counter.BACKGROUND_ERRORS, job="log")
        if known is None or known.text != str(error):
            _log.warning("background work on log %s failed, to be tried again: %s", name, error)
            self._env.observer.event(Event.BACKGROUND_FAILED, job="log", log=name, error=str(error))
        now_ms = self._env.runtime.monotonic_ms()
        self._trouble[name] = _Trouble(
            attempts=attempts, not_before_ms=now_ms + pause, text=str(error)
        )
        self._pending.setdefault(name, job)

    # --- ticks ---

    async def _try_tick(self) -> None:
        now_ms = self._env.runtime.monotonic_ms()
        self._next_tick_ms = now_ms + TICK_MS * (0.75 + self._env.runtime.random() / 2)
        try:
            await self._tick(now_ms)
        except WoodpeckerError as error:
            self._env.observer.count(Counter.BACKGROUND_ERRORS, job="tick")
            _log.info("the background worker could not look for work: %s", error)

    async def _tick(self, now_ms: float) -> None:
        self._ticks += 1
        self._clocks.clear()
        if not self._env.has_rights:
            return  # others sweep
        if self._lease is None or self._lease.lost:
            self._lease = await self._env.catalog.store.acquire_lease(
                LEASE, self._holder, LEASE_TTL_MS
            )
        if self._lease is not None:
            sweep = now_ms >= self._next_sweep_ms
            if sweep:
                self._next_sweep_ms = now_ms + SWEEP_MS * (0.75 + self._env.runtime.random() / 2)
            await self._plan(sweep=sweep)
        elif self._ticks % LOCAL_TICKS == 1:
            await self._look_after_files()

    async def _plan(self, *, sweep: bool) -> None:
        now_us = self._env.runtime.now_us()
        async for manifest in self._manifests(None):
            if sweep or has_work(manifest, now_us):
                self._pending.setdefault(manifest.name, _Job(sweep=sweep, settle_ms=SETTLE_MS))

    async def _look_after_files(self) -> None:
        """Only this machine can seal or drop what lies in its buffer directory."""
        async for manifest in self._manifests(None):
            if has_unsealed(manifest, Kind.FILE):
                self._pending.setdefault(manifest.name, _Job(settle_ms=SETTLE_MS))
            await drop_dead_files(self._env, manifest)
            if not (manifest.is_tombstone or manifest.deleting):
                await collect_log(self._env, manifest.name, files_only=True)

    async def _manifests(self, report: WorkReport | None) -> AsyncIterator[Manifest]:
        """All logs' manifests, in pages of the store; one that cannot be read does not hide others."""
        store, start_after = self._env.catalog.store, ""
        while page := await store.list(keys.LOGS, start_after=start_after):
            for index, record in enumerate(page):
                if index % DECODED_AT_ONCE == 0:
                    await self._env.runtime.sleep_ms(0)  # others want the loop, too
                try:
                    manifest = records.decode_manifest(record.value, where=record.key)
                except WoodpeckerError as error:
                    self._unreadable(record.key, error, report)
                    continue
                yield manifest
            start_after = page[-1].key

    async def _one(self, name: str) -> AsyncIterator[Manifest]:
        manifest = (await self._env.catalog.load(name)).manifest
        if manifest is None:
            raise NotFound(f"log {name!r} does not exist in {self._env.url}")
        yield manifest

    def _unreadable(self, key: str, error: WoodpeckerError, report: WorkReport | None) -> None:
        name = keys.parse_manifest(key)
        if report is not None:
            report.errors[name] = error
        elif name not in self._trouble:
            self._trouble[name] = _Trouble(attempts=1, not_before_ms=0.0, text=str(error))
            _log.error("log %s: %s", name, error)

    # --- one log ---

    async def _work(self, manifest: Manifest, job: _Job, report: WorkReport) -> None:
        env, name, log_id = self._env, manifest.name, manifest.log_id
        if not env.has_rights:
            await self._hand_over(manifest)
            return
        if manifest.is_tombstone or manifest.deleting:
            if not is_import(manifest, env.runtime.now_us() // 1000):
                report.deleted += await finish_deletions(env, name)
            return
        store_ms = await self._store_ms(manifest)
        await apply_retention(env, manifest, store_ms=store_ms)
        report.dropped += await drop_trimmed(env, name, log_id=log_id)
        report.sealed += await seal_log(
            env, name, log_id=log_id, settle_ms=job.settle_ms, leave_ms=job.leave_ms
        )
        report.paged += await spill(env, name, log_id=log_id)
        if job.sweep:
            report.deleted += await collect_log(env, name, log_id=log_id)
            if manifest.graves:
                report.deleted += await finish_deletions(env, name)

    async def _hand_over(self, manifest: Manifest) -> None:
        """All that can be done without rights on the store: tell the nodes that there is work."""
        segment = first_to_seal(manifest)
        if segment is not None:
            await hand_over(self._env, manifest, segment)

    async def _store_ms(self, manifest: Manifest) -> int | None:
        """The store's clock now, where retention needs it; asked for once a tick."""
        options = manifest.options
        if options.retention_age_s is None and options.retention_bytes is None:
            return None
        storage, own_ms = manifest.storages[0], self._env.runtime.now_us() // 1000
        if storage not in self._clocks:
            store_ms = await self._env.places.objects(storage).clock_ms()
            own_ms = self._env.runtime.now_us() // 1000
            self._clocks[storage] = None if store_ms is None else store_ms - own_ms
        difference = self._clocks[storage]
        return None if difference is None else own_ms + difference
