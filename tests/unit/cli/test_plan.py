"""``woodpecker plan``: sizes, tables, JSON, refusals. No store is touched."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from woodpecker.cli.main import app
from woodpecker.cli.plan import parse_size


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20MB/s", 20e6), ("1KiB", 1024), ("1.5 GiB/s", 1.5 * 2**30), ("100", 100), ("7kB", 7000),
        ("3B", 3), ("2M", 2e6), ("1TiB", 2**40),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text, "--rate") == size


def test_each_mode_is_a_line():
    shown = run("plan", "--rate", "20MB/s", "--entry", "1KiB")
    assert shown.exit_code == 0, shown.output
    for mode in ("file", "object, linger 0 ms", "object, linger 1000 ms", "quorum, 3 nodes"):
        assert mode in shown.stdout


def test_lingers_and_budgets_that_are_asked_for_replace_the_usual_ones():
    shown = run(
        "-o", "json", "plan", "--rate", "1MB/s", "--linger-ms", "7", "--max-cost-per-month", "30",
        "--put-price", "0", "--node-price", "1000", "--transfer-price", "0",
    )  # fmt: skip
    found = {one["mode"]: one for one in json.loads(shown.stdout)}
    assert list(found) == ["file", "object, linger 7 ms", "object, $30 a month", "quorum, 3 nodes"]
    assert found["quorum, 3 nodes"]["machines_usd"] == 3000
    assert all(one["total_usd"] >= one["storage_usd"] > 0 for one in found.values())
    only = json.loads(run("-o", "json", "plan", "--rate", "1", "--max-cost-per-month", "3").stdout)
    assert [one["mode"] for one in only][1:2] == ["object, $3 a month"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "fast"], ["--rate", "0"], ["--rate", "1MB/s", "--entry", "-1"],
        ["--rate", "1", "--linger-ms", "99999999"], ["--rate", "1", "--max-cost-per-month", "0"],
    ],
)  # fmt: skip
def test_mistakes_are_refused(arguments):
    assert run("plan", *arguments).exit_code == 3
