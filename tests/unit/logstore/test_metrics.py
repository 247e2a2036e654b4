"""The metrics page of a node: every metric has a value and a line in the document; series are bounded."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from woodpecker.logstore import metrics
from woodpecker.logstore.disk_files import DirectoryDisk
from woodpecker.logstore.node import Node
from woodpecker.logstore.settings import NodeSettings
from woodpecker.observability.prometheus import PrometheusObserver
from woodpecker.runtime.runtime import SystemRuntime

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "observability.md"
PROCESS = {"ready": True, "beat_age_ms": 5, "connections": 1, "unanswered_bytes": 0}


def _samples(page: bytes) -> dict[tuple[str, str], float]:
    """By name and value of the only label."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _log(number: int) -> dict[str, object]:
    newest = {"segment_id": 3, "last": 9, "synced": 7, "lac": 9}
    return {
        "log": f"log-{number:04d}", "log_id": "", "unsealed_bytes": number, "fenced": 1,
        "lag_blocks": 2, "newest": newest,
    }  # fmt: skip


async def test_every_metric_has_a_value_in_the_status_of_a_real_node(tmp_path: Path) -> None:
    settings = NodeSettings(node="n", file_bytes=1 << 20)
    node = await Node.open(DirectoryDisk(tmp_path / "disk"), SystemRuntime(), settings=settings)
    status = {**PROCESS, **node.status(), "largest_logs": [_log(1)]}
    await node.close()
    names = {name for name, _ in _samples(metrics.page(status, CollectorRegistry()))}
    for metric in metrics.ALL:
        assert metrics.PREFIX + metric.name + "_total" * metric.is_counter in names


def test_every_metric_is_in_the_document_and_no_other() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("## HTTP of a node")[2]
    for metric in metrics.ALL:
        labels = ", ".join(metric.labels) or "-"
        row = f"| `{metric.name}` | {metric.unit or '-'} | {labels} | {metric.meaning} |"
        assert row in text
    assert len({metric.name for metric in metrics.ALL}) == len(metrics.ALL)


def test_series_of_logs_are_bounded() -> None:
    logs = [_log(number) for number in range(1, 151)]
    status = {"logs": 2000, "unsealed": {"bytes": 100_000}, "largest_logs": logs}
    samples = _samples(metrics.page(status, CollectorRegistry()))
    unsealed = {
        log: value
        for (name, log), value in samples.items()
        if name == "woodpecker_logstore_log_unsealed_bytes"
    }
    assert len(unsealed) == metrics.MAX_LOGS + 1
    assert unsealed["log-0150"] == 150
    assert unsealed[metrics.OTHERS] == 100_000 - sum(range(51, 151))
    assert samples["woodpecker_logstore_log_lag_blocks", "log-0150"] == 2
    assert samples["woodpecker_logstore_log_lac_block", "log-0150"] == 9


def test_a_node_that_only_starts_has_a_page_too() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry)
    samples = _samples(metrics.page({"ready": False, "node": "n"}, registry))
    assert samples["woodpecker_logstore_ready", ""] == 0
    assert ("woodpecker_fenced_total", "") in samples
