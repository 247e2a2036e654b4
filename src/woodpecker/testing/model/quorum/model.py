"""Kind ``quorum`` as a model: one segment, its N members, its writer, takers-over, sealing, readers.

The rules are the real functions (``rules.py``); here is the world around them. What was sent once
may arrive at any later time, again and again, or never: blocks and the LAC of the writer, its
acknowledgements, fences, repairs, the CAS of a live close. A process that is slow, stopped or dead is
one that makes no move. A reply that says what stays true (a vote, FENCED, GONE) is taken when the
asker hears it. Only one taker can be the owner, but those that were overtaken go on.

A state is a tuple of small numbers: the world without the members, then one number for each member
(its node, and what others know of it). Members are interchangeable: their numbers are sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.quorum_recovery import Contradiction, Decided
from woodpecker.core.replica import Vote
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.model.quorum.local import LocalMoves
from woodpecker.testing.model.quorum.manifest import Fate, Manifests
from woodpecker.testing.model.quorum.node import Node, tip
from woodpecker.testing.model.quorum.rules import RULES, Rules, Setup
from woodpecker.testing.model.quorum.state import (
    ASKING,
    DECIDED,
    DONE,
    HOLDER,
    IDLE,
    SHORT,
    Member,
    Role,
    Table,
    Taker,
    World,
)
from woodpecker.testing.model.quorum.story import told
from woodpecker.testing.model.quorum.writer import Change, Link, WriterMoves

Code = tuple[int, ...]  # a state
Move = tuple[object, ...]


class QuorumModel:
    """See the module. ``setup``: how big; ``rules``: those in force."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        assert setup.damages < setup.acks, "more damage than the protocol promises to survive"
        self._setup = setup
        self._rules = rules
        self._manifests = Manifests(setup.members, setup.acks)
        self._worlds = Table[World]()
        self._members = Table[Member]()
        self._local_moves = LocalMoves(setup, rules, self._manifests)
        self._writer_moves = WriterMoves(setup, rules, self._manifests, self._local_moves.nodes)
        # every one of these is a function of its arguments: computed once
        self._local = cache(self._find_local)
        self._alone = cache(self._find_alone)
        self._link = cache(self._find_link)
        self._written = cache(self._find_written)
        self._linked = cache(self._find_linked)
        self._busy = cache(self._find_busy)
        self._decided = cache(self._find_decided)
        self._with_role = cache(self._find_with_role)
        self._needs = cache(self._find_needs)

    # --- as the checker sees it ---

    def starts(self) -> Iterable[Code]:
        takers = self._setup.takers
        world = World(manifest=0, takers=(Taker(),) * takers)
        member = self._members.code(Member(node=Node(), roles=(None,) * takers))
        yield (self._worlds.code(world), *(member,) * self._setup.members)

    def canonical(self, state: Code) -> Code:
        return (state[0], *sorted(state[1:]))

    def fault(self, state: Code) -> str | None:
        text, needed = self._needs(state[0])
        if text is None and needed != NO_BLOCK:
            values = self._members.values
            if all(values[code].node.whole < needed for code in state[1:]):
                text = f"no disk holds everything up to block {needed} any more"
        return text

    def tell(self, before: Code, move: Move, after: Code) -> str:
        return told(move)

    def moves(self, state: Code) -> Iterator[tuple[Move, Code]]:
        code, members = state[0], state[1:]
        looked_at = -1
        for index, member in enumerate(members):
            if member == looked_at:
                continue  # as its neighbour
            looked_at = member
            for move, world, after in self._local(code, member):
                yield (index, *move), (world, *members[:index], after, *members[index + 1 :])
        for move, world in self._alone(code):
            yield move, (world, *members)
        if not self._worlds.values[code].has_ended:
            yield from self._writer(code, members)
        for taker in self._busy(code):
            yield from self._taker(code, members, taker)
        if self._rules.reader_counts_copies:
            yield from self._counting(code, members)

    def fate(self, state: Code) -> Fate:
        """What the manifest says of the segment."""
        return self._manifests.fate(self._worlds.values[state[0]].manifest)

    # --- one member, or none ---

    def _find_local(self, code: int, member: int) -> list[tuple[Move, int, int]]:
        world, values = self._worlds.values[code], self._members
        found = self._local_moves.of(world, values.values[member])
        return [(move, self._worlds.code(w), values.code(m)) for move, w, m in found]

    def _find_alone(self, code: int) -> list[tuple[Move, int]]:
        """Moves of the writer and the takers that no member takes part in."""
        world = self._worlds.values[code]
        found = [*self._writer_moves.alone(world), *self._takers_alone(world)]
        return [(move, self._worlds.code(after)) for move, after in found]

    def _takers_alone(self, world: World) -> Iterator[tuple[Move, World]]:
        fate = self._manifests.fate(world.manifest)
        for index, taker in enumerate(world.takers):
            if taker.phase == IDLE:  # they are alike: let them begin in order
                manifest = self._manifests.take(world.manifest, f"t{index}")
                if fate.end is None and manifest is not None:
                    begun = world._replace(manifest=manifest)
                    yield ("take", index), _with_taker(begun, index, Taker(phase=ASKING))
                break
        if fate.end is not None and fate.state == "closed" and self._setup.drops:
            for uploaded in sorted(world.uploaded):
                if self._rules.adopts(uploaded, fate.end):
                    manifest = self._manifests.seal(world.manifest)
                    assert manifest is not None
                    yield (
                        ("adopt", uploaded),
                        world._replace(manifest=manifest, object_end=uploaded),
                    )

    # --- the writer, which counts members ---

    def _writer(self, code: int, members: Code) -> Iterator[tuple[Move, Code]]:
        links = tuple(map(self._link, members))
        for move, world, changes in self._written(code, links):
            yield move, (world, *map(self._linked, members, changes))

    def _find_link(self, member: int) -> Link:
        return self._writer_moves.link(self._members.values[member])

    def _find_written(
        self, code: int, links: tuple[Link, ...]
    ) -> list[tuple[Move, int, tuple[Change, ...]]]:
        found = self._writer_moves.counting(self._worlds.values[code], links)
        return [(move, self._worlds.code(world), changes) for move, world, changes in found]

    def _find_linked(self, member: int, change: Change) -> int:
        value = self._members.values[member]
        if change is None:
            return self._members.code(value.forgotten())
        return self._members.code(value._replace(acked=change[0], is_lost=change[1]))

    # --- takers, which count members ---

    def _find_busy(self, code: int) -> list[int]:
        takers = self._worlds.values[code].takers
        return [index for index, taker in enumerate(takers) if taker.phase in (ASKING, DECIDED)]

    def _taker(self, code: int, members: Code, index: int) -> Iterator[tuple[Move, Code]]:
        world, values = self._worlds.values[code], self._members.values
        taker = world.takers[index]
        roles = tuple(values[member].roles[index] for member in members)
        if taker.phase == ASKING:
            decided = self._decided(roles)
            if decided is not None:
                end, after = decided
                yield from self._decide(world, members, index, end, after)
            return
        again = _with_taker(world, index, Taker(phase=ASKING))
        yield ("again", index), self._recast(again, members, index, (None,) * len(members))
        holders = tuple(i for i, role in enumerate(roles) if role == HOLDER)
        decision = Decided(tip=tip(taker.end), holders=holders)
        if taker.is_uploaded or self._rules.is_safe(self._setup.acks, decision, 0):
            owner = self._manifests.as_taker(world.manifest, f"t{index}")
            manifest = self._manifests.close(world.manifest, owner, taker.end)
            closed = world if manifest is None else world._replace(manifest=manifest)
            done = _with_taker(closed, index, Taker(phase=DONE))
            move = ("refused" if manifest is None else "close", index, taker.end)
            yield move, self._recast(done, members, index, (None,) * len(members))

    def _decide(
        self, world: World, members: Code, index: int, end: int, roles: tuple[Role, ...]
    ) -> Iterator[tuple[Move, Code]]:
        decided = _with_taker(world, index, Taker(phase=DECIDED, end=end))
        if SHORT in roles:
            decided = decided._replace(repaired=max(decided.repaired, end))
        yield ("decide", index, end), self._recast(decided, members, index, roles)

    def _find_decided(self, votes: tuple[Role, ...]) -> tuple[int, tuple[Role, ...]] | None:
        """What the votes say: the end, and what is known of each member then."""
        given = {index: vote for index, vote in enumerate(votes) if isinstance(vote, Vote)}
        try:
            decided = self._rules.decide(len(votes), self._setup.acks, given)
        except Contradiction as error:
            raise Broken(str(error)) from error
        if not isinstance(decided, Decided):
            return None
        short = self._rules.to_repair(self._setup.acks, decided, given)
        roles = (
            HOLDER if index in decided.holders else SHORT if index in short else None
            for index in range(len(votes))
        )
        return decided.number, tuple(roles)

    def _recast(self, world: World, members: Code, index: int, roles: tuple[Role, ...]) -> Code:
        after = (self._with_role(m, index, role) for m, role in zip(members, roles, strict=True))
        return (self._worlds.code(world), *after)

    def _find_with_role(self, member: int, taker: int, role: Role) -> int:
        return self._members.code(self._members.values[member].with_role(taker, role))

    # --- readers, and what must hold ---

    def _counting(self, code: int, members: Code) -> Iterator[tuple[Move, Code]]:
        """A reader asks the members themselves what is on their disks."""
        world, values = self._worlds.values[code], self._members.values
        held = sorted((values[m].node.whole for m in members), reverse=True)[self._setup.acks - 1]
        if held > world.shown:
            yield ("count", held), (self._worlds.code(world._replace(shown=held)), *members)

    def _find_needs(self, code: int) -> tuple[str | None, int]:
        """(the rule that is broken whatever the members hold, the last block that they must hold)."""
        world = self._worlds.values[code]
        end = self._manifests.fate(world.manifest).end
        needed = max(world.lac, world.shown, NO_BLOCK if end is None else end)
        if end is None:
            return None, needed
        ending = "the segment was dropped" if end == NO_BLOCK else f"the log ends at {end}"
        text = None
        if world.lac > end:
            text = f"acknowledged up to block {world.lac}, {ending}"
        elif world.shown > end:
            text = f"a reader was shown block {world.shown}, {ending}"
        elif world.not_written is not None and world.not_written <= end:
            text = f"block {world.not_written} was reported NotWritten, {ending}"
        elif world.object_end is not None and world.object_end != end:
            text = f"the sealed object ends at block {world.object_end}, {ending}"
        is_in_object = world.object_end is not None or end in world.uploaded
        return text, NO_BLOCK if is_in_object else needed


def is_closed(model: QuorumModel, state: Code) -> bool:
    """Whether the end of the segment is fixed."""
    return model.fate(state).end is not None


def _with_taker(world: World, index: int, taker: Taker) -> World:
    takers = (*world.takers[:index], taker, *world.takers[index + 1 :])
    return world._replace(takers=takers)
