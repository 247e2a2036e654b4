"""The arithmetic of measuring: slices, percentiles, ratios of pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

QUANTILES = {"p10_ms": 0.1, "p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


@dataclass(slots=True, kw_only=True)
class Slice:
    """What one stretch of work did; latencies in seconds, in any order."""

    entries: int = 0
    bytes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    servers_cpu_seconds: float = 0.0  # of other processes, where they are known
    latencies: list[float] = field(default_factory=list)

    @property
    def mb_s(self) -> float:
        """Megabytes (10^6) a second."""
        return self.bytes / self.seconds / 1e6 if self.seconds else 0.0


def percentile(ascending: Sequence[float], quantile: float) -> float:
    """The smallest value that at least ``quantile`` of all values do not exceed (nearest rank)."""
    if not ascending:
        return 0.0
    rank = math.ceil(quantile * len(ascending))
    return ascending[min(len(ascending), max(1, rank)) - 1]


def latency_figures(latencies: Sequence[float]) -> dict[str, float]:
    """Percentiles in milliseconds of latencies in seconds; empty if there are none."""
    if not latencies:
        return {}
    ascending = sorted(latencies)
    return {name: percentile(ascending, q) * 1e3 for name, q in QUANTILES.items()}


def total(slices: Sequence[Slice]) -> Slice:
    """All slices as one."""
    return Slice(
        entries=sum(one.entries for one in slices),
        bytes=sum(one.bytes for one in slices),
        seconds=sum(one.seconds for one in slices),
        cpu_seconds=sum(one.cpu_seconds for one in slices),
        servers_cpu_seconds=sum(one.servers_cpu_seconds for one in slices),
        latencies=[latency for one in slices for latency in one.latencies],
    )


def rate_figures(slices: Sequence[Slice]) -> dict[str, float]:
    """Throughput (median over slices), processor time per volume, latencies of all slices."""
    done = [one for one in slices if one.seconds > 0]
    if not done:
        return {}
    whole = total(done)
    figures = {
        "mb_s": median(one.mb_s for one in done),
        "entries_s": median(one.entries / one.seconds for one in done),
    }
    if whole.bytes and whole.cpu_seconds:
        figures["cpu_s_per_gb"] = whole.cpu_seconds / (whole.bytes / 1e9)
    if whole.bytes and whole.servers_cpu_seconds:
        figures["servers_cpu_s_per_gb"] = whole.servers_cpu_seconds / (whole.bytes / 1e9)
    return figures | latency_figures(whole.latencies)


def pair_ratio(ours: Sequence[float], limits: Sequence[float]) -> float:
    """Median of the ratios of slices that ran one after the other; 0 where nothing was measured."""
    ratios = [one / limit for one, limit in zip(ours, limits, strict=True) if limit > 0]
    return median(ratios) if ratios else 0.0


def change(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    """By how much each figure in both has changed: 0.1 is ten per cent more."""
    return {
        name: new[name] / old[name] - 1 for name in new if name in old and old[name] not in (0, 0.0)
    }
