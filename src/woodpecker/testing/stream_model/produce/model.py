"""Every order of events of owners and producers over one log, in a small world."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from woodpecker.streaming.core.owner import (
    AssignAsked,
    ClaimRefused,
    Event,
    OpenWriter,
    ReadRecord,
    RecordRead,
    ReleaseAsked,
    Replay,
    Serve,
    Stop,
    Stopped,
    TermRecorded,
    WriterEnded,
    WriterOpened,
    step,
)
from woodpecker.streaming.core.owner import State as Life
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.stream_model.logs import EMPTY, Logs
from woodpecker.testing.stream_model.produce import writing
from woodpecker.testing.stream_model.produce.checks import Checks
from woodpecker.testing.stream_model.produce.clients import Clients
from woodpecker.testing.stream_model.produce.rules import RULES, Rules
from woodpecker.testing.stream_model.produce.state import Client, Node, Setup, State

Move = tuple[Any, State]


class ProduceModel:
    """A world of ``setup`` under ``rules``."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        self.setup = setup
        self.rules = rules
        self.logs = Logs(rules.new_fold)
        self.writing = writing.Writing(self.logs, setup, rules)
        self.clients = Clients(self.logs, self.writing, setup, rules)
        self.checks = Checks(self.logs, setup, rules)

    def starts(self) -> list[State]:
        setup = self.setup
        log = self.writing.first_log()
        return [
            State(
                term=0,
                orders=(),
                claim=None,
                token=0,
                flight=log,
                log=log,
                nodes=(Node(),) * setup.nodes,
                clients=(Client(),) * len(setup.scripts),
                crashes=setup.crashes,
                cuts=setup.cuts,
                fails=setup.fails,
                jumps=setup.jumps,
                clock=0,
                acts=setup.acts,
            )
        ]

    def canonical(self, state: State) -> State:
        """The first order goes to node 0 (``_coordinator``): no other symmetry is left."""
        return state

    def fault(self, state: State) -> str | None:
        return self.checks.fault(state)

    def tell(self, before: State, move: Any, after: State) -> str:
        words = ("...",) if move is None else move
        return f"{' '.join(map(str, words))}   [log ends at {self.logs.end(after.log)}]"

    def moves(self, state: State) -> Iterator[Move]:
        yield from self._coordinator(state)
        for number in range(len(state.nodes)):
            yield from self._node(state, number)
            yield from self._owner_acts(state, number)
        yield from self._log(state)
        yield from self.clients.moves(state)
        if state.jumps:
            clock = max(state.clock, self.logs.fold(state.flight).last_tick) + writing.JUMP
            yield ("much time passes",), state._replace(jumps=state.jumps - 1, clock=clock)

    # ----------------------------------------------------------------- coordinator and the log

    def _coordinator(self, state: State) -> Iterator[Move]:
        if state.term == self.setup.terms:
            return
        for number, node in enumerate(state.nodes):
            if state.term == 0 and number:
                continue  # all nodes are alike before the first order
            term = state.term + 1
            orders = (*state.orders, (number, node.life))
            yield (
                ("record: term", term, "on node", number),
                state._replace(term=term, orders=orders),
            )

    def _log(self, state: State) -> Iterator[Move]:
        if state.log != state.flight:
            log = self.logs.towards(state.log, state.flight)
            yield ("the log takes a batch",), state._replace(log=log)

    # ----------------------------------------------------------------------------------- nodes

    def _node(self, state: State, number: int) -> Iterator[Move]:
        node = state.nodes[number]
        for index, (on, life) in enumerate(state.orders):
            term = index + 1
            if on == number and life == node.life and term > node.owner.wanted:
                yield self._order(state, number, AssignAsked(term=term))
            elif on != number and "release" in self.setup.acts and term > node.owner.wanted:
                yield self._order(state, number, ReleaseAsked(term=term))
        if node.todo is not None:
            yield from self._work(state, number, node)
        if node.token:
            acked = self.logs.shared(node.view, state.log)
            if acked != node.acked:
                yield (
                    ("node", number, "hears what is durable"),
                    self._with(state, number, acked=acked),
                )
            is_fenced = node.token != state.token
            if node.owner.state in {Life.REPLAYING, Life.SERVING} and (is_fenced or state.fails):
                yield self._writer_ends(state, number, node, is_fenced=is_fenced)
        if state.crashes and node != Node(life=node.life):
            fresh = Node(life=node.life + 1)
            after = self._put(state, number, fresh)._replace(crashes=state.crashes - 1)
            yield ("node", number, "crashes"), after

    def _order(self, state: State, number: int, event: Event) -> Move:
        return ("node", number, event), self._step(state, number, event)

    def _step(self, state: State, number: int, event: Event, **changes: Any) -> State:
        node = state.nodes[number]._replace(**changes)
        owner, effect = step(node.owner, event)
        todo = node.todo if effect is None else effect
        if isinstance(event, Stopped) and effect is None:
            todo = None
        return self._put(state, number, node._replace(owner=owner, todo=todo))

    def _writer_ends(self, state: State, number: int, node: Node, *, is_fenced: bool) -> Move:
        mine = state.claim == (node.owner.term, number, node.life)
        event = WriterEnded(is_mine=mine, monotonic_ms=0)
        if not is_fenced:
            state = state._replace(fails=state.fails - 1)
        return ("node", number, event), self._step(state, number, event)

    def _work(self, state: State, number: int, node: Node) -> Iterator[Move]:
        """What the driver is doing comes to an end, or a part of it."""
        match node.todo:
            case ReadRecord(term=term):
                mine = state.term == term and state.orders[-1] == (number, node.life)
                event = RecordRead(is_mine=mine or not self.rules.reads_record, term=state.term)
                yield self._done(state, number, event)
            case OpenWriter(term=term):
                yield self._open(state, number, (term, number, node.life))
            case Replay() if node.view == state.log and node.acked == node.view:
                if self._is_recorded(node):
                    yield self._done(state, number, TermRecorded())
                else:
                    yield from self._record_term(state, number)
            case Stop():
                gone = self._ghost(node)
                after = self._step(state, number, Stopped(), **gone)
                yield ("node", number, "has stopped"), after

    def _ghost(self, node: Node) -> dict[str, Any]:
        gone: dict[str, Any] = {"token": 0, "view": EMPTY, "acked": EMPTY, "judged": None}
        if not self.rules.folds_again:
            gone["tables"] = node.view
        return gone

    def _done(self, state: State, number: int, event: Event) -> Move:
        state = self._with(state, number, todo=None)
        return ("node", number, event), self._step(state, number, event)

    def _open(self, state: State, number: int, claim: tuple[int, int, int]) -> Move:
        if not self.rules.claim_allows(state.claim, claim):
            return self._done(state, number, ClaimRefused())
        token = state.token + 1
        state = state._replace(claim=claim, token=token, flight=state.log)
        state = self._with(state, number, token=token, view=state.log, acked=state.log)
        return self._done(state, number, WriterOpened())

    def _is_recorded(self, node: Node) -> bool:
        fold = self.logs.fold(node.view)
        return (fold.term, fold.incarnation) == (node.owner.term, f"{node.life}.{node.token}")

    def _record_term(self, state: State, number: int) -> Iterator[Move]:
        node = state.nodes[number]
        if node.owner.term < self.logs.fold(node.view).term:
            raise Broken(
                "terms fall along the log: an old term took it back", move=("node", number)
            )
        after = self.writing.term_record(state, number)
        if after is not None:
            yield ("node", number, "sequences its term record"), after

    def _owner_acts(self, state: State, number: int) -> Iterator[Move]:
        if not is_serving(state.nodes[number]):
            return
        yield from self.writing.acts(state, number)
        node = state.nodes[number]
        if node.judged is not None:
            yield (
                ("node", number, "sequences what it admitted"),
                self.writing.late_sequence(state, number),
            )
        yield from self._read_point(state, number, node)

    def _read_point(self, state: State, number: int, node: Node) -> Iterator[Move]:
        """The confirmed position, told after a proof of ownership begun after the request."""
        asked = state.asked
        if "read point" in state.acts and asked is None:
            needed = self.checks.acknowledged_end(state)
            asked = (number, node.token, needed, not self.rules.proves_ownership)
            yield ("node", number, "is asked for a read point"), state._replace(asked=asked)
        elif asked is not None and asked[:2] == (number, node.token):
            if not asked[3] and node.token == state.token:
                yield (
                    ("node", number, "proves that it owns"),
                    state._replace(asked=(*asked[:3], True)),
                )
            elif asked[3]:
                if self.logs.end(node.acked) < asked[2]:
                    raise Broken(
                        "a read point does not cover what was acknowledged before it was asked for",
                        move=("node", number, "answers with", self.logs.end(node.acked)),
                    )
                acts = tuple(act for act in state.acts if act != "read point")
                yield (
                    ("node", number, "tells its read point"),
                    state._replace(asked=None, acts=acts),
                )

    # --------------------------------------------------------------------------------- helpers

    def _put(self, state: State, number: int, node: Node) -> State:
        return writing.put(state, number, node)

    def _with(self, state: State, number: int, **changes: Any) -> State:
        return writing.put(state, number, state.nodes[number]._replace(**changes))


def is_serving(node: Node) -> bool:
    """Whether it admits."""
    return isinstance(node.todo, Serve) and node.owner.state is Life.SERVING
