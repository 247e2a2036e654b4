"""A pytest plugin: the fixture ``woodpecker_sim`` runs your asynchronous code in a simulated world.

Say ``pytest_plugins = ["woodpecker.testing.pytest_plugin"]`` in your top ``conftest.py``. A failing seed
says how to run it again: ``pytest <test> --woodpecker-seed 17`` runs that one and prints its trace.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # loaded when a scenario runs: a test run without any must not pay for it
    from woodpecker.testing.sim.user import Scenario

SEEDS = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that replays one seed."""
    group = parser.getgroup("woodpecker")
    group.addoption(
        "--woodpecker-seed",
        type=int,
        metavar="N",
        help="run the scenarios of woodpecker_sim with this seed only, and print the trace",
    )


class Simulator:
    """What the fixture gives: call it with a scenario."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._only: int | None = request.config.getoption("--woodpecker-seed", default=None)
        self._test = request.node.nodeid

    def __call__(
        self,
        scenario: Scenario,
        *,
        seeds: int | Iterable[int] = SEEDS,
        fault_rate: float = 0.05,
    ) -> None:
        """Run ``await scenario(sim)`` once per seed, until one fails.

        Args:
            seeds: how many (from 0 on), or which.
            fault_rate: share of the requests of your processes that meet some fault.
        Raises: ScenarioFailed.
        """
        from woodpecker.testing.sim.user import ScenarioFailed, simulate

        if self._only is not None:
            simulate(scenario, self._only, fault_rate=fault_rate, write=sys.stdout.write)
            return
        for seed in range(seeds) if isinstance(seeds, int) else seeds:
            try:
                simulate(scenario, seed, fault_rate=fault_rate)
            except ScenarioFailed as failure:
                failure.add_note(f"again: pytest '{self._test}' --woodpecker-seed {seed} -s")
                raise


@pytest.fixture
def woodpecker_sim(request: pytest.FixtureRequest) -> Simulator:
    """Run a scenario in a simulated world, seed by seed; see ``docs/testing.md``."""
    return Simulator(request)
