"""Worlds of owners and producers in which the rules hold, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.streaming.core.facts import TableLimits
from woodpecker.testing.model import cases
from woodpecker.testing.stream_model.produce import mutants
from woodpecker.testing.stream_model.produce.model import ProduceModel
from woodpecker.testing.stream_model.produce.rules import RULES
from woodpecker.testing.stream_model.produce.state import Script, Setup, State, Step


def _world(name: str, setup: Setup, *, is_large: bool = False, ends: bool = False) -> cases.World:
    return cases.World(
        name=f"{name}: {setup}",
        make=partial(ProduceModel, setup),
        is_large=is_large,
        goal=all_answered if ends else None,
    )


def _mutant(name: str, setup: Setup, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(ProduceModel, setup, changed))


def all_answered(model: ProduceModel, state: State) -> bool:
    """Every batch of every client got its answer, or nobody may serve any more."""
    scripts = model.setup.scripts
    spent = state.term == model.setup.terms
    return spent or all(
        client.is_over or client.done == len(script.steps)
        for script, client in zip(scripts, state.clients, strict=True)
    )


TWO = Script(steps=(Step(), Step()))
ONE = Script(steps=(Step(),))
TXN = Script(steps=(Step(number=0, begin=True), Step(number=0, commit=True)))
NAMED = Script(steps=(Step(),), name="n")
HEIR = Script(steps=(Step(),), name="n", starts_after=0)
OTHER = Script(steps=(Step(vcid=2), Step(vcid=1)))
SMALL = TableLimits(sessions=1, session_young_us=50, session_forget_us=1000)

PLAIN = Setup(scripts=(TWO,))
ALONE = Setup(scripts=(TWO,), terms=1, cuts=2)
BACK = Setup(scripts=(TWO,), cuts=2)
CRASHES = Setup(scripts=(TWO,), crashes=1)
REOPENS = Setup(scripts=(TWO,), terms=1, nodes=1, fails=2, cuts=0)
DELETES = Setup(scripts=(TWO,), acts=("delete", "create", "late create"))
ANEW = Setup(
    scripts=(OTHER,), acts=("delete", "create"), terms=1, nodes=1, cuts=1, knows_channels=False
)
MOVES = Setup(scripts=(OTHER,), acts=("delete", "create"), cuts=0, window=1)
NEXT = Script(steps=(Step(),), starts_after=0)
LAST = Script(steps=(Step(),), name="n", starts_after=1)
EVICTS = Setup(scripts=(ONE, NEXT), terms=1, nodes=1, jumps=2, cuts=2, limits=SMALL)
EVICTS_MOVED = replace(EVICTS, nodes=2, terms=2, cuts=1)
NAMES = Setup(scripts=(NAMED, HEIR), terms=1, nodes=1, cuts=2)
NAMES_EVICTED = Setup(scripts=(NAMED, NEXT, LAST), terms=1, nodes=1, cuts=1, jumps=2, limits=SMALL)
NAMES_MOVED = replace(NAMES, nodes=2, terms=2, cuts=1)
COMMITS = Setup(scripts=(TXN,), acts=("expire",), window=1)
COMMITS_SLOWLY = replace(COMMITS, terms=1, jumps=1, acts=())
READS = Setup(scripts=(ONE,), acts=("read point",), cuts=0)
RELEASED = Setup(scripts=(ONE,), acts=("release",), terms=3)

PRODUCE = cases.Part(
    name="stream-produce",
    worlds=(
        _world("one owner", ALONE),
        _world("take-over", PLAIN, ends=True),
        _world("take-over", BACK),
        _world("crash", CRASHES),
        _world("writer ends", REOPENS, ends=True),
        _world("releases", RELEASED),
        _world("deletion", DELETES),
        _world("channel not there yet", ANEW),
        _world("channel not there yet", MOVES),
        _world("eviction", EVICTS),
        _world("eviction", EVICTS_MOVED, is_large=True),
        _world("named producer", NAMES),
        _world("named producer", NAMES_MOVED, is_large=True),
        _world("forgotten name", NAMES_EVICTED),
        _world("transaction", COMMITS),
        _world("transaction", COMMITS_SLOWLY),
        _world("read point", READS),
        _world("all of it", replace(CRASHES, fails=1, cuts=2), is_large=True),
    ),
    mutants=(
        _mutant("the log is opened without a claim", PLAIN, claim_allows=mutants.every_claim),
        _mutant("a batch is acknowledged before it is durable", PLAIN, answers_when_acked=False),
        _mutant("tables of a former life are used again", REOPENS, folds_again=False),
        _mutant("something awaits between admission and submit", ALONE, in_one_step=False),
        _mutant(
            "newest first after a break, and gaps admitted",
            PLAIN,
            oldest_first=False,
            judge=mutants.gaps_admitted,
        ),
        _mutant("the channel is judged before the repeat", DELETES, judge=mutants.channel_first),
        _mutant(
            "the transaction is judged before the repeat", COMMITS, judge=mutants.transaction_first
        ),
        _mutant("a refusal rests on what is not acknowledged", DELETES, refuses_when_acked=False),
        _mutant("an abort is told before it is durable", COMMITS, refuses_when_acked=False),
        _mutant("an owner of the past refuses for good", MOVES, refuses_when_owner=False),
        _mutant(
            "an owner of the past refuses for good, and the sequence is used again",
            PLAIN,
            terms_never_fall=False,
            refuses_when_owner=False,
            ends_after_cut=False,
        ),
        _mutant("the sequence of a batch that was cut is used again", ANEW, ends_after_cut=False),
        _mutant("an unknown batch is told not written", NAMES, unknown_stays=False),
        _mutant("produce names the channel, not the vcid", DELETES, by_vcid=False),
        _mutant("deleted channels are not remembered", DELETES, new_fold=mutants.ForgetsDeleted),
        _mutant("a late first batch is taken as new", EVICTS, judge=mutants.late_first_batch),
        _mutant("a session is forgotten while it is young", EVICTS, new_fold=mutants.ForgetsYoung),
        _mutant("epochs are counted", NAMES_EVICTED, new_fold=mutants.CountedEpochs),
        _mutant("an abort after the commit wins", COMMITS, new_fold=mutants.LateAborts),
        _mutant("readers judge expiry", COMMITS_SLOWLY, readers_expire=True),
        _mutant("a read point without proof", READS, proves_ownership=False),
    ),
)
