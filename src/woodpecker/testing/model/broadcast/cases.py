"""Worlds in which broadcasts are once on each target, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.streaming.core import broadcasts
from woodpecker.streaming.core.records import Counters
from woodpecker.testing.model import cases
from woodpecker.testing.model.broadcast.model import BroadcastModel, Rules, Setup

CRASH = Setup(is_zombie=False)
ZOMBIE = Setup()


def _world(setup: Setup) -> cases.World:
    make = partial(BroadcastModel, setup)
    return cases.World(name=str(setup), make=make, goal=BroadcastModel.is_good)


def _mutant(name: str, setup: Setup, rules: Rules) -> cases.Mutant:
    make = partial(BroadcastModel, setup, rules)
    return cases.Mutant(name=name, make=make, goal=BroadcastModel.is_good)


def unfenced(counters: Counters, _: int) -> Counters:
    """A new coordinator only looks."""
    return counters


def lists_for_anybody(counters: Counters, _: int) -> Counters:
    """Whoever asks gets an id."""
    return broadcasts.listed(counters, counters.epoch)


def takes_unlisted(counters: Counters, epoch: int) -> Counters:
    """An id is taken, and nobody else knows of it."""
    return replace(broadcasts.listed(counters, epoch), unfinished=counters.unfinished)


def newest_as_floor(counters: Counters) -> int:
    """What is below the next id is finished, they say."""
    return counters.next_broadcast


WORLDS = (
    _world(Setup(elections=1, numbers=2)),
    _world(CRASH),
    _world(replace(ZOMBIE, numbers=2)),
    _world(ZOMBIE),
    _world(Setup(elections=3, numbers=3)),
)

MUTANTS = (
    _mutant("a log does not refuse repeats", CRASH, Rules(refuses_repeats=False)),
    _mutant("the floor is too high", CRASH, Rules(floor=newest_as_floor)),
    _mutant("an id is begun that is not listed", CRASH, Rules(listed=takes_unlisted)),
    _mutant("locks are not rebuilt", CRASH, Rules(rebuilds_locks=False)),
    _mutant(
        "an old coordinator takes ids",
        ZOMBIE,
        Rules(fenced=unfenced, listed=lists_for_anybody),
    ),
    _mutant("a listed id without a record is only struck off", ZOMBIE, Rules(buries=False)),
    _mutant("a broadcast begins without its key", CRASH, Rules(has_keys=False)),
    _mutant("an id is struck off before all logs have it", CRASH, Rules(unlists_early=True)),
)

BROADCAST = cases.Part(name="broadcast", worlds=WORLDS, mutants=MUTANTS)
