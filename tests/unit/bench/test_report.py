"""Reports: JSON there and back, lines for people, comparison of two runs."""

from __future__ import annotations

import json

import pytest

from woodpecker.bench.report import Report, Row, compare, from_json, lines, to_json
from woodpecker.errors import InvalidRequest


def report(mb_s: float, ratio: float, name: str = "append many 1 KiB") -> Report:
    return Report(
        command="append",
        store="file:///x",
        rows=[Row(name=name, figures={"mb_s": mb_s}, limit={"mb_s": 100.0}, ratio=ratio, note="n")],
        load_average=(1.0, 2.0, 3.0),
    )


def test_json_comes_back_as_it_was():
    one = report(80.0, 0.8)
    text = to_json(one)
    assert "\n" not in text
    assert json.loads(text)["format"] == 1
    assert to_json(from_json(text, where="x")) == text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1, "rows": [{"nme": 1}]}', '{"format": 9}']
)
def test_what_is_no_report_is_refused_by_name(text):
    with pytest.raises(InvalidRequest, match=r"old\.json"):
        from_json(text, where="old.json")


def test_lines_show_ours_limit_and_note():
    text = "\n".join(lines(report(80.0, 0.8)))
    for part in (
        "file:///x",
        "load average 1.00 2.00 3.00",
        "80.0 mb_s",
        "ratio 0.80",
        "limit",
        "n",
    ):
        assert part in text


def test_comparison_shows_ratio_and_figures_of_common_rows():
    assert compare(report(80.0, 0.8), report(88.0, 0.6)) == [
        f"{'append many 1 KiB':<40} ratio -25%  mb_s +10%"
    ]
    assert compare(report(1, 1, "a"), report(1, 1, "b")) == [
        "the two reports have no row in common"
    ]
