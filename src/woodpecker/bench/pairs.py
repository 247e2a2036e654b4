"""Ours and the limit in turn, so that both meet the same noise of the machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from woodpecker.bench.figures import Slice, latency_figures, pair_ratio, rate_figures, total

WARM_UP_S = 0.2

Measure = Callable[[float], Awaitable[Slice]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure: ``pairs`` times a slice of each."""

    pairs: int
    seconds: float


@dataclass(slots=True)
class Pairs:
    """Slices of ours, of the limit, and of a second limit, in the order they were taken."""

    ours: list[Slice] = field(default_factory=list)
    limits: list[Slice] = field(default_factory=list)
    others: list[Slice] = field(default_factory=list)

    @property
    def throughput_ratio(self) -> float:
        """Of MB/s; 1 is the limit itself."""
        return pair_ratio([one.mb_s for one in self.ours], [one.mb_s for one in self.limits])

    @property
    def ratio_to_others(self) -> float:
        """Of MB/s, to the second limit."""
        return pair_ratio([one.mb_s for one in self.ours], [one.mb_s for one in self.others])

    @property
    def latency_ratio(self) -> float:
        """Of the median latency; 1 is the limit itself, 2 twice as slow."""
        ours = [_p50(one) for one in self.ours]
        return pair_ratio(ours, [_p50(one) for one in self.limits])

    def figures(self) -> dict[str, float]:
        """Of ours."""
        return rate_figures(self.ours)

    def limit_figures(self) -> dict[str, float]:
        """Of the limit."""
        return rate_figures(self.limits)

    @property
    def volume_bytes(self) -> int:
        """What ours has moved."""
        return total(self.ours).bytes


async def measure(
    ours: Measure, limit: Measure | None, plan: Plan, *, other: Measure | None = None
) -> Pairs:
    """Take the slices, after one short slice of ours that does not count."""
    wanted = {"limit": limit, "ours": ours, "other": other}
    measures = {name: take for name, take in wanted.items() if take is not None}
    found = await in_turn(measures, plan, warm_up=("ours",), warm_up_s=min(plan.seconds, WARM_UP_S))
    return Pairs(found["ours"], found.get("limit", []), found.get("other", []))


async def in_turn(
    measures: Mapping[str, Measure],
    plan: Plan,
    *,
    warm_up: Sequence[str],
    warm_up_s: float,
) -> dict[str, list[Slice]]:
    """One slice of each after the other, ``plan.pairs`` times; short ones that do not count before."""
    for name in warm_up:
        await measures[name](warm_up_s)
    found: dict[str, list[Slice]] = {name: [] for name in measures}
    for _ in range(plan.pairs):
        for name, take in measures.items():
            found[name].append(await take(plan.seconds))
    return found


def _p50(one: Slice) -> float:
    return latency_figures(one.latencies).get("p50_ms", 0.0)
