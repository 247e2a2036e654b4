"""The drawing: well-formed, within its frame, one line for each percentile of each series."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from woodpecker.bench.plot import HEIGHT, WIDTH, latency_svg
from woodpecker.bench.report import Report, Row
from woodpecker.errors import InvalidRequest


def row(name: str, load: float, **latencies: float) -> Row:
    figures = {"asked_s": load, "p50_ms": 1.0, "p99_ms": 5.0, "p999_ms": 80.0, **latencies}
    return Row(name=f"{name} at {load:,.0f}/s", figures=figures)


def report(*rows: Row) -> Report:
    return Report(command="append", store="a<b&c", rows=rows, load_average=(0, 0, 0))


def test_each_percentile_of_each_series_is_a_line_with_a_point_a_load():
    rows = [row(name, load) for name in ("x", "y") for load in (900, 30, 12_000)]
    tree = ET.fromstring(latency_svg(report(*rows, Row(name="other", figures={"mb_s": 1}))))
    circles = [e for e in tree.iter() if e.tag.endswith("circle")]
    assert len(circles) == 2 * 3 * 3
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < WIDTH
        assert 0 < float(circle.attrib["cy"]) < HEIGHT
    texts = [e.text for e in tree.iter() if e.tag.endswith("text")]
    assert "x, p50" in texts and "y, p99.9" in texts
    assert any("a<b&c" in (text or "") for text in texts)


def test_a_latency_of_zero_and_a_single_point_can_be_drawn():
    ET.fromstring(latency_svg(report(row("x", 10, p50_ms=0.0, p99_ms=0.0, p999_ms=0.0))))


def test_without_an_open_loop_there_is_nothing_to_draw():
    with pytest.raises(InvalidRequest, match="--rate"):
        latency_svg(report(Row(name="a", figures={"p50_ms": 1})))
