"""The keeper of a node: seals what it holds, finds out what may go (log protocol, section 7).

It reads manifests with a client of its own; ``Holder`` is all it needs of the node; the rules are in
``core/keeping.py``. Two kinds of work, each with a bounded number of tasks however many logs there are:
*looks* read one manifest each and set floors and ends; *jobs* write objects. A log is looked at when the node
is told that its manifest has moved, and now and then in case that nobody told; more often while the node
drains or is short of room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from woodpecker.client.environment import Environment
from woodpecker.client.retention import drop_trimmed
from woodpecker.client.sealing import seal_log, sealed_key, write_sealed
from woodpecker.client.takeover import close_open_segment
from woodpecker.codec.compression import Buffer
from woodpecker.core.backoff import delay_ms
from woodpecker.core.commands import Command, OpenWriter, Owner
from woodpecker.core.ids import State
from woodpecker.core.keeping import (
    SEAL_STEP_MS,
    closed_here,
    first_closed,
    floor_of,
    may_close,
    place_of,
    seal_delay_ms,
)
from woodpecker.core.manifest import End, Manifest, Segment
from woodpecker.core.membership import Load, NodeState
from woodpecker.errors import Conflict, Fenced, NotFound, Unavailable, WoodpeckerError
from woodpecker.logstore.base import Holder
from woodpecker.logstore.objects import ObjectDesk
from woodpecker.logstore.schedule import Schedule
from woodpecker.observability.names import Counter, Event
from woodpecker.segments.quorum_base import Nodes

LOOKS = 8  # manifests read at the same time
JOBS = 8  # segments sealed at the same time,
LARGE_JOBS = 2  # so many of them large: each has several MiB under way
LARGE_BYTES = 4 << 20
TICK_MS = 5_000.0
SWEEP_MS = 600_000.0  # each log held is looked at so often, although nobody told
HURRIED_SWEEP_MS = 60_000.0  # ... while the node drains or is short of room
HURRIED_LOOK_MS = 20.0  # between two looks of such a sweep, on average
RETRY_FIRST_MS = 1_000.0
RETRY_LIMIT_MS = 300_000.0
OUTAGE_FIRST_MS = 500.0
OUTAGE_LIMIT_MS = 15_000.0

_log = logging.getLogger("woodpecker.logstore")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Work on one log that writes objects."""

    run: Callable[[], Awaitable[object]]
    is_large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Since:
    """Since when something has been true of a segment, as far as this node knows."""

    segment_id: int
    since_ms: float


class NodeKeeper:
    """Implements ``logstore/base.Keeper``. ``start`` once, ``stop`` once. One event loop.

    Args:
        env: a client of the node's own, with rights on the store.
        holder: the node.
        nodes: the cluster, as the segments of ``env`` see it.
    """

    def __init__(self, env: Environment, holder: Holder, nodes: Nodes) -> None:
        self._env = env
        self._holder = holder
        self._nodes = nodes
        self._objects = ObjectDesk(env)
        self._due = Schedule()
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()  # told while a look was under way: look once more behind it
        self._jobs: dict[str, _Job] = {}  # waiting, by log
        self._working: dict[str, asyncio.Task[None]] = {}
        self._large: set[str] = set()  # those of them that are large
        self._writing = asyncio.Semaphore(LARGE_JOBS)  # uploads that somebody waits for
        self._closed: dict[str, _Since] = {}  # the segment to be sealed next, by log
        self._left: dict[str, _Since] = {}  # the OPEN segment, while a writer should move on
        self._failures: dict[str, int] = {}  # looks and jobs that failed in a row, by log
        self._unknown: set[str] = set()  # logs that no manifest tells anything of
        self._outages = 0  # reads of the metadata store that failed in a row
        self._paused_until_ms = 0.0
        self._next_sweep_ms = 0.0
        self._is_first_sweep = True
        self._is_draining = False
        self._is_hurried = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after what the node holds."""
        self._task = self._env.runtime.spawn(self._run(), "keeper")

    async def stop(self) -> None:
        """End at once; what was begun is finished by another member, or after the next start."""
        tasks = [self._task, *self._looking.values(), *self._working.values()]
        running = [task for task in tasks if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._task = None

    # --- the port ---

    def tell(self, name: str) -> None:
        """The manifest of log ``name`` has moved, or a copy of it appeared here. Returns at once."""
        self._due.put(name, self._now_ms())
        self._wake.set()

    async def upload(self, name: str, log_id: str, segment_id: int, end: End) -> None:
        """Write the sealed object of a segment that ends at ``end``; see the port."""
        manifest = (await self._env.catalog.load(name)).manifest
        if manifest is None or manifest.is_tombstone or manifest.log_id != log_id:
            raise NotFound(
                f"log {name!r} was deleted"
            )  # one that is just being deleted is taken over
        segment = next((s for s in manifest.segments if s.id == segment_id), None)
        if segment is None:
            raise NotFound(f"log {name!r}: segment {segment_id} is not in its manifest any more")
        if segment.end not in (None, end):
            raise Conflict(f"log {name!r}: segment {segment_id} was closed at another end")
        if segment.state is not State.SEALED:
            closed = replace(segment, state=State.CLOSED, end=end)
            async with self._writing:
                await write_sealed(self._env, manifest, closed)
                await self._check_wanted(manifest, closed)

    async def _check_wanted(self, manifest: Manifest, closed: Segment) -> None:
        """A segment dropped meanwhile, by an opener who met no block of it, never comes back.

        No sweep would find its object among those that pages name.
        Raises: NotFound.
        """
        now = (await self._env.catalog.load(manifest.name)).manifest
        if now is None or now.log_id != manifest.log_id or now.deleting or now.is_tombstone:
            return  # goes with its log
        if any(kept.id == closed.id for kept in now.segments):
            return
        if any([kept.id == closed.id async for kept in self._env.segments(now)]):
            return
        objects = self._env.objects_of(manifest, closed)
        await objects.delete([sealed_key(manifest, closed)])
        raise NotFound(f"log {manifest.name!r}: segment {closed.id} was dropped meanwhile")

    async def get_object(
        self, storage: str, key: str, start: int, length: int | None
    ) -> tuple[int | None, Buffer]:
        """Size and bytes of an object; see the port and ``objects.py``."""
        return await self._objects.get(storage, key, start, length)

    # --- draining ---

    def on_state(self, state: NodeState) -> None:
        """What is to be done with this node has changed (``NodeSession``)."""
        self._is_draining = state in (NodeState.DRAINING, NodeState.DRAINED)
        if not self._is_draining:
            self._holder.refuse_new(refuse=False)
        self._wake.set()

    def report(self) -> Load:
        """What the node tells with each beat (``NodeSession``).

        It is safe to end a draining node once it holds no block of a segment that is not sealed: then it
        takes none any more, so that it stays so.
        """
        held = self._holder.unsealed()
        is_safe = self._is_draining and held.segments == 0
        if is_safe:
            self._holder.refuse_new(refuse=True)
        return Load(
            pressure=self._holder.pressure,
            unsealed_segments=held.segments,
            unsealed_bytes=held.size_bytes,
            is_safe=is_safe,
        )

    # --- the loop ---

    async def _run(self) -> None:
        while True:
            now_ms = self._now_ms()
            self._notice_hurry(now_ms)
            if now_ms >= self._next_sweep_ms:
                self._sweep(now_ms)
            self._start_looks(now_ms)
            self._start_jobs()
            await self._wait(now_ms)

    async def _wait(self, now_ms: float) -> None:
        """Until told, a task has ended, a log is due, or a tick has passed."""
        due_ms = self._due.next_ms() if len(self._looking) < LOOKS else None
        until_ms = now_ms + TICK_MS
        if due_ms is not None:
            until_ms = min(until_ms, max(due_ms, self._paused_until_ms))
        self._wake.clear()
        try:
            async with asyncio.timeout(max(0.0, until_ms - now_ms) / 1000):
                await self._wake.wait()
        except TimeoutError:
            return

    def _notice_hurry(self, now_ms: float) -> None:
        """Draining, or short of room: what is held should go soon."""
        is_hurried = self._is_draining or self._holder.pressure > 0
        if is_hurried and not self._is_hurried:
            self._next_sweep_ms = now_ms
        self._is_hurried = is_hurried

    def _sweep(self, now_ms: float) -> None:
        """Every log held is due before the next sweep: in a hurry or after a start soon, else spread."""
        pause_ms = HURRIED_SWEEP_MS if self._is_hurried else SWEEP_MS
        names = {name for _, name in self._holder.held_logs()}
        spread_ms = pause_ms
        if self._is_hurried or self._is_first_sweep:
            spread_ms = min(HURRIED_SWEEP_MS, len(names) * HURRIED_LOOK_MS)
        self._is_first_sweep = False
        self._next_sweep_ms = now_ms + pause_ms
        for name in sorted(names):
            self._due.put(name, now_ms + spread_ms * self._env.runtime.random())
        for remembered in (self._closed, self._left):
            for name in [name for name in remembered if name not in names]:
                del remembered[name]

    def _start_looks(self, now_ms: float) -> None:
        while now_ms >= self._paused_until_ms and len(self._looking) < LOOKS:
            name = self._due.pop(now_ms)
            if name is None:
                return
            if name in self._looking:
                self._again.add(name)
                continue
            task = self._env.runtime.spawn(self._guarded_look(name), f"keeper look {name}")
            self._looking[name] = task

    def _start_jobs(self) -> None:
        for name, job in list(self._jobs.items()):
            if len(self._working) == JOBS:
                return
            is_held_up = job.is_large and len(self._large) == LARGE_JOBS
            if name in self._working or is_held_up:
                continue
            del self._jobs[name]
            if job.is_large:
                self._large.add(name)
            task = self._env.runtime.spawn(self._guarded_job(name, job), f"keeper job {name}")
            self._working[name] = task

    # --- looking ---

    async def _guarded_look(self, name: str) -> None:
        try:
            manifest = await self._read(name)
            if manifest is not None:
                await self._look(manifest)
        except WoodpeckerError as error:
            self._failed(name, error)
        except Exception:  # noqa: BLE001  a bug must not end the work for all other logs
            _log.exception("looking after log %s failed", name)
            self._env.observer.count(Counter.BACKGROUND_ERRORS, job="bug")
        finally:
            del self._looking[name]
            if name in self._again:
                self._again.discard(name)
                self._due.put(name, self._now_ms())
            self._wake.set()

    async def _read(self, name: str) -> Manifest | None:
        """The manifest, read linearizably; None: there is none, or the store is away: later."""
        try:
            seen = await self._env.catalog.load(name)
        except Unavailable as error:
            self._pause(error)
            self._due.put(name, self._paused_until_ms)
            return None
        self._outages = 0
        if seen.manifest is None:
            self._say_unknown(name)
        return seen.manifest

    def _pause(self, error: Unavailable) -> None:
        """No looks for a while; several that fail together are one failure."""
        if self._now_ms() < self._paused_until_ms:
            return
        self._outages += 1
        chance = self._env.runtime.random()
        pause_ms = delay_ms(
            self._outages, chance, first_ms=OUTAGE_FIRST_MS, limit_ms=OUTAGE_LIMIT_MS
        )
        self._paused_until_ms = self._now_ms() + pause_ms
        if self._outages == 1:
            _log.warning("the keeper waits for the metadata store: %s", error)

    def _say_unknown(self, name: str) -> None:
        """Copies of a log without a record: deleted a month ago and more, or old metadata put in place."""
        if name not in self._unknown:
            self._unknown.add(name)
            _log.error(
                "log %s is not in the metadata at %s: what this node holds of it is kept. All is well if "
                "the log was deleted more than 30 days ago; else old metadata was put in place",
                name,
                self._env.catalog.store.url,
            )

    async def _look(self, manifest: Manifest) -> None:
        name, log_id = manifest.name, manifest.log_id
        self._objects.learn(manifest)
        self._unknown.discard(name)
        for known_id in (log_id, *(grave.log_id for grave in manifest.graves)):
            await self._let_go(manifest, known_id)
        if manifest.is_tombstone or manifest.deleting:
            return
        for segment in closed_here(self._holder.identity, manifest):
            assert segment.end is not None
            self._holder.set_end(log_id, segment.id, segment.end.block)
        if not self._seal_if_due(manifest):
            self._close_if_absent(manifest)
        if name not in self._jobs and name not in self._working:
            self._failures.pop(name, None)

    async def _let_go(self, manifest: Manifest, log_id: str) -> None:
        """Forget copies that nobody can need any more."""
        held = self._holder.held_segments(log_id)
        floor = floor_of(manifest, log_id)
        if held and held[0].segment_id < floor:
            await self._holder.set_floor(log_id, floor)

    def _seal_if_due(self, manifest: Manifest) -> bool:
        """Seal the oldest CLOSED segment when it is this member's turn; True: there is one of ours."""
        name, segment = manifest.name, first_closed(manifest)
        place = None if segment is None else place_of(self._holder.identity, segment)
        if segment is None or place is None:
            self._closed.pop(name, None)
            return False
        now_ms = self._now_ms()
        due_ms = self._since(self._closed, name, segment) + seal_delay_ms(place, segment)
        if place and self._jobs:  # who has work waiting does not help others out: they have too
            due_ms = max(due_ms, now_ms + SEAL_STEP_MS)
        if now_ms < due_ms:
            self._due.put(name, due_ms)
            return True
        job = _Job(
            run=lambda: self._seal(name, manifest.log_id), is_large=segment.bytes > LARGE_BYTES
        )
        self._jobs.setdefault(name, job)
        return True

    def _close_if_absent(self, manifest: Manifest) -> None:
        """Close the OPEN segment of a writer that is gone, where a living one would have moved on."""
        name, segment = manifest.name, manifest.open_segment
        if segment is None or not self._should_move(manifest, segment):
            self._left.pop(name, None)
            return
        left_ms = self._now_ms() - self._since(self._left, name, segment)
        for held in self._holder.held_segments(manifest.log_id):
            if held.segment_id == segment.id and held.size_bytes:
                me, idle_ms = self._holder.identity, held.idle_ms
                if may_close(me, manifest, left_ms=left_ms, idle_ms=idle_ms):
                    self._jobs.setdefault(name, _Job(run=lambda: self._close(manifest, segment)))

    def _should_move(self, manifest: Manifest, segment: Segment) -> bool:
        """Whether its writer, if it lived, would close the segment and go on elsewhere.

        That this node drains or is full is not enough: with nowhere to go a living writer stays.
        """
        return segment.ensemble is not None and self._nodes.wanted(segment.ensemble, manifest)

    def _since(self, remembered: dict[str, _Since], name: str, segment: Segment) -> float:
        """When this was first found true of the segment: now, if it was not known."""
        known = remembered.get(name)
        if known is None or known.segment_id != segment.id:
            known = remembered[name] = _Since(segment_id=segment.id, since_ms=self._now_ms())
        return known.since_ms

    # --- jobs ---

    async def _guarded_job(self, name: str, job: _Job) -> None:
        try:
            await job.run()
            self._failures.pop(name, None)
            self.tell(name)  # floors can rise now
        except NotFound:
            self.tell(name)  # deleted meanwhile
        except WoodpeckerError as error:
            self._failed(name, error)
        except Exception:  # noqa: BLE001  a bug must not end the work for all other logs
            _log.exception("work on log %s failed", name)
            self._env.observer.count(Counter.BACKGROUND_ERRORS, job="bug")
        finally:
            del self._working[name]
            self._large.discard(name)
            self._wake.set()

    async def _seal(self, name: str, log_id: str) -> None:
        """Seal what is CLOSED, drop what is trimmed: both let nodes forget."""
        await drop_trimmed(self._env, name, log_id=log_id)
        await seal_log(self._env, name, log_id=log_id)

    async def _close(self, manifest: Manifest, segment: Segment) -> None:
        """Take the log over from a writer that is gone, unless somebody has moved it since."""
        env, name, token = self._env, manifest.name, self._env.runtime.token()

        def command(now: Manifest | None) -> Command:
            if now is None or now.open_segment != segment:
                raise Fenced(f"log {name!r} has moved on", outcome="not_written")
            return OpenWriter(
                log_id=now.log_id, seen_epoch=segment.epoch, token=token, claim=now.claim
            )

        _log.warning(
            "log %s: its writer is gone, and segment %d must move: it is closed", name, segment.id
        )
        with contextlib.suppress(Fenced):
            taken = await env.catalog.change(name, command)
            owner = Owner(log_id=taken.log_id, epoch=taken.epoch, token=token)
            await close_open_segment(env, name, taken, owner)

    def _failed(self, name: str, error: WoodpeckerError) -> None:
        """Try again later, ever later."""
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        chance = self._env.runtime.random()
        pause_ms = delay_ms(failures, chance, first_ms=RETRY_FIRST_MS, limit_ms=RETRY_LIMIT_MS)
        self._due.put(name, self._now_ms() + pause_ms)
        self._env.observer.count(Counter.BACKGROUND_ERRORS, job="seal")
        if failures == 1:
            _log.warning("log %s waits to be sealed: %s", name, error)
            self._env.observer.event(
                Event.BACKGROUND_FAILED, job="seal", log=name, error=str(error)
            )

    def _now_ms(self) -> float:
        return self._env.runtime.monotonic_ms()
