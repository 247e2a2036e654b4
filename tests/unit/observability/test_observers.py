"""Each observer takes every name, with the labels and fields the name declares."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from woodpecker.observability.base import SILENT, Observer
from woodpecker.observability.logging import LoggingObserver
from woodpecker.observability.names import FAMILIES, Counter, Event, Gauge, Histogram, Name, Span
from woodpecker.observability.otel import OtelObserver
from woodpecker.observability.prometheus import PrometheusObserver
from woodpecker.observability.several import Several

ROOT = Path(__file__).resolve().parents[3]


def use_everything(observer: Observer) -> None:
    for counter in Counter:
        observer.count(counter, 2, **dict.fromkeys(counter.labels, "x"))
    for gauge in Gauge:
        observer.gauge(gauge, 7, **dict.fromkeys(gauge.labels, "x"))
    for histogram in Histogram:
        observer.observe(histogram, 3.5, **dict.fromkeys(histogram.labels, "x"))
    for span in Span:
        with observer.span(span, **dict.fromkeys(span.labels, "x")):
            pass
    with observer.span(Span.OPEN_WRITER, log="orders"):
        for event in Event:
            observer.event(event, **dict.fromkeys(event.labels, "x"))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_silent_takes_everything_and_spans_do_not_swallow_errors() -> None:
    use_everything(SILENT)
    with pytest.raises(ZeroDivisionError), SILENT.span(Span.GC, log="a"):
        raise ZeroDivisionError


def test_prometheus_shows_every_metric(registry: CollectorRegistry) -> None:
    use_everything(PrometheusObserver(registry))
    for counter in Counter:
        labels = dict.fromkeys(counter.labels, "x")
        assert registry.get_sample_value(f"woodpecker_{counter}_total", labels) == 2
    for gauge in Gauge:
        labels = dict.fromkeys(gauge.labels, "x")
        assert registry.get_sample_value(f"woodpecker_{gauge}", labels) == 7
    for histogram in Histogram:
        labels = dict.fromkeys(histogram.labels, "x")
        assert registry.get_sample_value(f"woodpecker_{histogram}_sum", labels) == 3.5
    for event in Event:
        assert registry.get_sample_value("woodpecker_events_total", {"event": event.value}) == 1


def test_otel_records_metrics_spans_and_events() -> None:
    reader = InMemoryMetricReader()
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = MeterProvider(metric_readers=[reader])
    use_everything(OtelObserver(meter_provider=meter_provider, tracer_provider=tracer_provider))

    data = reader.get_metrics_data()
    assert data is not None
    scope = data.resource_metrics[0].scope_metrics[0]
    units = {metric.name: metric.unit for metric in scope.metrics}
    expected = {f"woodpecker.{n}": n.unit for family in (Counter, Gauge, Histogram) for n in family}
    assert units == expected
    spans = exporter.get_finished_spans()
    assert {span.name for span in spans} == {f"woodpecker.{name}" for name in Span}
    assert [event.name for event in spans[-1].events] == [f"woodpecker.{name}" for name in Event]
    assert spans[-1].attributes == {"log": "orders"}
    meter_provider.shutdown()
    tracer_provider.shutdown()


def test_logging_writes_events_at_their_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="woodpecker")
    use_everything(LoggingObserver("writer"))
    assert {record.name for record in caplog.records} == {"woodpecker.writer"}
    assert [record.levelname.lower() for record in caplog.records] == [e.unit for e in Event]
    LoggingObserver().event(Event.TRIMMED, log="orders", before=7)
    assert caplog.records[-1].getMessage() == "trimmed log=orders before=7"
    assert vars(caplog.records[-1])["fields"] == {"log": "orders", "before": 7}


def test_several_pass_everything_on(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="woodpecker")
    use_everything(Several(PrometheusObserver(registry), LoggingObserver()))
    assert registry.get_sample_value("woodpecker_fenced_total") == 2
    assert registry.get_sample_value("woodpecker_takeover_ms_sum", {"kind": "x"}) == 3.5
    assert registry.get_sample_value("woodpecker_queue_bytes") == 7
    assert len(caplog.records) == len(Event)


def test_without_the_extra_the_error_names_it() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from woodpecker.errors import InvalidRequest\n"
        "try: import woodpecker.observability.otel\n"
        "except InvalidRequest as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "pip install 'woodpecker-wal[otel]'" in done.stdout


@pytest.mark.parametrize(
    "says",
    [
        (
            "from woodpecker.observability.logging import Event, LoggingObserver\n"
            "LoggingObserver().event(Event.CORRUPT, log='a', where='b')\n"
        ),
        "import woodpecker.client.patience as it\nit._log.warning('still trying')\n",
    ],
    ids=["observer", "driver"],
)
def test_importing_the_library_prints_and_configures_nothing(says: str) -> None:
    program = f"import logging\n{says}assert not logging.getLogger().handlers\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_names_are_distinct_and_explained(family: type[Name]) -> None:
    assert len({name.value for name in family}) == len(family.__members__)
    for name in family:
        assert name.meaning
        assert name.value == name.value.lower()
    assert all(event.unit in {"debug", "info", "warning", "error"} for event in Event)


def test_the_document_lists_every_name_exactly_as_it_is() -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    text = text.partition("## HTTP of a node")[0]  # that part: tests/unit/logstore/test_metrics.py
    tables = text[text.index("## Counters") :]
    rows = [line for line in tables.splitlines() if line.startswith("| `")]
    expected = []
    for family in FAMILIES:
        for name in family:
            labels = ", ".join(name.labels) or "-"
            expected.append(f"| `{name.value}` | {name.unit or '-'} | {labels} | {name.meaning} |")
    assert rows == expected
