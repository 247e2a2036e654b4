"""One seed is one run, byte for byte: in another process, with another hash seed, after other work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = [1, 4, 7, 11, 20]
RUN = """
import gc, hashlib, sys
from woodpecker.testing.sim.run import run_seed

before, seeds = eval(sys.argv[1]), eval(sys.argv[2])
kept = [object() for _ in range(before * 1000)]  # other addresses, other work done before
for seed in range(100, 100 + before):
    run_seed(seed)
for seed in seeds:
    text = []
    result = run_seed(seed, write=text.append)
    trace = "".join(text).encode()
    print(seed, len(text), hashlib.sha256(trace).hexdigest(), result.violations,
          sorted(result.injected.items()), sorted(result.coverage.items()))
"""


def traces(hash_seed: int, before: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RUN, repr(before), repr(SEEDS)],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT / "src")},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_one_seed_is_one_run_byte_for_byte() -> None:
    first, second = traces(1, 0), traces(2, 3)
    assert first == second
    assert len(first.splitlines()) == len(SEEDS)


def test_seeds_differ() -> None:
    lines = traces(1, 0).splitlines()
    assert len({line.split()[2] for line in lines}) == len(SEEDS)


@pytest.mark.parametrize("seed", [1, 4])
def test_a_trace_tells_who_said_what_to_whom(seed: int) -> None:
    from woodpecker.testing.sim.run import run_seed

    lines: list[str] = []
    run_seed(seed, write=lines.append)
    text = "".join(lines)
    assert "w0.0 -> records" in text
    assert "objects -> " in text
    times = [float(line.split()[0]) for line in lines if line.strip()]
    assert times == sorted(times)
