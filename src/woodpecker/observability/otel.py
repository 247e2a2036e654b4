"""Observer for OpenTelemetry (``pip install 'woodpecker-wal[otel]'``): metrics, spans, span events.

Only the API is used: without an SDK set up by the application everything is a no-op.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from woodpecker.errors import InvalidRequest
from woodpecker.observability.base import Field
from woodpecker.observability.names import Counter, Event, Gauge, Histogram, Span

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise InvalidRequest(
        "the OpenTelemetry observer needs the package opentelemetry-api: "
        "pip install 'woodpecker-wal[otel]'"
    ) from error

PREFIX = "woodpecker."


class OtelObserver:
    """Instruments and spans named ``woodpecker.<name>``; providers default to the global ones."""

    def __init__(
        self,
        *,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        meter = metrics.get_meter("woodpecker", meter_provider=meter_provider)
        self._tracer = trace.get_tracer("woodpecker", tracer_provider=tracer_provider)
        self._counters = {
            name: meter.create_counter(PREFIX + name, name.unit, name.meaning) for name in Counter
        }
        self._gauges = {
            name: meter.create_gauge(PREFIX + name, name.unit, name.meaning) for name in Gauge
        }
        self._histograms = {
            name: meter.create_histogram(PREFIX + name, name.unit, name.meaning)
            for name in Histogram
        }

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Add to the counter."""
        self._counters[name].add(n, labels)

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        """Set the gauge."""
        self._gauges[name].set(value, labels)

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        """Record in the histogram."""
        self._histograms[name].record(value, labels)

    def event(self, name: Event, **fields: Field) -> None:
        """Add it to the current span, if there is one."""
        trace.get_current_span().add_event(PREFIX + name, fields)

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        """Open a span as the current one."""
        return self._span(name, fields)

    @contextmanager
    def _span(self, name: Span, fields: dict[str, Field]) -> Iterator[None]:
        with self._tracer.start_as_current_span(PREFIX + name, attributes=fields):
            yield
