"""Observer for Prometheus.

Counters, gauges and histograms of ``names.py`` as ``woodpecker_*``; each event is counted in
``woodpecker_events_total{event=}``. Labels that a name does not declare are an error of ours.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import prometheus_client as client

from woodpecker.observability.base import Field
from woodpecker.observability.names import Counter, Event, Gauge, Histogram, Span

PREFIX = "woodpecker_"
_MS_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10_000, 60_000)
_BYTES_BUCKETS = tuple(float(1 << power) for power in range(9, 29, 2))  # 512 B to 128 MiB


class PrometheusObserver:
    """Registers every metric at once; make one per registry."""

    def __init__(self, registry: client.CollectorRegistry = client.REGISTRY) -> None:
        self._counters = {
            name: client.Counter(PREFIX + name, name.meaning, name.labels, registry=registry)
            for name in Counter
        }
        self._gauges = {
            name: client.Gauge(PREFIX + name, name.meaning, name.labels, registry=registry)
            for name in Gauge
        }
        self._histograms = {
            name: client.Histogram(
                PREFIX + name,
                name.meaning,
                name.labels,
                buckets=_MS_BUCKETS if name.unit == "ms" else _BYTES_BUCKETS,
                registry=registry,
            )
            for name in Histogram
        }
        self._events = client.Counter(
            PREFIX + "events", "rare events by name", ("event",), registry=registry
        )

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Add to ``woodpecker_<name>_total``."""
        metric = self._counters[name]
        (metric.labels(**labels) if name.labels else metric).inc(n)

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        """Set ``woodpecker_<name>``."""
        metric = self._gauges[name]
        (metric.labels(**labels) if name.labels else metric).set(value)

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        """Add to the buckets of ``woodpecker_<name>``."""
        metric = self._histograms[name]
        (metric.labels(**labels) if name.labels else metric).observe(value)

    def event(self, name: Event, **fields: Field) -> None:
        """Count it; its fields are not labels, they have too many values."""
        self._events.labels(event=name.value).inc()

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        """Prometheus has no spans."""
        return nullcontext()
