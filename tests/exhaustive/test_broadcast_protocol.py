"""Broadcasts, every order of events: the rules hold, and each rule left out is caught.

``python -m woodpecker.testing.model broadcast`` shows the numbers, with ``--stories`` the counter-examples.
"""

from __future__ import annotations

import pytest

from woodpecker.testing.model.broadcast.cases import MUTANTS, WORLDS
from woodpecker.testing.model.cases import Mutant, World


def name(case: World | Mutant) -> str:
    return case.name


@pytest.mark.parametrize("world", WORLDS, ids=name)
def test_the_rules_hold_in_every_order_of_events(world: World) -> None:
    result = world.explore()
    assert result.is_complete, result.told()


@pytest.mark.parametrize("mutant", MUTANTS, ids=name)
def test_a_rule_left_out_is_caught(mutant: Mutant) -> None:
    result = mutant.explore()
    assert result.fault is not None, f"not caught: {result.told()}"
    assert len(result.story) == result.depth
