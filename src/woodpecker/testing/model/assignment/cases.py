"""Worlds in which the assignment of a pchannel holds, and the mutants that must be caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from woodpecker.streaming.core import assignment
from woodpecker.streaming.core.assignment import Act, Memory, Sight, Timing, View, Write
from woodpecker.streaming.core.records import Assignment, PchannelRecord
from woodpecker.testing.model import cases
from woodpecker.testing.model.assignment.model import NEVER, AssignmentModel, Rules, Setup

PEACE = Setup(elections=1, deaths=0)
DEATH = Setup(elections=1, deaths=1)
MOVE = Setup(elections=1, deaths=0, wishes=1)
FAILURE = Setup(elections=1, deaths=0, failures=1)
TWO = Setup(elections=2, deaths=0, terms=2, is_deaf=True)


def _world(setup: Setup, *, is_large: bool = False) -> cases.World:
    return cases.World(
        name=str(setup),
        make=partial(AssignmentModel, setup),
        goal=AssignmentModel.is_good,
        is_large=is_large,
    )


def _mutant(name: str, setup: Setup, rules: Rules) -> cases.Mutant:
    make = partial(AssignmentModel, setup, rules)
    return cases.Mutant(name=name, make=make, goal=AssignmentModel.is_good)


def _seeing(change: Callable[[PchannelRecord, View], View]) -> Rules:
    """A machine that sees something else than there is."""

    def step(
        record: PchannelRecord, memory: Memory, view: View, timing: Timing
    ) -> tuple[Memory, Act]:
        return assignment.step(record, memory, change(record, view), timing)

    return Rules(step=step)


def _writing(change: Callable[[PchannelRecord, PchannelRecord], PchannelRecord]) -> Rules:
    """A machine that writes something else: from (before, wanted)."""

    def step(
        record: PchannelRecord, memory: Memory, view: View, timing: Timing
    ) -> tuple[Memory, Act]:
        memory, act = assignment.step(record, memory, view, timing)
        return memory, Write(record=change(record, act.record)) if isinstance(act, Write) else act

    return Rules(step=step)


def _as_newest(sight: Sight, term: int) -> Sight:
    if sight.status is None:
        return sight
    return replace(sight, status=replace(sight.status, term=term))


def takes_any_term(record: PchannelRecord, view: View) -> View:
    """What the owner says of an older term counts for this one."""
    if view.owner is None:
        return view
    return replace(view, owner=_as_newest(view.owner, record.term))


def forgets_strays(_: PchannelRecord, view: View) -> View:
    """Only owners that the record knows are released."""
    return replace(view, others=())


def uses_a_term_again(before: PchannelRecord, wanted: PchannelRecord) -> PchannelRecord:
    """The next owner gets the same term."""
    if wanted.owner is None or before.owner is None or wanted.term == before.term:
        return wanted
    owner = replace(wanted.owner, term=before.term)
    return replace(wanted, term=before.term, owner=owner)


def forgets_the_term(_: PchannelRecord, wanted: PchannelRecord) -> PchannelRecord:
    """Without an owner a pchannel begins anew."""
    is_unassigned = wanted.state is Assignment.UNASSIGNED
    return replace(wanted, term=0) if is_unassigned else wanted


def waits_for_ever(
    record: PchannelRecord, memory: Memory, view: View, timing: Timing
) -> tuple[Memory, Act]:
    """A former owner must give it up first."""
    return assignment.step(record, memory, view, replace(timing, release_timeout_ms=NEVER))


WORLDS = (
    _world(PEACE),
    _world(DEATH),
    _world(MOVE),
    _world(replace(MOVE, is_stubborn=True)),
    _world(FAILURE),
    _world(replace(PEACE, lies=1)),
    _world(replace(PEACE, is_deaf=True)),
    _world(TWO, is_large=True),
    _world(replace(TWO, deaths=1, is_deaf=False), is_large=True),
    _world(replace(TWO, is_deaf=False)),
    _world(replace(TWO, elections=3, is_deaf=False), is_large=True),
)

MUTANTS = (
    _mutant("a node is told to serve before the record is written", PEACE, Rules(tells_early=True)),
    _mutant(
        "the old owner is released before the record is written",
        MOVE,
        Rules(releases_early=True),
    ),
    _mutant("records are written without comparing", TWO, Rules(writes_blindly=True)),
    _mutant("a write without an answer is taken for done", PEACE, Rules(trusts_unknown=True)),
    _mutant("a write that may still land is forgotten", MOVE, Rules(forgets_doubt=True)),
    _mutant("another life of the node counts for this one", DEATH, Rules(mixes_lives=True)),
    _mutant(
        "an older term's word counts for this one",
        Setup(elections=1, deaths=0, wishes=2, silences=0),
        _seeing(takes_any_term),
    ),
    _mutant("the next owner gets the same term", DEATH, _writing(uses_a_term_again)),
    _mutant(
        "a pchannel without owner begins anew",
        replace(DEATH, deaths=2, silences=0),
        _writing(forgets_the_term),
    ),
    _mutant(
        "an owner that was taken for gone is never released",
        replace(PEACE, lies=1),
        _seeing(forgets_strays),
    ),
    _mutant(
        "a former owner is waited for without end",
        replace(MOVE, is_stubborn=True),
        Rules(step=waits_for_ever),
    ),
)

ASSIGNMENT = cases.Part(name="assignment", worlds=WORLDS, mutants=MUTANTS)
