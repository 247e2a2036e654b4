"""Many seeds: in several processes, counted together; a run that injected too little has failed."""

from __future__ import annotations

import gc
import logging
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from woodpecker.testing.sim.mutants import planted
from woodpecker.testing.sim.plan import STREAM
from woodpecker.testing.sim.run import Result, run_seed
from woodpecker.testing.sim.weather import Fault
from woodpecker.testing.stream_sim.plan import STRIKES as STREAM_STRIKES

LONG_ENOUGH = 300  # seeds, after which every kind of fault must have struck
AT_ONCE = 8  # seeds that a process takes
SHOWN_CHARS = 2_000
MEMORY_BYTES = 3 << 30  # of a process, address space
ACTIONS = (  # what the protocol must have done in a run that is long enough
    "takeovers",
    "fenced",
    "rolls",
    "sealed",
    "trims",
    "gc_deleted",
    "manifest: closed by its writer",
    "manifest: closed by a stranger",
    "manifest: empty segment dropped",
    "manifest: segments dropped",
    "manifest: paged",
    "manifest: log ended",
    "log_deleted",
    "create block again",
    "create mark: already_exists",
    "create block: already_exists",
    "put manifest: conflict",
    "resolve ok",
    "resolve not_written",
    "resolve unknown",
    "append ok",
    "append refused",
    "append not_written",
    "append unknown",
)

STREAM_ACTIONS = (  # the same, of a streaming service
    "takeovers",
    "fenced",
    "message acknowledged",
    "transaction committed",
    "transaction given up",
    "read point",
    "operator: move",
    "operator: drain",
    "send failed: fenced, not written",
    "send failed: outcome_unknown, unknown",
    "broadcast done",
    "broadcast repeated",
    "channel deleted",
    "ephemeral shown",
    "log trimmed",
    "subscriber ended: fenced",
)


@dataclass(slots=True, kw_only=True)
class Campaign:
    """What many seeds did and found."""

    kind: str = "any"
    seeds: int = 0
    failed: list[Result] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    longest: Result | None = None
    virtual_s: float = 0.0
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        """Count one more seed."""
        self.seeds += 1
        self.injected.update(result.injected)
        self.coverage.update(result.coverage)
        self.cpu_s += result.cpu_s
        self.virtual_s += result.virtual_s
        if self.longest is None or result.cpu_s > self.longest.cpu_s:
            self.longest = result
        if not result.is_good:
            self.failed.append(result)

    @property
    def missing(self) -> list[str]:
        """Faults that never struck and actions that never happened, if the run was long enough."""
        if self.seeds < LONG_ENOUGH:
            return []
        faults: Sequence[Fault] = tuple(Fault)
        actions: Sequence[str] = ACTIONS
        if self.kind == STREAM:
            faults, actions = STREAM_STRIKES, STREAM_ACTIONS
        missing = [fault for fault in faults if not self.injected[fault]]
        return [*missing, *(action for action in actions if not self.coverage[action])]

    @property
    def is_good(self) -> bool:
        """Nothing was broken, and enough was tried."""
        return not self.failed and not self.missing

    def __str__(self) -> str:
        lines = ["faults injected"]
        lines += [f"  {count:11,}  {what}" for what, count in sorted(self.injected.items())]
        lines.append("what happened")
        lines += [f"  {count:11,}  {what}" for what, count in sorted(self.coverage.items())]
        lines += [f"NEVER HAPPENED: {what}" for what in self.missing]
        minutes = max(self.seconds, 1e-9) / 60
        lines.append(
            f"{self.seeds:,} seeds in {self.seconds:.0f} s ({self.seeds / minutes:,.0f} a minute), "
            f"{self.cpu_s / max(1, self.seeds):.3f} CPU s and {self.virtual_s / max(1, self.seeds):.0f} "
            f"virtual s a seed; {len(self.failed)} failed"
        )
        if self.longest is not None:
            lines.append(f"longest: seed {self.longest.seed}, {self.longest.cpu_s:.2f} CPU s")
        return "\n".join(lines)


def command(seed: int, kind: str, mutant: str = "") -> str:
    """What replays a seed."""
    more = f" --kind {kind}" if kind != "any" else ""
    more += f" --mutant {mutant}" if mutant else ""
    return f"woodpecker sim run --first {seed} --seeds 1{more} --trace"


def told(result: Result, kind: str, mutant: str = "") -> str:
    """A failed seed for a person."""
    lines = [f"seed {result.seed} FAILED"]
    lines += [f"  {violation[:SHOWN_CHARS]}" for violation in result.violations[:10]]
    if len(result.violations) > 10:
        lines.append(f"  and {len(result.violations) - 10} more")
    lines.append(f"  replay: {command(result.seed, kind, mutant)}")
    return "\n".join(lines)


def run_many(
    first: int,
    count: int,
    *,
    kind: str = "any",
    jobs: int = 1,
    mutant: str = "",
    stop_at_failure: bool = False,
    seconds: float | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Campaign:
    """Run seeds ``first`` up to ``first + count``; ``say`` gets each failure as it is found.

    Args:
        seconds: end after this long, however many seeds are left.
    """
    campaign, began_s = Campaign(kind=kind), time.monotonic()
    for result in _results(range(first, first + count), kind, jobs, mutant):
        campaign.add(result)
        if not result.is_good:
            say(told(result, kind, mutant))
            if stop_at_failure:
                break
        if seconds is not None and time.monotonic() - began_s > seconds:
            break
    campaign.seconds = time.monotonic() - began_s
    return campaign


def _results(seeds: range, kind: str, jobs: int, mutant: str) -> Iterator[Result]:
    if jobs <= 1:
        for seed in seeds:
            yield from run_some([seed], kind, mutant)
        return
    some = [seeds[at : at + AT_ONCE] for at in range(0, len(seeds), AT_ONCE)]
    with ProcessPoolExecutor(min(jobs, os.cpu_count() or 1), initializer=prepare_process) as pool:
        try:
            for results in pool.map(partial(run_some, kind=kind, mutant=mutant), some):
                yield from results
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def prepare_process() -> None:
    """A process that does nothing but run seeds: little memory, so that one that eats it fails alone (the
    collector rests while a seed runs), and no warnings of drivers about faults that were meant.
    """
    logging.getLogger("woodpecker").setLevel(logging.CRITICAL + 1)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def run_some(seeds: Sequence[int], kind: str, mutant: str) -> list[Result]:
    """A few seeds in this process."""
    if not gc.get_freeze_count():  # once: what is loaded stays, collections need not look at it;
        gc.freeze()  # frozen again and again, what a seed left behind would stay for ever
    with planted(mutant):
        return [run_seed(seed, kind=kind) for seed in seeds]
