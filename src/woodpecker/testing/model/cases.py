"""What is explored of a model: worlds in which the rules must hold, mutants that must be caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from woodpecker.testing.model.checker import Model, Result, explore


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A world that is explored to its last state. ``is_large``: minutes, not seconds."""

    name: str
    make: Callable[[], Model[Any]]
    is_large: bool = False
    goal: Callable[[Any, Any], bool] | None = None  # (model, state): must stay within reach

    def explore(self) -> Result:
        """Visit every state."""
        model, goal = self.make(), self.goal
        return explore(model, goal=None if goal is None else lambda state: goal(model, state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A rule left out, in a world where that does harm. ``review``: depth in the design's own models."""

    name: str
    make: Callable[[], Model[Any]]
    review: str = "-"
    goal: Callable[[Any, Any], bool] | None = None

    def explore(self) -> Result:
        """Search until the harm is found."""
        model, goal = self.make(), self.goal
        return explore(model, goal=None if goal is None else lambda state: goal(model, state))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the protocol."""

    name: str
    worlds: tuple[World, ...]
    mutants: tuple[Mutant, ...]


def world_row(world: World, result: Result) -> str:
    """A row of the table of worlds, in Markdown."""
    ending = "holds" if result.is_complete else "not complete" if result.fault is None else "BROKEN"
    cells = (world.name, f"{result.states:,}", f"{result.moves:,}", f"{result.depth}",
             f"{result.seconds:.1f}", ending)  # fmt: skip
    return f"| {' | '.join(cells)} |"


def mutant_row(mutant: Mutant, result: Result) -> str:
    """A row of the table of mutants, in Markdown."""
    harm = "NOT CAUGHT" if result.fault is None else result.fault
    cells = (mutant.name, f"{result.depth}", mutant.review, f"{result.states:,}", harm)
    return f"| {' | '.join(cells)} |"
