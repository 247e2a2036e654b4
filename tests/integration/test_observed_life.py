"""Every name that is documented is really reported, and the figures are those of what was done."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

import woodpecker as wp
from woodpecker.observability.base import Field, Observer
from woodpecker.observability.names import FAMILIES, Counter, Event, Gauge, Histogram, Name, Span
from woodpecker.observability.otel import OtelObserver
from woodpecker.observability.prometheus import PrometheusObserver

BIG = 40_000
MODES = ["file", "object"]


class Recorder:
    """Remembers everything, and that every call has just the labels its name declares."""

    def __init__(self) -> None:
        self.counts: Tally[Name] = Tally()
        self.by_labels: Tally[tuple[Name, str]] = Tally()
        self.levels: dict[tuple[Name, str], list[float]] = {}
        self.values: dict[Name, list[float]] = {}
        self.events: list[tuple[Event, dict[str, Field]]] = []
        self.spans: list[tuple[Span, str]] = []

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        assert set(labels) == set(name.labels), name
        assert n >= 0
        self.counts[name] += n
        self.by_labels[name, " ".join(labels.values())] += n

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        assert set(labels) == set(name.labels), name
        self.levels.setdefault((name, " ".join(labels.values())), []).append(value)

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        assert set(labels) == set(name.labels), name
        self.values.setdefault(name, []).append(value)

    def event(self, name: Event, **fields: Field) -> None:
        assert set(fields) == set(name.labels), name
        self.events.append((name, fields))

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        assert set(fields) == set(name.labels), name
        return self._span(name)

    @contextmanager
    def _span(self, name: Span) -> Iterator[None]:
        result = "failed"
        try:
            yield
            result = "ok"
        finally:
            self.spans.append((name, result))

    @property
    def seen(self) -> set[Name]:
        return {
            *self.counts,
            *(name for name, _ in self.levels),
            *self.values,
            *(name for name, _ in self.events),
            *(name for name, _ in self.spans),
        }


async def live(store: Path, mode: str, observer: Observer) -> None:
    """One log from creation to deletion: 13 entries, 3 writers, one fenced, a damaged object."""
    async with wp.connect(store, observer=observer, background=False) as client:
        log = await client.create_log("orders", mode=mode, segment_max_bytes=64 << 10)
        first = await log.open_writer()
        for _ in range(5):
            await first.append(bytes(BIG))
        # a writer that is closed makes a roll that is only being prepared needless
        while (await log.describe()).segment_count < 2:
            await client.environment.runtime.sleep_ms(10)
        await first.append(bytes(BIG))
        second = await log.open_writer()  # recovers the open segment
        await second.append_many([b"seven", b"eight"])
        with pytest.raises(wp.Fenced):
            await first.append(b"never")
        await first.close()
        await second.close()
        assert len([entry async for entry in log.read()]) == 8
        await client.run_background()
        await log.verify()
        await log.trim(before=4)
        await client.run_background()
        async with await log.open_writer() as third:
            await third.append_many([b""] * 5)
        await client.run_background()
        victim = max((store / "objects" / log.log_id / "sealed").iterdir())
        sound = victim.read_bytes()
        victim.chmod(0o600)
        victim.write_bytes(sound[:100] + b"!" + sound[101:])
        with pytest.raises(wp.Corrupt):
            await log.verify()
        await client.delete_log("orders")


@pytest.mark.parametrize("mode", MODES)
async def test_the_figures_of_a_life(tmp_path, monkeypatch, mode):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    seen = Recorder()
    await live(tmp_path / "store", mode, seen)
    counts = seen.counts
    assert counts[Counter.APPENDS] == 13
    assert counts[Counter.APPENDED_BYTES] == 6 * BIG + len(b"seveneight")
    assert counts[Counter.BLOCKS] == len(seen.values[Histogram.BLOCK_SIZE]) == 8
    assert counts[Counter.BLOCK_BYTES] == sum(seen.values[Histogram.BLOCK_SIZE]) > 6 * BIG
    assert len(seen.values[Histogram.APPEND_LATENCY]) == 8
    assert (counts[Counter.READ_ENTRIES], counts[Counter.READ_BYTES]) == (8, 6 * BIG + 10)
    assert counts[Counter.TAKEOVERS] == len(seen.values[Histogram.TAKEOVER]) == 3
    assert counts[Counter.FENCED] == 1
    assert counts[Counter.ROLLS] == seen.spans.count((Span.ROLL, "ok")) >= 1
    assert counts[Counter.SEALED] == len(seen.values[Histogram.SEAL]) >= 3
    assert counts[Counter.TRIMS] == 1
    assert counts[Counter.GC_DELETED] > 0
    assert seen.by_labels[Counter.STORE_REQUESTS, "write_stream ok"] > 0 or mode == "file"
    assert seen.by_labels[Counter.METADATA_REQUESTS, "put ok"] > 10
    assert len(seen.values[Histogram.METADATA_LATENCY]) == counts[Counter.METADATA_REQUESTS]
    events = Tally(name for name, _ in seen.events)
    assert events[Event.WRITER_OPENED] == 3
    assert events[Event.WRITER_FENCED] == events[Event.TRIMMED] == events[Event.DELETED] == 1
    assert events[Event.SEGMENT_RECOVERED] == events[Event.CORRUPT] == 1
    assert (Event.TRIMMED, {"log": "orders", "before": 4}) in seen.events
    assert Tally(seen.spans)[Span.RECOVER, "ok"] == 1
    assert Tally(seen.spans)[Span.VERIFY, "failed"] == 1
    assert max(seen.levels[Gauge.OPEN_WRITERS, ""]) == 2
    assert max(seen.levels[Gauge.QUEUE_BYTES, ""]) >= BIG
    assert all(levels[-1] == 0 for levels in seen.levels.values()), "all return to zero"


async def test_every_name_is_reported_sooner_or_later(tmp_path, monkeypatch):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    seen = Recorder()
    await live(tmp_path / "store", "object", seen)
    rare = {Event.WRITER_FAILED, Event.BACKGROUND_FAILED, Counter.BACKGROUND_ERRORS}
    rare |= {Event.NODE_STOPPED, Event.NODE_LOST}  # of LogStore nodes whose disks fail
    names = {name for family in FAMILIES for name in family}
    of_logs = {
        name for name in names if not name.startswith("stream_")
    }  # test_metrics.py of streaming
    assert of_logs - seen.seen == rare


@pytest.mark.parametrize("mode", MODES)
async def test_prometheus_and_opentelemetry_take_a_real_run(tmp_path, monkeypatch, mode):
    monkeypatch.setattr("woodpecker.app.is_local", lambda _: True)
    registry = CollectorRegistry()
    await live(tmp_path / "a", mode, PrometheusObserver(registry))
    assert registry.get_sample_value("woodpecker_appends_total", {"kind": mode}) == 13
    assert registry.get_sample_value("woodpecker_open_writers") == 0
    assert registry.get_sample_value("woodpecker_append_latency_ms_count", {"kind": mode}) == 8
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracers, meters = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    await live(tmp_path / "b", mode, OtelObserver(meter_provider=meters, tracer_provider=tracers))
    data = reader.get_metrics_data()
    assert data is not None
    found = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    points = found["woodpecker.appends"].data.data_points
    assert [getattr(point, "value", None) for point in points] == [13]
    names = {span.name for span in exporter.get_finished_spans()}
    assert names == {f"woodpecker.{name}" for name in Span}
    meters.shutdown()
    tracers.shutdown()
