"""Worlds of ticks in which the rules hold, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.streaming.core.ticks import Ticks
from woodpecker.testing.model import cases
from woodpecker.testing.stream_model.ticks.model import RULES, Setup, TicksModel


def _world(setup: Setup, *, is_large: bool = False) -> cases.World:
    return cases.World(name=str(setup), make=partial(TicksModel, setup), is_large=is_large)


def _mutant(name: str, setup: Setup, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(TicksModel, setup, changed))


def from_the_clock(*, limit: int, last_tick: int, clock_us: int) -> int:
    """A term starts at the clock, above the last tick in the log; limits are not looked at."""
    return max(last_tick + 1, clock_us) + 0 * limit


def above_the_limit(ticks: Ticks, clock: int) -> int | None:
    """Un-persisted ticks know no limit."""
    return None if ticks.is_closed else ticks.first(clock)


def after_the_close(ticks: Ticks, clock: int) -> int | None:
    """The limit is that of before the close record."""
    return replace(ticks, is_closed=False, limit=ticks.limit + ticks.is_closed).unpersisted(clock)


def at_the_first_in_flight(ticks: Ticks, first: int | None) -> int:
    """A signal says the tick of the oldest batch in flight."""
    return ticks.last if first is None else first


def newest_given(ticks: Ticks, first: int | None) -> int:
    """A signal says the newest tick given away, in flight or not."""
    return ticks.last + 0 * (first or 0)


SLOW_HEIR = Setup()
FAST_HEIR = Setup(clocks=(0, 3))
CLOSES = Setup(closes=True, batches=1)
THREE = Setup(clocks=(4, 2, 0), terms=3, batches=1, times=0)

TICKS = cases.Part(
    name="stream-ticks",
    worlds=(
        _world(SLOW_HEIR),
        _world(FAST_HEIR),
        _world(CLOSES),
        _world(THREE),
        _world(replace(CLOSES, terms=3), is_large=True),
    ),
    mutants=(
        _mutant("a term starts from the clock alone", SLOW_HEIR, start=from_the_clock),
        _mutant("a signal above the limit in the log", SLOW_HEIR, unpersisted=above_the_limit),
        _mutant("a signal at the first in flight", SLOW_HEIR, signal=at_the_first_in_flight),
        _mutant("a signal at the newest tick given away", SLOW_HEIR, signal=newest_given),
        _mutant("un-persisted ticks after the close record", CLOSES, unpersisted=after_the_close),
        _mutant("an ephemeral overtakes data", SLOW_HEIR, ephemeral_waits=False),
    ),
)
