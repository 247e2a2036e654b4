"""What owners sequence, with the core's own functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from woodpecker.errors import Corrupt
from woodpecker.streaming.core import orders
from woodpecker.streaming.core.admission import Admit, Refuse, data_facts, facts_of
from woodpecker.streaming.core.facts import Body, Create, Facts, Term
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.ticks import next_limit, start_of_term
from woodpecker.streaming.settings import DEFAULTS
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.stream_model.logs import EMPTY, Logs
from woodpecker.testing.stream_model.produce.rules import Rules
from woodpecker.testing.stream_model.produce.state import Node, Setup, State

STEP = 1000  # of the tick limit
JUMP = 100  # much time: more than ``session_young_us`` of these worlds
NAME = "ch"


def put(state: State, number: int, node: Node) -> State:
    """The state with another node at ``number``."""
    nodes = state.nodes
    return state._replace(nodes=(*nodes[:number], node, *nodes[number + 1 :]))


class Writing:
    """Sequences batches: tick, fold and flight in one step."""

    def __init__(self, logs: Logs, setup: Setup, rules: Rules) -> None:
        self._logs = logs
        self._setup = setup
        self._rules = rules

    def first_log(self) -> int:
        """A log with channel 1, written by an owner of term 0."""
        log = EMPTY
        bodies: tuple[tuple[Body, int], ...] = (
            (Term(incarnation="first", limits=self._setup.limits), 0),
            (Create(name=NAME), 1),
        )
        for body, vcid in bodies:
            fold = self._logs.fold(log)
            tick = fold.last_tick + 1
            log = self._logs.add(log, facts_of(fold, body, tick=tick, limit=STEP, vcid=vcid))
        return log

    def fold_of(self, node: Node) -> Fold:
        """The tables that the node judges by."""
        return self._logs.fold(node.view if node.tables < 0 else node.tables)

    def tick(self, state: State, node: Node) -> int:
        """Of the next batch."""
        return max(self._logs.fold(node.view).last_tick + 1, state.clock)

    def sequence(self, state: State, number: int, facts: Facts) -> State:
        """One more batch in the view of the node; the log may take it if the writer is the newest."""
        node = state.nodes[number]
        try:
            view = self._logs.add(node.view, facts)
        except Corrupt as error:
            raise Broken(
                f"the owner writes what no owner can fold: {error}", move=("node", number)
            ) from None
        state = put(state, number, node._replace(view=view))
        return state._replace(flight=view) if node.token == state.token else state

    def control(self, state: State, number: int, body: Body, vcid: int) -> State:
        """A control batch."""
        node = state.nodes[number]
        fold, tick = self._logs.fold(node.view), self.tick(state, node)
        limit = self._limit(fold, tick, state.clock)
        return self.sequence(state, number, facts_of(fold, body, tick=tick, limit=limit, vcid=vcid))

    def data(self, state: State, number: int, admit: Admit) -> State:
        """An admitted batch."""
        node = state.nodes[number]
        fold, tick = self._logs.fold(node.view), self.tick(state, node)
        limit = self._limit(fold, tick + admit.count - 1, state.clock)
        return self.sequence(state, number, data_facts(fold, admit, tick=tick, limit=limit))

    def late_sequence(self, state: State, number: int) -> State:
        """What was judged some time ago (mutant)."""
        node = state.nodes[number]
        admit = node.judged
        assert isinstance(admit, Admit)
        return self.data(put(state, number, node._replace(judged=None)), number, admit)

    def term_record(self, state: State, number: int) -> State | None:
        """The first batch of a life."""
        node = state.nodes[number]
        fold = self._logs.fold(node.view)
        tick = start_of_term(limit=fold.limit, last_tick=fold.last_tick, clock_us=state.clock)
        body = Term(incarnation=f"{node.life}.{node.token}", limits=self._setup.limits)
        limit = self._limit(fold, tick, state.clock)
        facts = facts_of(fold, body, tick=tick, limit=limit, term=node.owner.term)
        return self.sequence(state, number, facts)

    def grant(self, state: State, number: int, producer: str) -> State | Refuse:
        """A named producer's next epoch."""
        node = state.nodes[number]
        verdict = orders.grant(self.fold_of(node), producer, tick=self.tick(state, node))
        return verdict if isinstance(verdict, Refuse) else self.control(state, number, verdict, 0)

    def _limit(self, fold: Fold, last_tick: int, clock: int) -> int:
        return next_limit(limit=fold.limit, last_tick=last_tick, clock_us=clock, step_us=STEP)

    # ------------------------------------------------------------------------- orders of others

    def acts(self, state: State, number: int) -> Iterator[tuple[Any, State]]:
        """What coordinators and timers have the owner write."""
        fold = self.fold_of(state.nodes[number])
        if "delete" in state.acts:
            verdict = orders.judge_delete(fold, 1)
            if isinstance(verdict, orders.Write):
                after = self.control(state, number, verdict.body, 1)
                yield ("node", number, "sequences the deletion of the channel"), after
        if "create" in state.acts and 1 in fold.deleted:
            create = orders.judge_create(fold, 2, Create(name=NAME), settings=DEFAULTS)
            if isinstance(create, orders.Write):
                after = self.control(state, number, create.body, 2)
                yield ("node", number, "sequences a channel of the same name"), after
        if "late create" in state.acts and 1 not in fold.vchannels:
            late = orders.judge_create(fold, 1, Create(name=NAME), settings=DEFAULTS)
            if isinstance(late, orders.Write):
                after = self.control(state, number, late.body, 1)
                yield ("node", number, "sequences an old order to create the channel"), after
        if "expire" in state.acts:
            for txn in fold.open:
                body = orders.judge_abort(fold, txn, "expired")
                if body is not None:
                    after = self.control(state, number, body, fold.open[txn].vcid)
                    yield ("node", number, "gives transaction", txn, "up"), after
