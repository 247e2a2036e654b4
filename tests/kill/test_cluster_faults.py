"""Short runs with real LogStore nodes: killed, paused, robbed of disks, cut off; see docs/testing.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kill.test_faults import AGAIN, assert_good

from woodpecker.testing.faults.clean_exit import clean_exit
from woodpecker.testing.faults.cluster_kill import cluster_kill_loop
from woodpecker.testing.faults.fight import fight
from woodpecker.testing.faults.node_loss import node_loss
from woodpecker.testing.faults.paused import paused
from woodpecker.testing.servers.network import why_not

pytestmark = [pytest.mark.kill_short, pytest.mark.timeout(400)]


async def test_kills_of_nodes_and_writers(tmp_path: Path) -> None:
    report = await cluster_kill_loop(tmp_path, kills=12, seed=1, command=AGAIN)
    assert_good(report)
    counts = report.counts
    assert counts["kills of nodes"] > 0 and counts["kills of writers"] > 0
    assert counts["take-overs"] > 1 and counts["entries acknowledged"] > 1000


async def test_no_append_fails_when_nodes_are_lost(tmp_path: Path) -> None:
    report = await node_loss(tmp_path, seconds=1, rate=100, seed=1, command=AGAIN)
    assert_good(report)
    assert report.details["failed"] == report.details["lost"] == 0
    assert report.counts["kills of nodes"] == 7


async def test_fight(tmp_path: Path) -> None:
    report = await fight(tmp_path, kind="quorum", seconds=8, seed=2, command=AGAIN)
    assert_good(report)
    assert report.counts["take-overs"] > 2


async def test_sleeping_writers(tmp_path: Path) -> None:
    assert_good(await paused(tmp_path, kind="quorum", times=4, seed=3, command=AGAIN))


async def test_clean_exits(tmp_path: Path) -> None:
    report = await clean_exit(tmp_path, kind="quorum", times=2, seed=0, command=AGAIN)
    assert_good(report)
    assert report.counts["entries found"] == 2


def test_partitions(tmp_path: Path) -> None:
    """In a process of its own: it has to enter a network before it has threads."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    argv = [sys.executable, "-m", "woodpecker.testing.faults", "partition", "--minutes", "0.3"]
    done = subprocess.run(
        [*argv, "--seed", "1", "--directory", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True, text=True, check=False, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "network: " in done.stdout and "all invariants hold" in done.stdout


# Bugs planted in writers and in nodes, each with what shows it; those but the first take minutes.
BUGS = [
    pytest.param("forget_fences", "slept through", 12),
    pytest.param("acknowledge_one_copy", "handed over", 20, marks=pytest.mark.slow),
    pytest.param("decide_too_early", "handed over", 30, marks=pytest.mark.slow),
    pytest.param(
        "vote_with_an_empty_disk", "disk lost, another behind", 12, marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("mutant", "strike", "kills"), BUGS)
async def test_a_planted_bug_is_found(tmp_path: Path, mutant: str, strike: str, kills: int) -> None:
    report = await cluster_kill_loop(
        tmp_path, kills=kills, seed=1, command="", only=[strike], mutant=mutant
    )
    assert {"I1", "I4"} & {violation.rule for violation in report.violations}, str(report)


@pytest.mark.slow
async def test_a_node_that_takes_blocks_behind_its_fence_is_found(tmp_path: Path) -> None:
    bug = "take_blocks_behind_the_fence"
    report = await fight(tmp_path, kind="quorum", seconds=20, seed=1, command="", mutant=bug)
    assert {"I1", "I4"} & {violation.rule for violation in report.violations}, str(report)
