"""One pchannel, two coordinators at once, two nodes: the machine of ``streaming/core/assignment.py`` at work.

Decisions are made of what is true, or of less (a node unheard, a living one taken for gone), and written
later, when it may be true no more. Writes are lost, land late or without an answer; what a node is told
arrives at will, late, again or never. Time is left out: at any step nothing may be due, or everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import NamedTuple

from woodpecker.streaming.core import assignment
from woodpecker.streaming.core.assignment import (
    Act,
    Ask,
    Memory,
    NodeLife,
    Release,
    Reread,
    Sight,
    Timing,
    View,
    Wait,
    Write,
)
from woodpecker.streaming.core.fleet import Standing
from woodpecker.streaming.core.records import Assignment, Owner, PchannelRecord
from woodpecker.streaming.frames import PchannelStatus
from woodpecker.testing.model.checker import Broken

NEVER = float("inf")
NOTHING_DUE = Timing(session_ttl_ms=NEVER, release_timeout_ms=NEVER, open_stall_ms=NEVER)
ALL_DUE = Timing(session_ttl_ms=0.0, release_timeout_ms=0.0, open_stall_ms=0.0)
START = PchannelRecord(name="p", log="stream.p", log_id="0" * 32)

Told = tuple[int, int, int]  # node, life, term
StepFunction = Callable[[PchannelRecord, Memory, View, Timing], tuple[Memory, Act]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How big the world is, and how often it may be bad."""

    elections: int = 2
    deaths: int = 1
    lies: int = 0  # living nodes taken for gone
    failures: int = 0  # of openings
    wishes: int = 0  # planned moves
    silences: int = 1  # writes without an answer
    terms: int = 3
    is_deaf: bool = False  # living nodes are not always heard
    is_stubborn: bool = False  # nobody ever gives a pchannel up

    def __str__(self) -> str:
        parts = [
            f"{self.elections} elections",
            f"{self.deaths} deaths" if self.deaths else "",
            f"{self.lies} wrong burials" if self.lies else "",
            f"{self.failures} failed openings" if self.failures else "",
            f"{self.wishes} moves" if self.wishes else "",
            f"{self.silences} lost answers" if self.silences else "",
            "nodes unheard" if self.is_deaf else "",
            "nobody lets go" if self.is_stubborn else "",
            f"{self.terms} terms",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Those in force; mutants replace some."""

    step: StepFunction = assignment.step
    tells_early: bool = False  # nodes are told of what is about to be written
    writes_blindly: bool = False  # without comparing
    trusts_unknown: bool = False  # a write without an answer is taken for done
    forgets_doubt: bool = False  # ... or for lost, when the record does not show it yet
    releases_early: bool = False  # the old owner is told before the record is written
    mixes_lives: bool = False  # what another life of the node says counts


class Node(NamedTuple):
    """A node as it is. ``term``: of what it was last told to serve."""

    life: int = 1
    up: bool = True
    term: int = 0
    state: str = "idle"


class Coordinator(NamedTuple):
    """One coordinator. ``epoch`` 0: it does not lead, as far as it knows."""

    epoch: int = 0
    record: PchannelRecord = START
    version: int = 0
    memory: Memory = Memory()
    pending: PchannelRecord | None = None


class World(NamedTuple):
    """All of it. ``owners``: of every term that was ever written, by term."""

    record: PchannelRecord = START
    version: int = 0
    epoch: int = 0
    coordinators: tuple[Coordinator, ...] = (Coordinator(), Coordinator())
    nodes: tuple[Node, ...] = (Node(), Node())
    owners: tuple[tuple[int, int, int], ...] = ()  # term, node, life
    asked: frozenset[Told] = frozenset()
    released: frozenset[Told] = frozenset()
    late: frozenset[tuple[PchannelRecord, int]] = frozenset()
    claim: int = 0  # the newest term that was served
    deaths: int = 0
    lies: int = 0
    failures: int = 0
    wishes: int = 0
    silences: int = 0


Step = tuple[str, World]


class AssignmentModel:
    """See the module. ``setup``: how big; ``rules``: those in force."""

    def __init__(self, setup: Setup, rules: Rules = Rules()) -> None:
        self._setup = setup
        self._rules = rules
        self._choices = cache(self._all_choices)

    # --- as the checker sees it ---

    def starts(self) -> Iterable[World]:
        yield World()

    def canonical(self, state: World) -> World:
        """Without what can have no consequences any more."""
        asked = {
            (who, life, term)
            for who, life, term in state.asked
            if _can_hear(state.nodes[who], life) and term > state.nodes[who].term
        }
        released = {
            (who, life, term)
            for who, life, term in state.released
            if _can_hear(state.nodes[who], life) and term >= state.nodes[who].term
        }
        late = {write for write in state.late if write[1] == state.version}
        return state._replace(
            asked=frozenset(asked), released=frozenset(released), late=frozenset(late)
        )

    def tell(self, before: World, move: str, after: World) -> str:
        return move

    def fault(self, state: World) -> str | None:
        terms = [term for term, _, _ in state.owners]
        if len(set(terms)) < len(terms):
            return "two owners were written under one term"
        if terms and state.record.term < max(terms):
            return "the record's term has fallen"
        if state.record.state is Assignment.ASSIGNED and state.record.term > state.claim:
            return "a term that was never served is written as ASSIGNED"
        return None

    def is_good(self, state: World) -> bool:
        """Served as the record says and by nobody else, or the world's terms are used up."""
        record = state.record
        if record.term >= self._setup.terms:
            return True
        if record.state is not Assignment.ASSIGNED or record.owner is None:
            return False
        serving = [node for node in state.nodes if node.up and node.state == "serving"]
        if len(serving) > 1 and not self._setup.is_stubborn:
            return False
        node = state.nodes[_number(record.owner)]
        return node.up and (node.life, node.term, node.state) == (
            int(record.owner.incarnation),
            record.term,
            "serving",
        )

    def moves(self, state: World) -> Iterator[Step]:
        for index, coordinator in enumerate(state.coordinators):
            yield from self._elections(state, index, coordinator)
            if coordinator.epoch and coordinator.pending is None:
                yield from self._decisions(state, index, coordinator)
            elif coordinator.pending is not None:
                yield from self._writes(state, index, coordinator, coordinator.pending)
        for record, expect in sorted(state.late, key=str):
            rest = state._replace(late=state.late - {(record, expect)})
            if expect == state.version:
                yield f"a late write lands: term {record.term}", _written(rest, record)
        for index, node in enumerate(state.nodes):
            yield from self._node(state, index, node)

    # --- coordinators ---

    def _elections(self, world: World, index: int, me: Coordinator) -> Iterator[Step]:
        if world.epoch < self._setup.elections and not me.epoch:
            epoch = world.epoch + 1
            leader = Coordinator(epoch=epoch, record=world.record, version=world.version)
            yield (
                f"coordinator {index} is elected, epoch {epoch}",
                _with(world._replace(epoch=epoch), index, leader),
            )
        if me.epoch and me.epoch < world.epoch:
            late = world.late
            if me.pending is not None:
                late |= {(me.pending, me.version)}
            yield (
                f"coordinator {index} crashes, or finds out",
                _with(world._replace(late=late), index, Coordinator()),
            )

    def _decisions(self, world: World, index: int, me: Coordinator) -> Iterator[Step]:
        """Everything that it may decide of what it may believe."""
        room = (self._setup.lies - world.lies, self._setup.wishes - world.wishes)
        for memory, act, lies, wishes in self._choices(me, world.nodes, *room):
            used = world._replace(lies=world.lies + lies, wishes=world.wishes + wishes)
            yield from self._done(used, index, me._replace(memory=memory), act)

    def _all_choices(
        self, me: Coordinator, nodes: tuple[Node, ...], lies_left: int, wishes_left: int
    ) -> list[tuple[Memory, Act, int, int]]:
        """(memory, act, lies used, wishes used), each once."""
        found: dict[tuple[Memory, Act], tuple[int, int]] = {}
        deaf = ("unheard",) if self._setup.is_deaf else ()
        for ears in product(("heard", "gone", *deaf), repeat=len(nodes)):
            lies = sum(ear == "gone" and node.up for ear, node in zip(ears, nodes, strict=True))
            if lies > lies_left:
                continue
            for timing, wish in product((NOTHING_DUE, ALL_DUE), (False, True)):
                if wish and not wishes_left:
                    continue
                view = self._view(nodes, me, ears, wish=wish)
                memory, act = self._rules.step(me.record, me.memory, view, timing)
                memory = replace(
                    memory,
                    released_again_ms=0.0,  # always due: time is left out
                    failures=0,
                    retry_ms=0.0,
                    reason="",
                    progress=None,
                )
                if (lies or wish) and not isinstance(act, Write):
                    continue  # what was believed had no consequences
                found.setdefault((memory, act), (lies, int(wish)))
        return [(*decision, *used) for decision, used in found.items()]

    def _view(
        self, nodes: tuple[Node, ...], me: Coordinator, ears: tuple[str, ...], *, wish: bool
    ) -> View:
        fit = [
            NodeLife(node=f"n{number}", incarnation=str(node.life), address="")
            for number, (node, ear) in enumerate(zip(nodes, ears, strict=True))
            if node.up and ear == "heard"
        ]

        def choose(avoid: Collection[str]) -> NodeLife | None:
            return next((life for life in fit if life.node not in avoid), None)

        owner = me.record.owner
        return View(
            now_ms=assignment.RELEASE_AGAIN_MS,
            epoch=me.epoch,
            owner=None if owner is None else self._sight(nodes, owner, ears),
            formers=tuple(self._sight(nodes, former, ears) for former in me.record.former),
            choose=choose,
            others=tuple(
                Owner(node=f"n{number}", incarnation=str(node.life), address="", term=node.term)
                for number, (node, ear) in enumerate(zip(nodes, ears, strict=True))
                if node.up and ear == "heard" and node.state in assignment.HOLDING
            ),
            move_to=choose((owner.node,)) if wish and owner is not None else None,
        )

    def _sight(self, nodes: tuple[Node, ...], owner: Owner, ears: tuple[str, ...]) -> Sight:
        number = _number(owner)
        node, ear = nodes[number], ears[number]
        is_same = str(node.life) == owner.incarnation or self._rules.mixes_lives
        if not is_same or ear == "gone":
            return Sight(standing=Standing.GONE, is_heard=False)
        if ear == "unheard" or not node.up:
            return Sight(standing=Standing.LIVE, is_heard=False)
        status = PchannelStatus(pchannel="p", term=node.term, state=node.state)
        return Sight(standing=Standing.LIVE, is_heard=True, status=status if node.term else None)

    def _done(self, world: World, index: int, me: Coordinator, act: Act) -> Iterator[Step]:
        who = f"coordinator {index}"
        match act:
            case Wait():
                return
            case Reread():
                yield f"{who} reads again", _reread(world, index, me)
            case Ask():
                asked = _with(_asked(world, me.record), index, me)
                yield f"{who} asks the owner of term {me.record.term}", asked
            case Release(owners=owners):
                told = {(_number(o), int(o.incarnation), o.term) for o in owners}
                world = world._replace(released=world.released | told)
                yield f"{who} releases {sorted(told)}", _with(world, index, me)
            case Write(record=wanted):
                if wanted.term > self._setup.terms:
                    return
                if self._rules.tells_early:
                    world = _asked(world, wanted)
                if self._rules.releases_early and me.record.owner is not None:
                    old = me.record.owner
                    told = {(_number(old), int(old.incarnation), old.term)}
                    world = world._replace(released=world.released | told)
                owner = "nobody" if wanted.owner is None else wanted.owner.node
                yield (
                    f"{who} sends {wanted.state}, term {wanted.term}, {owner}",
                    _with(world, index, me._replace(pending=wanted)),
                )

    def _writes(
        self, world: World, index: int, me: Coordinator, wanted: PchannelRecord
    ) -> Iterator[Step]:
        who, done = f"coordinator {index}", me._replace(pending=None)
        if me.version == world.version or self._rules.writes_blindly:
            after = _written(world, wanted)
            yield (
                f"the write of {who} lands",
                _with(after, index, done._replace(record=wanted, version=after.version)),
            )
        else:
            yield f"{who} meets a conflict", _reread(world, index, done)
        if world.silences >= self._setup.silences:
            return
        quiet = world._replace(silences=world.silences + 1)
        lost = quiet._replace(late=world.late | {(wanted, me.version)})
        unheard = f"{who} hears nothing of its write"
        if self._rules.trusts_unknown:
            yield unheard, _with(lost, index, done._replace(record=wanted))
        elif self._rules.forgets_doubt:
            yield unheard, _reread(lost, index, done)
        elif me.version == world.version:  # it sends the same again until it sees the version move
            yield f"the write of {who} lands, unheard", _written(quiet, wanted)

    # --- nodes ---

    def _node(self, world: World, index: int, node: Node) -> Iterator[Step]:
        def after(changed: Node, **other: int) -> World:
            nodes = tuple(changed if i == index else n for i, n in enumerate(world.nodes))
            return world._replace(nodes=nodes, **other)  # type: ignore[arg-type]

        if not node.up:
            yield f"node {index} returns", after(Node(life=node.life + 1))
            return
        if world.deaths < self._setup.deaths:
            yield (
                f"node {index} dies",
                after(Node(life=node.life, up=False), deaths=world.deaths + 1),
            )
        for who, life, term in sorted(world.asked):
            is_meant = (who, life) == (index, node.life) and term > node.term
            if is_meant and _is_owner(world.record, index, life, term):
                opening = node._replace(term=term, state="opening")
                yield f"node {index} opens term {term}", after(opening)
        yield from self._opening(world, index, node, after)
        for who, life, term in sorted(world.released):
            is_held = node.state in ("opening", "serving") and node.term <= term
            if (who, life) == (index, node.life) and is_held and not self._setup.is_stubborn:
                if _is_owner(world.record, index, life, node.term):
                    raise Broken(
                        f"node {index} is released from term {node.term}, which the record gives it",
                        move=f"node {index} is released",
                    )
                yield (
                    f"node {index} gives term {node.term} up",
                    after(node._replace(state="closed")),
                )

    def _opening(
        self, world: World, index: int, node: Node, after: Callable[..., World]
    ) -> Iterator[Step]:
        if node.state == "opening":
            if world.claim <= node.term:
                serving = node._replace(state="serving")
                yield f"node {index} serves term {node.term}", after(serving, claim=node.term)
            else:
                yield f"node {index} is fenced", after(node._replace(state="failed"))
            if world.failures < self._setup.failures:
                failed = after(node._replace(state="failed"), failures=world.failures + 1)
                yield f"node {index} fails to open term {node.term}", failed


def _can_hear(node: Node, life: int) -> bool:
    return node.up and node.life == life


def _number(owner: Owner) -> int:
    return int(owner.node[1:])


def _with(world: World, index: int, coordinator: Coordinator) -> World:
    others = enumerate(world.coordinators)
    return world._replace(
        coordinators=tuple(coordinator if i == index else other for i, other in others)
    )


def _written(world: World, record: PchannelRecord) -> World:
    owners = world.owners
    if record.owner is not None:
        entry = (record.term, _number(record.owner), int(record.owner.incarnation))
        owners = owners if entry in owners else (*owners, entry)
    return world._replace(record=record, version=world.version + 1, owners=owners)


def _reread(world: World, index: int, me: Coordinator) -> World:
    """It sees what is there; a newer coordinator's hand deposes it."""
    if world.record.epoch > me.epoch:
        return _with(world, index, Coordinator())
    return _with(world, index, me._replace(record=world.record, version=world.version))


def _asked(world: World, record: PchannelRecord) -> World:
    owner = record.owner
    assert owner is not None
    told = (_number(owner), int(owner.incarnation), owner.term)
    if (owner.term, told[0], told[1]) not in world.owners:
        raise Broken(
            f"{owner.node} is asked to serve term {owner.term}, which was never written",
            move=f"{owner.node} is asked to serve term {owner.term}",
        )
    return world._replace(asked=world.asked | {told})


def _is_owner(record: PchannelRecord, node: int, life: int, term: int) -> bool:
    owner = record.owner
    return (
        owner is not None
        and (_number(owner), int(owner.incarnation), owner.term) == (node, life, term)
        and record.term == term
    )
