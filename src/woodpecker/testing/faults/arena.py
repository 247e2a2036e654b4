"""One run: a store, worker processes, a log, and what is judged at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import woodpecker as wp
from woodpecker.client.log import Log
from woodpecker.core.ids import State
from woodpecker.testing.checkers import Final, Violation, check
from woodpecker.testing.faults.job import Job
from woodpecker.testing.faults.leftovers import leftovers
from woodpecker.testing.faults.mutants import MUTANTS
from woodpecker.testing.faults.payloads import item_of
from woodpecker.testing.faults.places import Place
from woodpecker.testing.faults.workers import Worker, Workers
from woodpecker.testing.history import Event, History, collect, decode_file

LOG = "kill"
LOG_OPTIONS = {"segment_max_bytes": 256 << 10, "segment_max_blocks": 40, "segment_max_age_s": 2}
QUORUM_OPTIONS = {"segment_max_bytes": 2 << 20, "segment_max_blocks": 300, "segment_max_age_s": 5}
CATCH_UP_S = 60
END_S = 60.0
PROGRESS_S = 60
SWEEPS = 300
MISHAP_CHARS = 1500
HOPELESS = 20


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did and found."""

    title: str
    seed: int
    command: str
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    table: str = ""  # for people; details: for programs
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether nothing was broken."""
        return not self.violations

    @property
    def is_hopeless(self) -> bool:
        """Whether going on makes no sense."""
        return len(self.violations) >= HOPELESS

    def fail(self, rule: str, text: str) -> None:
        """Something is wrong that no history shows."""
        self.violations.append(Violation(rule=rule, text=text))

    def __str__(self) -> str:
        lines = [f"{self.title}: seed {self.seed}, {self.seconds:.0f} s"]
        if self.table:
            lines.append(self.table)
        lines += [f"  {count:9,}  {what}" for what, count in sorted(self.counts.items())]
        lines += [f"  BROKEN {violation}" for violation in self.violations]
        lines.append("  all invariants hold" if self.is_good else f"  again: {self.command}")
        return "\n".join(lines)


@dataclass(slots=True, kw_only=True)
class Arena:
    """What a run works with. ``rng`` draws everything that the orchestrator decides."""

    directory: Path
    place: Place
    workers: Workers
    rng: random.Random
    report: Report
    log: str = LOG
    names: list[str] = field(default_factory=list)  # of the processes that used this log
    settings: dict[str, Any] = field(default_factory=dict)

    def plant(self, mutant: str) -> None:
        """Have writers run with a planted bug (``mutants.py``), if it is one of writers."""
        if mutant in MUTANTS:
            self.settings["mutant"] = mutant

    def client(self, *, background: bool = False) -> wp.Client:
        """A client of this process."""
        return wp.connect(self.place.url, metadata=self.place.metadata, background=background)

    async def create(self, **options: Any) -> None:
        """Create the log with small segments, so that it rolls all the time."""
        async with self.client() as client:
            small = QUORUM_OPTIONS if self.place.mode == "quorum" else LOG_OPTIONS
            wanted = {**small, "mode": self.place.mode, **options}
            await client.create_log(self.log, **wanted)

    async def start(self, role: str, *, max_s: int = 120, **settings: Any) -> Worker:
        """Start a worker of the given role."""
        doors = self.place.doors
        url, metadata = doors[0] if len(doors) == 1 else self.rng.choice(doors)
        job = Job(
            role=role,
            name=f"{role[0]}{self.workers.started}",
            log=self.log,
            url=url,
            metadata=metadata,
            directory=str(self.directory),
            seed=self.rng.getrandbits(48),
            max_s=max_s,
            settings={**self.settings, **settings} if role == "writer" else settings,
        )
        self.names.append(job.name)
        return await self.workers.start(job)

    def turn_to(self, log: str) -> None:
        """Go on with another log; those that used the one before are not judged again."""
        self.log = log
        self.names = []

    async def must_end(self, worker: Worker, why: str, timeout_s: float = END_S) -> None:
        """Wait for a worker that ends by itself."""
        try:
            status = await self.workers.wait(worker, timeout_s)
        except TimeoutError:
            self.report.fail("I7", f"{worker.job.name} {why} and does not end")
            await self.workers.kill(worker)
            return
        if status != 0:
            self.report.fail("errors", f"{worker.job.name} {why}: ended with status {status}")

    async def must_progress(self, after: str) -> None:
        """Entries must be acknowledged again, so the tail must move."""
        reached, why = -1, "the tail stands still"
        until = time.monotonic() + PROGRESS_S
        while time.monotonic() < until:
            try:
                async with self.client() as client:
                    log = await client.open_log(self.log)
                    if 0 <= reached < await log.tail():
                        return
                    reached = max(reached, await log.tail())
            except wp.Unavailable as error:
                why = str(error)
            await asyncio.sleep(0.05)
        self.report.fail("I7", f"no append succeeds {PROGRESS_S} s after: {after} ({why})")

    def history(self) -> History:
        """What all processes that used this log have written down."""
        events: list[Event] = []
        for name in self.names:
            path = self.directory / f"{name}.jsonl"
            if path.exists():  # else it was killed before its first line
                events += decode_file(path.read_bytes())
        return collect(events)

    async def settle(self, followers: list[Worker]) -> None:
        """A last writer opens and closes; followers reach the tail; then everything is judged."""
        last = await self.start("writer", load_s=0.2, reopen=False)
        await self.must_end(last, "is the last writer")
        async with self.client() as client:
            log = await client.open_log(self.log)
            await self._await_followers(log, followers)
            for follower in followers:
                await self.workers.kill(follower)
            await self._clean(client)
            final = await self._read(log)
            await self._judge(log, final, is_whole=bool(followers))
            await leftovers(client, self.log, self.report.fail)

    async def _await_followers(self, log: Log, followers: list[Worker]) -> None:
        tail = await log.tail()
        names = [follower.job.settings["cursor"] for follower in followers]
        positions: dict[str, int] = {}
        for _ in range(CATCH_UP_S * 10):
            positions = {cursor.name: cursor.position for cursor in await log.cursors()}
            if all(positions[name] >= tail for name in names):
                return
            if any([await self.workers.has_failed(follower) for follower in followers]):
                break
            await asyncio.sleep(0.1)
        self.report.fail("I7", f"followers stand at {positions}, the tail is {tail}")

    async def _clean(self, client: wp.Client) -> None:
        """Do all background work; it must come to an end."""
        for _ in range(SWEEPS):
            await client.run_background(self.log)
            log = await client.open_log(self.log)
            states = {segment.state for segment in (await log.describe()).segments}
            if State.CLOSED not in states:  # an empty OPEN one may stand ready after a roll
                return
            await asyncio.sleep(0.1)
        self.report.fail("I9", "segments stay unsealed however often background work is done")

    async def _read(self, log: Log) -> Final:
        first = (await log.describe()).trim_point
        items = [item_of(entry) async for entry in log.read()]
        return Final(first=first, items=tuple(items))

    async def _judge(self, log: Log, final: Final, *, is_whole: bool) -> None:
        try:
            await log.verify()
        except wp.WoodpeckerError as error:
            self.report.fail("I6", f"verify: {error}")
        history = await asyncio.to_thread(self.history)
        self.report.violations += await asyncio.to_thread(check, history, final, is_whole=is_whole)
        self.judge_notes(history)
        description = await log.describe()
        self._count(history, final, description)

    def judge_notes(self, history: History) -> None:
        """No process may have met a bug or damage."""
        for text, processes in _mishaps(history).items():
            who = f"{processes[0]} and {len(processes) - 1} others"
            self.report.fail("errors", f"{who}: {text}")

    def _count(self, history: History, final: Final, description: Any) -> None:
        counts = self.report.counts
        appends = history.of("append")
        counts["entries in the log"] += final.end
        counts["entries acknowledged"] += sum(len(a.call.items) for a in appends if a.is_ok)
        for outcome in ("unknown", "refused", "not_written"):
            found = sum(len(a.call.items) for a in appends if a.outcome == outcome)
            counts[f"entries {outcome}"] += found
        counts["take-overs"] += sum(op.is_ok for op in history.of("open"))
        counts["trims"] += sum(op.is_ok for op in history.of("trim"))
        counts["answers of resolve"] += len(history.of("resolve"))
        counts["entries shown to readers"] += sum(
            len(seen.items) for view in history.views for seen in view.seen
        )
        counts["processes"] = self.workers.started
        counts["segments"] += description.segments[-1].id + 1 if description.segments else 0
        for note in history.notes:
            counts[f"note {note.what}"] += 1


def _mishaps(history: History) -> dict[str, list[str]]:
    """What must not be met, to the processes that met it."""
    found: dict[str, list[str]] = {}
    for note in history.notes:
        if note.what in ("failed", "corrupt"):
            found.setdefault(f"{note.what}: {note.text[-MISHAP_CHARS:]}", []).append(note.process)
    return found


@asynccontextmanager
async def arena(
    title: str, place: Place, directory: Path, *, seed: int, command: str
) -> AsyncIterator[Arena]:
    """Everything a run needs, ended whatever happens."""
    started = time.monotonic()
    report = Report(title=title, seed=seed, command=command)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(place)
        workers = await stack.enter_async_context(Workers(directory))
        yield Arena(
            directory=directory,
            place=place,
            workers=workers,
            rng=random.Random(seed),
            report=report,
        )
        report.seconds = time.monotonic() - started


def say(text: str) -> None:
    """Tell the person who runs it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
