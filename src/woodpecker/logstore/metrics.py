"""Metrics of a node for Prometheus, made from its status (``/status``) whenever they are asked for.

Series with the name of a log are bounded: the ``MAX_LOGS`` logs with most un-sealed bytes have theirs, all others
together are ``log="(others)"``, a name that no log can have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

PREFIX = "woodpecker_logstore_"
MAX_LOGS = 100
OTHERS = "(others)"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; ``path`` leads to its value in the status, counters grow from the start of the process."""

    name: str
    meaning: str
    path: str = ""
    unit: str = ""
    is_counter: bool = False
    labels: tuple[str, ...] = ()


NODE = (
    Metric(name="ready", path="ready", meaning="1 while the node can be used"),
    Metric(name="boot", path="boot", meaning="number of this start"),
    Metric(
        name="pressure", path="pressure",
        meaning="0 fine, 1 above the soft watermark, 2 above the hard one: refuses blocks",
    ),
    Metric(
        name="beat_age_ms", path="beat_age_ms", unit="ms",
        meaning="since the metadata store last took its sign of life",
    ),
    Metric(name="connections", path="connections", unit="connections", meaning="of clients"),
    Metric(
        name="unanswered_bytes", path="unanswered_bytes", unit="bytes",
        meaning="requests taken and not answered yet",
    ),
    Metric(
        name="queue_records", path="queue.records", unit="records", meaning="waiting for the disk"
    ),
    Metric(name="queue_bytes", path="queue.bytes", unit="bytes", meaning="waiting for the disk"),
    Metric(
        name="syncs", path="sync.count", unit="syncs", is_counter=True,
        meaning="writes of the journal, each synced",
    ),
    Metric(
        name="journal_files", path="journal.files", unit="files", meaning="journal files on the disk"
    ),
    Metric(name="journal_bytes", path="journal.bytes", unit="bytes", meaning="size of these files"),
    Metric(
        name="journal_live_bytes", path="journal.live_bytes", unit="bytes",
        meaning="what in them is still needed",
    ),
    Metric(
        name="disk_used_bytes", path="disk.used_bytes", unit="bytes",
        meaning="what the watermarks are compared with",
    ),
    Metric(
        name="disk_room_bytes", path="disk.room_bytes", unit="bytes",
        meaning="what the journal could use in all",
    ),
    Metric(
        name="unsealed_segments", path="unsealed.segments", unit="segments",
        meaning="copies with blocks that are not known to be sealed",
    ),
    Metric(name="unsealed_bytes", path="unsealed.bytes", unit="bytes", meaning="their blocks"),
    Metric(name="copies", path="copies", unit="copies", meaning="copies of segments, fences included"),
    Metric(name="logs", path="logs", unit="logs", meaning="logs with anything here"),
    Metric(name="cache_bytes", path="cache.bytes", unit="bytes", meaning="newest blocks in memory"),
    Metric(
        name="waiting_readers", path="readers.waiting", unit="requests",
        meaning="reads that wait for the next block",
    ),
    Metric(
        name="blocks_read_from_memory", path="readers.blocks_from_memory", unit="blocks",
        is_counter=True, meaning="given to readers from memory",
    ),
    Metric(
        name="blocks_read_from_disk", path="readers.blocks_from_disk", unit="blocks",
        is_counter=True, meaning="given to readers from the disk",
    ),
    Metric(
        name="blocks_appended", path="counts.appended", unit="blocks", is_counter=True,
        meaning="taken from writers",
    ),
    Metric(
        name="blocks_repaired", path="counts.repaired", unit="blocks", is_counter=True,
        meaning="taken from recoverers",
    ),
    Metric(
        name="fences", path="counts.fenced", unit="segments", is_counter=True,
        meaning="segments fenced here",
    ),
    Metric(
        name="refused", path="counts.refused", unit="requests", is_counter=True,
        meaning="requests refused, a fenced writer's included",
    ),
)  # fmt: skip

INFO = Metric(
    name="info", labels=("node", "incarnation", "zone", "group", "state", "version"),
    meaning="always 1; who the node is and what it is to do",
)  # fmt: skip
SYNC = Metric(
    name="sync_ms", labels=("quantile",), unit="ms",
    meaning="one write and sync of the journal: median, p99 and longest (1) of the newest 1024",
)  # fmt: skip
LOGS = (
    Metric(
        name="log_unsealed_bytes", path="unsealed_bytes", unit="bytes", labels=("log",),
        meaning="blocks of the log that this node holds",
    ),
    Metric(
        name="log_lac_block", path="newest.lac", unit="block", labels=("log",),
        meaning="last block of its newest segment that is confirmed, as far as is known here",
    ),
    Metric(
        name="log_lag_blocks", path="lag_blocks", unit="blocks", labels=("log",),
        meaning="confirmed blocks of that segment that this copy does not have on its disk",
    ),
    Metric(
        name="log_fenced_segments", path="fenced", unit="segments", labels=("log",),
        meaning="segments of the log that were ended by a taker-over and are still held",
    ),
)  # fmt: skip
ALL = (INFO, *NODE, SYNC, *LOGS)
_QUANTILES = {"0.5": "p50_ms", "0.99": "p99_ms", "1": "max_ms"}


def page(status: Status, registry: CollectorRegistry) -> bytes:
    """The text that Prometheus reads: what observers counted (``registry``), then the node itself."""
    own = CollectorRegistry()
    own.register(_StatusCollector(status))
    return generate_latest(registry) + generate_latest(own)


class _StatusCollector(Collector):
    """Knows one status, and is asked once."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """All metrics that have a value."""
        status = self._status
        info = _family(INFO)
        info.add_metric([str(status.get(label) or "") for label in INFO.labels], 1)
        yield info
        for metric in NODE:
            value = _at(status, metric.path)
            if value is not None:
                family = _family(metric)
                family.add_metric([], float(value))
                yield family
        sync = _family(SYNC)
        for quantile, key in _QUANTILES.items():
            value = _at(status, f"sync.{key}")
            if value is not None:
                sync.add_metric([quantile], float(value))
        yield sync
        yield from self._logs()

    def _logs(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        logs: Sequence[Status] = self._status.get("largest_logs", ())
        shown = sorted(logs, key=lambda log: log["unsealed_bytes"], reverse=True)[:MAX_LOGS]
        for metric in LOGS:
            family = _family(metric)
            for log in shown:
                family.add_metric([log["log"] or log["log_id"]], float(_at(log, metric.path) or 0))
            if metric.name == "log_unsealed_bytes" and self._status.get("logs", 0) > len(shown):
                total = _at(self._status, "unsealed.bytes") or 0
                family.add_metric([OTHERS], total - sum(log["unsealed_bytes"] for log in shown))
            yield family


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily:
    make = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
    return make(PREFIX + metric.name, metric.meaning, labels=metric.labels)


def _at(facts: Status, path: str) -> Any:  # noqa: ANN401  a number or None
    value: Any = facts
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
