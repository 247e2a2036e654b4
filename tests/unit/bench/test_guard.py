"""The guard: ratios beside a baseline, a second try, and when it fails."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from woodpecker.bench import guard
from woodpecker.bench.pairs import Plan
from woodpecker.cli.main import app


def part(*answers: dict[str, float]):
    """A part that finds one of ``answers`` after the other."""
    waiting = list(answers)

    async def measure(_base, _plan, _say):
        return waiting.pop(0)

    return measure


def quiet(_what: str) -> None:
    """Progress nobody looks at."""


async def test_what_has_collapsed_is_measured_again_and_the_better_counts(monkeypatch):
    parts = (part({"a": 0.4, "b": 0.9}, {"a": 0.8, "b": 0.2}), part({"c": 0.6}))
    monkeypatch.setattr(guard, "PARTS", parts)
    assert await guard.run("", {"a": 1, "c": 1}, quiet) == {"a": 0.8, "b": 0.9, "c": 0.6}


async def test_a_baseline_is_the_lower_of_two_runs(monkeypatch):
    monkeypatch.setattr(guard, "PARTS", (part({"a": 0.4, "b": 0.9}, {"a": 0.8, "b": 0.2}),))
    assert guard.ratios(await guard.baseline("", quiet)) == {"a": 0.4, "b": 0.2}


@pytest.mark.parametrize(
    ("score", "word"), [(2, "ok"), (0.8, "ok"), (0.79, "WARNING"), (0.5, "WARNING"), (0.49, "COLL")]
)
def test_a_verdict_is_a_part_of_the_baseline(score, word):
    (verdict,) = guard.judged({"a": 1, "gone": 1, "zero": 0}, {"a": score, "zero": 1})
    assert str(verdict).startswith(word)


def test_the_command_makes_a_baseline_and_fails_on_a_collapse_only(monkeypatch, tmp_path):
    file = tmp_path / "base.json"
    command = ["bench", "guard", "--store", str(tmp_path), "--baseline", str(file)]

    def invoke(*answers, flags=()):
        monkeypatch.setattr(guard, "PARTS", (part(*answers),))
        return CliRunner().invoke(app, [*command, *flags])

    assert invoke({"a": 1.0}, {"a": 0.9}, flags=["--update"]).exit_code == 0
    assert json.loads(file.read_text())["rows"][0]["ratio"] == 0.9
    warned = invoke({"a": 0.5})
    assert (warned.exit_code, "WARNING" in warned.stdout) == (0, True)
    failed = invoke({"a": 0.3}, {"a": 0.4})
    assert (failed.exit_code, "COLLAPSED" in failed.stdout) == (1, True)
    assert invoke({"b": 1.0}).exit_code == 3


async def test_the_real_parts_find_scores_between_nothing_and_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "READ_BYTES", 4 << 20)
    scores = await guard.run(str(tmp_path), {}, quiet, plan=Plan(pairs=1, seconds=0.03))
    kinds = {name.partition(":")[0] for name in scores}
    assert kinds == {"file", "object", "quorum"}
    assert len(scores) == 9
    assert all(0 < score <= 1 for score in scores.values())
    assert list(tmp_path.iterdir()) == []
