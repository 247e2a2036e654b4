"""Worlds of kind ``quorum`` in which the rules hold, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.testing.model import cases
from woodpecker.testing.model.quorum import mutants as without
from woodpecker.testing.model.quorum.model import QuorumModel, is_closed
from woodpecker.testing.model.quorum.rules import RULES, Setup


def _world(setup: Setup, *, is_large: bool = False, must_close: bool = False) -> cases.World:
    goal, more = (is_closed, "; can be closed") if must_close else (None, "")
    name = f"{setup}{more}"
    return cases.World(name=name, make=partial(QuorumModel, setup), is_large=is_large, goal=goal)


def _mutant(name: str, setup: Setup, review: str = "-", /, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(QuorumModel, setup, changed), review=review)


def _stuck(name: str, setup: Setup) -> cases.Mutant:
    return cases.Mutant(name=name, make=partial(QuorumModel, setup), goal=is_closed)


TWO_OF_TWO = Setup(members=2, acks=2, damages=1, uploads=True)

WORLDS = (
    _world(Setup(blocks=2, takers=1, closes=True, drops=True, damages=1)),
    _world(Setup(blocks=3, takers=1, closes=True, damages=1)),
    _world(Setup(blocks=1, takers=2, damages=1, uploads=True, drops=True)),
    _world(Setup(blocks=1, takers=2, splits=True, closes=True, drops=True, damages=1)),
    _world(Setup(blocks=2, takers=1, splits=True, damages=1)),
    _world(replace(TWO_OF_TWO, blocks=2, takers=1, closes=True, drops=True, splits=True)),
    _world(Setup(members=5, acks=3, blocks=1, takers=1, closes=True, damages=1)),
    _world(Setup(blocks=1, takers=1, splits=True, damages=1, cuts_tails=True, loses_disks=False)),
    _world(Setup(blocks=1, takers=1, splits=True, damages=1, rots=True)),
    _world(Setup(blocks=2, takers=1, damages=1, loses_disks=False, cuts_tails=True)),
    _world(Setup(blocks=2, takers=1, reads=True, closes=True, strays=1)),
    _world(Setup(blocks=1, takers=1, splits=True, closes=True, damages=1, checks_copies=True)),
    _world(Setup(blocks=1, takers=2, tells=True, damages=1)),
    _world(Setup(blocks=1, takers=1, tells=True, damages=1, cuts_tails=True, rots=True)),
    _world(Setup(blocks=1, takers=2, damages=1), must_close=True),
    _world(Setup(blocks=1, takers=1, splits=True, damages=1), must_close=True),
    _world(
        Setup(blocks=1, takers=1, damages=1, loses_disks=False, cuts_tails=True, rots=True),
        must_close=True,
    ),
    _world(replace(TWO_OF_TWO, blocks=1, takers=1), must_close=True),
    _world(Setup(blocks=2, takers=2, damages=1), is_large=True),
    _world(
        Setup(blocks=2, takers=2, damages=1, closes=True, uploads=True, drops=True), is_large=True
    ),
    _world(
        replace(TWO_OF_TWO, blocks=3, takers=2, closes=True, drops=True, splits=True), is_large=True
    ),
    _world(
        Setup(blocks=2, takers=1, splits=True, damages=1, cuts_tails=True, loses_disks=False),
        is_large=True,
    ),
    _world(
        Setup(blocks=1, takers=2, splits=True, damages=1, cuts_tails=True, rots=True), is_large=True
    ),
    _world(Setup(members=5, acks=3, blocks=1, takers=2, closes=True, damages=2), is_large=True),
)

ONE = Setup(blocks=1, takers=1)
TWO = Setup(blocks=2, takers=1)
RACE = Setup(blocks=1, takers=2)
CRASH = Setup(blocks=1, takers=1, splits=True)
DISK = Setup(blocks=1, takers=1, damages=1)
CUT = Setup(blocks=1, takers=1, damages=1, loses_disks=False, cuts_tails=True)
ROT = Setup(blocks=1, takers=1, damages=1, loses_disks=False, rots=True)
LIFE = Setup(blocks=2, takers=1, closes=True, drops=True)

MUTANTS = (
    _mutant("a node forgets a dropped segment", LIFE, "11", new_floor=lambda floor, _: floor),
    _mutant(
        "a copy is dropped before its floor is on the disk",
        replace(LIFE, splits=True),
        drops_before_floor_is_synced=True,
    ),
    _mutant(
        "acknowledgements go on while a live close is undecided",
        Setup(blocks=2, takers=0, closes=True),
        "8",
        end_of_live_close=without.closes_at_lac,
    ),
    _mutant(
        "a writer goes on in the segment that it tried to close",
        Setup(blocks=2, takers=0, closes=True),
        "by reasoning",
        sends_after_choosing_end=True,
    ),
    _mutant(
        "a fence is answered while its queue still syncs",
        replace(CRASH, blocks=2),
        "13",
        is_voting=lambda copy: copy.fence is not None,
        vote=without.votes_what_is_synced,
        answers_writer=lambda _: True,
    ),
    _mutant(
        "a fence is answered before it is on the disk",
        CRASH,
        is_voting=lambda copy: copy.fence is not None,
        vote=without.votes_what_is_synced,
    ),
    _mutant(
        "a repeated block is acknowledged before the first is synced",
        CRASH,
        "8",
        answers_repeated=lambda *_: True,
    ),
    _mutant("a block is acknowledged before it is synced", CRASH, acks_before_sync=True),
    _mutant(
        "the key of the sealed object is without E",
        Setup(blocks=2, takers=2, uploads=True, drops=True),
        "13",
        adopts=lambda *_: True,
    ),
    _mutant(
        "a reader counts copies during a live close at the LAC",
        Setup(blocks=2, takers=0, closes=True),
        "6",
        reader_counts_copies=True,
        end_of_live_close=without.closes_at_lac,
    ),
    _mutant("a cut node votes as usual", CUT, "12", vote=without.votes_as_usual),
    _mutant("a copy that lost a record votes as usual", ROT, vote=without.votes_as_usual),
    _mutant("lower bounds are counted as votes", CUT, decide=without.lower_bounds_count),
    _mutant(
        "a question of recovery does not fence",
        ONE,
        "8-12",
        on_fence=without.asks_without_fencing,
        is_voting=without.has_what_is_synced,
    ),
    _mutant(
        "a fenced copy takes blocks",
        ONE,
        on_append=without.ignores_fence,
        answers_writer=lambda _: True,
    ),
    _mutant("a fence is not journaled", CRASH, "8-12", journals_fences=False),
    _mutant(
        "a fence of an unseen segment leaves nothing", ONE, on_fence=without.fences_only_what_it_has
    ),
    _mutant("a lost disk votes", DISK, "8-12", on_fence=without.any_incarnation_votes),
    _mutant(
        "a lost disk goes on taking blocks",
        replace(DISK, blocks=2),
        on_append=without.any_incarnation_takes,
    ),
    _mutant("N - A votes decide", ONE, "8-12", decide=without.one_vote_less),
    _mutant("E is the minimum", ONE, "8-12", decide=without.shortest),
    _mutant("E is what A of the answers hold", ONE, decide=without.majority_of_answers),
    _mutant("the CAS comes before A copies", DISK, "8-12", is_safe=lambda *_: True),
    _mutant(
        "readers are shown more than the LAC",
        replace(ONE, reads=True),
        "8-12",
        readable=without.shows_all,
    ),
    _mutant("the LAC runs past the quorum", ONE, step=without.counts_one_less),
    _mutant(
        "acknowledgements of different blocks are added up", TWO, step=without.adds_up_over_members
    ),
    _mutant(
        "a block is taken though one before it is missing", TWO, on_append=without.takes_anything
    ),
    _mutant("a repaired block answers the writer", RACE, "16", on_append=without.answers_repaired),
    _mutant("a cut node takes blocks again", CUT, "12", on_append=without.takes_though_cut),
    _mutant(
        "a copy that lost a record takes blocks again", ROT, on_append=without.takes_though_unsure
    ),
    _mutant("FENCED is taken for NotWritten", ONE, step=without.fenced_is_not_written),
    _mutant(
        "a repair is counted before it is synced",
        replace(CRASH, damages=1),
        has_repaired=lambda *_: True,
    ),
    _mutant(
        "the floor is the next segment, sealed or not",
        LIFE,
        floor_of=lambda _, following: following,
    ),
    _stuck("a last holder cannot upload", replace(TWO_OF_TWO, blocks=1, takers=1, uploads=False)),
    _mutant(
        "what a lost disk had acknowledged counts",
        Setup(blocks=1, takers=1, damages=1, checks_copies=True),
        step=without.counts_the_lost,
    ),
    _mutant("a short copy is sealed", LIFE, may_seal=lambda held, _: held >= 0),
)

QUORUM = cases.Part(name="quorum", worlds=WORLDS, mutants=MUTANTS)
