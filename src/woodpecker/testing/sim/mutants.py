"""Bugs planted on purpose in rules and drivers: each must be found, or the simulator proves nothing.

A mutant takes one rule of the log protocol away. ``docs/testing.md`` says who finds which, and how soon.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

Patches = list[tuple[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One rule that is missing. ``patches``: what is replaced by what. ``kind``: of segments it is about."""

    name: str
    rule: str
    kind: str
    patches: Callable[[], Patches]


MUTANTS: dict[str, Mutant] = {}
HOMES = ("sim.object_mutants", "sim.quorum_mutants", "stream_sim.mutants")


def all_mutants() -> dict[str, Mutant]:
    """Every mutant there is, by name."""
    for home in HOMES:
        importlib.import_module(f"woodpecker.testing.{home}")
    return MUTANTS


def mutant(rule: str, kind: str) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    """Register the decorated function's patches; ``rule`` says which rule it breaks."""

    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTANTS[make.__name__] = Mutant(name=make.__name__, rule=rule, kind=kind, patches=make)
        return make

    return register


def _patch(place: Any, attribute: Any, new: Any) -> Any:
    if isinstance(place, dict):
        return patch.dict(place, {attribute: new})
    return patch.object(place, attribute, new)


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug is there inside the block; "" plants none."""
    if not name:
        yield
        return
    patches = all_mutants()[name].patches()
    running = [_patch(*one) for one in patches]
    for one in running:
        one.start()
    try:
        yield
    finally:
        for one in reversed(running):
            one.stop()
