"""Moves of the quorum model that one member takes part in: what arrives at it, its disk, its answers."""

from __future__ import annotations

from collections.abc import Iterator

from woodpecker.core.ids import NO_BLOCK, State
from woodpecker.testing.model.quorum.manifest import Manifests
from woodpecker.testing.model.quorum.node import HEALTHY, Answer, Node, Nodes
from woodpecker.testing.model.quorum.rules import Rules, Setup
from woodpecker.testing.model.quorum.state import (
    ASKING,
    DECIDED,
    HOLDER,
    IDLE,
    SHORT,
    Member,
    World,
)

Found = tuple[tuple[object, ...], World, Member]


class LocalMoves:
    """All that can happen to one member in a world; says nothing of moves that change nothing."""

    def __init__(self, setup: Setup, rules: Rules, manifests: Manifests) -> None:
        self.nodes = Nodes(rules, splits=setup.splits, remembers=setup.cuts_tails or setup.rots)
        self._setup = setup
        self._rules = rules
        self._manifests = manifests

    def of(self, world: World, member: Member) -> list[Found]:
        """(move, world after it, member after it)."""
        found = [
            *self._arrivals(world, member),
            *self._disk(world, member),
            *self._answers(world, member),
            *self._afterlife(world, member),
        ]
        return [item for item in found if item[1:] != (world, member)]

    def _arrivals(self, world: World, member: Member) -> Iterator[Found]:
        nodes, node = self.nodes, member.node
        for number in range(world.sent + 1):
            answer = nodes.append(node, number)
            yield ("append", number), world, _answered(world, member, answer)
        if any(taker.phase != IDLE for taker in world.takers):
            yield ("fence",), world, member._replace(node=nodes.fence(node))
        if world.strays < self._setup.strays:
            after = member._replace(node=nodes.fence(node))
            if after != member:
                yield ("stray fence",), world._replace(strays=world.strays + 1), after
        for number in range(world.repaired + 1):
            repaired = nodes.repair(node, number, world.repaired)
            yield ("repair", number), world, member._replace(node=repaired)

    def _disk(self, world: World, member: Member) -> Iterator[Found]:
        nodes, node, setup = self.nodes, member.node, self._setup
        if node.queue:
            yield ("sync", node.queue[0]), world, _answered(world, member, nodes.sync(node))
        if setup.splits:
            yield ("restart",), world, member._replace(node=nodes.restart(node))
            if setup.cuts_tails and node.queue and node.me == HEALTHY:
                yield ("tear",), world, member._replace(node=nodes.tear_tail(node))
        if world.damages < setup.damages:
            for what, after in nodes.damages(
                node, disk=setup.loses_disks, cut=setup.cuts_tails, rot=setup.rots
            ):
                damaged = world._replace(damages=world.damages + 1)
                yield ("damage", what), damaged, member._replace(node=after)

    def _answers(self, world: World, member: Member) -> Iterator[Found]:
        """What takers and readers hear from the member."""
        nodes, node = self.nodes, member.node
        for index, taker in enumerate(world.takers):
            role = member.roles[index]
            if taker.phase == ASKING and role is None:
                vote = nodes.vote(node, self._told(world))
                if vote is not None:
                    yield ("vote", index, vote), world, member.with_role(index, vote)
            elif taker.phase == DECIDED and role == SHORT and nodes.has_stored(node, taker.end):
                yield ("stored", index), world, member.with_role(index, HOLDER)
            elif taker.phase == DECIDED and role == HOLDER and self._uploads(world, index, node):
                takers = list(world.takers)
                takers[index] = taker._replace(is_uploaded=True)
                uploaded = world.uploaded | {taker.end}
                yield (
                    ("upload", index, taker.end),
                    world._replace(takers=tuple(takers), uploaded=uploaded),
                    member,
                )
        if self._setup.reads:
            shown = max(world.shown, nodes.shows(node, world.lac))
            yield ("read", shown), world._replace(shown=shown), member

    def _told(self, world: World) -> int:
        """The LAC as a member knows it; who learns from a manifest what is confirmed tells nobody."""
        is_open = self._manifests.fate(world.manifest).end is None
        return world.lac if self._setup.tells and is_open else NO_BLOCK

    def _uploads(self, world: World, index: int, node: Node) -> bool:
        taker = world.takers[index]
        return (
            self._setup.uploads
            and not taker.is_uploaded
            and taker.end != NO_BLOCK
            and self._rules.may_seal(node.whole, taker.end)
            and node.copy is not None
        )

    def _afterlife(self, world: World, member: Member) -> Iterator[Found]:
        """Sealing by a member, and what it forgets then."""
        if not self._setup.drops:
            return
        fate, node = self._manifests.fate(world.manifest), member.node
        end = fate.end if fate.state is State.CLOSED and node.copy is not None else None
        if end is not None and self._rules.may_seal(node.whole, end):
            manifest = self._manifests.seal(world.manifest)
            assert manifest is not None
            held = min(node.whole, end)
            yield ("seal", held), world._replace(manifest=manifest, object_end=held), member
        floor = self._rules.floor_of(fate.lowest_unsealed, fate.next_segment_id)
        floored = self.nodes.raise_floor(node, floor)
        yield ("floor",), world, member._replace(node=floored)


def _answered(world: World, member: Member, answer: Answer) -> Member:
    told = NO_BLOCK if world.has_ended else max(member.told, answer.acked)
    return member._replace(node=answer.node, told=told)
