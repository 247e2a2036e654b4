"""``bench guard``: ratios of a short run beside those of a baseline that is kept in the repository.

Only ratios to a limit of the same run are compared, never times, and each is turned so that more is better:
a busy machine slows both sides. A part that has fallen below half of its baseline is measured a second time,
and the better of the two counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from woodpecker.bench import append, loads, read
from woodpecker.bench.append import Say
from woodpecker.bench.figures import Slice, pair_ratio
from woodpecker.bench.machine import cpu_seconds, now
from woodpecker.bench.pairs import Plan, measure
from woodpecker.bench.payloads import Payloads
from woodpecker.bench.report import Row
from woodpecker.bench.servers import started
from woodpecker.bench.target import Target, open_target

COLLAPSE, WARNING = 0.5, 0.8  # parts of the baseline
FULL_BLOCKS_PER_GIB = 256
BYTES, SMALL_BYTES, READ_BYTES = 16_384, 100, 64 << 20
PLAN = Plan(pairs=7, seconds=0.35)

Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One score beside its baseline."""

    name: str
    was: float
    score: float

    @property
    def part(self) -> float:
        """Of the baseline."""
        return self.score / self.was

    @property
    def is_collapse(self) -> bool:
        """Below half: no noise explains it."""
        return self.part < COLLAPSE

    def __str__(self) -> str:
        word = "COLLAPSED" if self.is_collapse else "WARNING" if self.part < WARNING else "ok"
        change = f"{self.part - 1:+.0%}"
        return f"{word:<10} {self.name:<36} {self.was:8.3f} -> {self.score:8.3f}  {change}"


async def run(base: str, was: Mapping[str, float], say: Say, *, plan: Plan = PLAN) -> Scores:
    """Measure in scratch stores below ``base``; what has collapsed beside ``was`` once more."""
    scores: Scores = {}
    for part in PARTS:
        found = await part(base, plan, say)
        if any(verdict.is_collapse for verdict in judged(was, found)):
            say("once more")
            found = _each(max, found, await part(base, plan, say))
        scores |= found
    return scores


async def baseline(base: str, say: Say, *, plan: Plan = PLAN) -> list[Row]:
    """The lower of two runs, as rows of a report."""
    scores = _each(min, await run(base, {}, say, plan=plan), await run(base, {}, say, plan=plan))
    return [Row(name=name, figures={}, ratio=score) for name, score in scores.items()]


def _each(choose: Callable[[float, float], float], one: Scores, other: Scores) -> Scores:
    return {name: choose(score, other[name]) for name, score in one.items()}


def judged(was: Mapping[str, float], scores: Mapping[str, float]) -> list[Verdict]:
    """Scores that have a baseline."""
    return [Verdict(name, was[name], score) for name, score in scores.items() if was.get(name)]


def ratios(rows: Sequence[Row]) -> Scores:
    """Ratios by name."""
    return {row.name: row.ratio for row in rows if row.ratio is not None}


async def _file(base: str, plan: Plan, say: Say) -> Scores:
    async with open_target(base) as target:
        found = await _appended(target, plan, say)
        wanted = read.ReadPlan(
            pairs=plan.pairs, volume_bytes=READ_BYTES, sizes=(BYTES,), ways=("batches",)
        )
        rows = await read.run(target, wanted, say)
        say("processor time of an entry")
        cpu = await _cpu(target, plan)
    return _named("file", {**found, "reading": rows[0].ratio or 0.0, "processor time": cpu})


async def _object(_base: str, plan: Plan, say: Say) -> Scores:
    async with (
        started("localbucket") as place,
        open_target(place.store, place.storage) as target,
    ):
        return _named("object", await _appended(target, plan, say))


async def _quorum(base: str, plan: Plan, say: Say) -> Scores:
    async with open_target(base, nodes=3) as target:
        return _named("quorum", await _appended(target, plan, say))


PARTS: tuple[Callable[[str, Plan, Say], Awaitable[Scores]], ...] = (_file, _object, _quorum)


async def _appended(target: Target, plan: Plan, say: Say) -> Scores:
    wanted = append.AppendPlan(plan=plan, sizes=(BYTES,), modes=("many",), in_flight=(1,))
    _, throughput, latency = await append.run(target, wanted, say)
    # a tenth of all writes meet nobody else even on a busy machine: medians there are the others' work
    alone = latency.limit["p10_ms"] / latency.figures["p10_ms"]
    found = {"throughput": throughput.ratio or 0.0, "one at a time": alone}
    puts = throughput.figures.get("puts_per_gib")
    if puts:
        found["full blocks of all PUTs"] = FULL_BLOCKS_PER_GIB / puts
    return found


async def _cpu(target: Target, plan: Plan) -> float:
    """Entries for the processor time of a plain loop of Python that makes as many."""
    async with target.connect(background=False) as client:
        log = await target.create_log(client, "bench-cpu")
        async with await log.open_writer() as writer:
            payloads = Payloads(SMALL_BYTES)

            async def ours(seconds: float) -> Slice:
                return await loads.submit(writer, payloads, seconds)

            pairs = await measure(ours, _plain_loop, plan)
    return pair_ratio(*([_per_cpu(one) for one in side] for side in (pairs.ours, pairs.limits)))


async def _plain_loop(seconds: float) -> Slice:
    """The yardstick for processor time: what a loop of two appends and an addition does."""
    done, cpu, begin = Slice(), cpu_seconds(), now()
    while now() - begin < seconds / 4:
        one, two, total = list[int](), list[int](), 0
        for number in range(10_000):
            one.append(number)
            two.append(number)
            total += number
        done.entries += len(one)
    done.seconds, done.cpu_seconds = now() - begin, cpu_seconds() - cpu
    return done


def _per_cpu(one: Slice) -> float:
    return one.entries / one.cpu_seconds if one.cpu_seconds else 0.0


def _named(kind: str, scores: Scores) -> Scores:
    """Above 1 is noise: nothing is quicker than its limit."""
    return {f"{kind}: {name}": min(1.0, score) for name, score in scores.items()}
