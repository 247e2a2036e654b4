"""Moves of the writer in the quorum model: it submits, hears members, asks the manifest, closes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.quorum_append import (
    Acked,
    Event,
    Fail,
    Judge,
    Judged,
    Lost,
    Pipeline,
    Stopped,
    Submit,
)
from woodpecker.core.replica import Verdict
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.model.quorum.manifest import WRITER, Manifests
from woodpecker.testing.model.quorum.node import Nodes
from woodpecker.testing.model.quorum.rules import Rules, Setup
from woodpecker.testing.model.quorum.state import Member, World

STOPPED = (Verdict.FENCED, Verdict.GONE)
LOST = (Verdict.FOREIGN, Verdict.RETIRED)


class Link(NamedTuple):
    """A member as the writer may hear it. ``verdicts``: to each block, were it sent now."""

    told: int
    acked: int
    is_lost: bool
    verdicts: tuple[Verdict, ...]


Links = tuple[Link, ...]
Change = tuple[int, bool] | None
"""(acked, is_lost) of a member after a move; None: the writer has ended, nothing counts any more."""
Step = tuple[tuple[object, ...], World, tuple[Change, ...]]
"""Move, world after it, and what it changes for each member."""


class WriterMoves:
    """See the module."""

    def __init__(self, setup: Setup, rules: Rules, manifests: Manifests, nodes: Nodes) -> None:
        self._setup = setup
        self._rules = rules
        self._manifests = manifests
        self._nodes = nodes

    def link(self, member: Member) -> Link:
        """What the writer can hear of a member."""
        blocks = range(self._setup.blocks)
        verdicts = tuple(self._nodes.asked(member.node, number).verdict for number in blocks)
        return Link(member.told, member.acked, member.is_lost, verdicts)

    def alone(self, world: World) -> Iterator[tuple[tuple[object, ...], World]]:
        """Moves in which it hears nobody."""
        rules = self._rules
        closing, number = world.closing, world.sent + 1
        is_sending = closing is None or rules.sends_after_choosing_end
        if is_sending and not world.has_ended and number < self._setup.blocks:
            after, _ = rules.step(self._pipeline(world, ()), Submit(number=number))
            yield ("submit", number), world._replace(sent=after.sent)
        if self._setup.closes and not world.has_ended and closing is None:
            end = rules.end_of_live_close(self._pipeline(world, ()))
            if end is not None:
                yield ("choose end", end), world._replace(closing=end)
        if closing is not None:
            manifest = self._manifests.close(world.manifest, WRITER, closing)
            if manifest is not None:
                yield ("live close", closing), world._replace(manifest=manifest)

    def counting(self, world: World, links: Links) -> Iterator[Step]:
        """Moves in which it hears a member."""
        if world.sent == NO_BLOCK:
            return
        for index, link in enumerate(links):
            for number in range(link.acked + 1, link.told + 1):
                move = (index, "hears ack", number)
                yield self._stepped(world, links, move, Acked(member=index, number=number))
            heard = link.verdicts[: world.sent + 1]
            if Verdict.MISMATCH in heard:
                raise Broken("a member contradicts its writer", move=(index, "mismatch"))
            if link.is_lost:
                continue
            if any(verdict in LOST for verdict in heard):
                yield self._stepped(
                    world, links, (index, "hears lost"), Lost(member=index, has_forgotten=True)
                )
            if any(verdict in STOPPED for verdict in heard):
                yield self._stepped(world, links, (index, "hears fenced"), Stopped(member=index))

    def _stepped(self, world: World, links: Links, move: tuple[object, ...], event: Event) -> Step:
        pipeline, effects = self._rules.step(self._pipeline(world, links), event)
        for effect in effects:
            if isinstance(effect, Judge):  # the manifest is read, linearizably, after the answer
                pipeline, effects = self._rules.step(pipeline, self._judged(world, effect.member))
        self._check_known_copies(world, links, event, pipeline)
        known = [e.not_written_from for e in effects if isinstance(e, Fail)]
        after = world._replace(lac=pipeline.lac, has_ended=pipeline.has_ended)
        if known and known[0] is not None:
            after = after._replace(not_written=known[0])
        if pipeline.has_ended:
            return move, after, (None,) * len(links)
        changes = tuple((a, i in pipeline.lost) for i, a in enumerate(pipeline.acked))
        return move, after, changes

    def _check_known_copies(
        self, world: World, links: Links, event: Event, pipeline: Pipeline
    ) -> None:
        """What is acknowledged is on A disks, as far as the writer can know."""
        if not self._setup.checks_copies or not isinstance(event, Acked):
            return
        known = sum(link.told >= pipeline.lac and not link.is_lost for link in links)
        if pipeline.lac > world.lac and known < self._setup.acks:
            raise Broken(
                f"block {pipeline.lac} is acknowledged, and only {known} members are known to have it",
                move=(event.member, "hears ack", event.number),
            )

    def _judged(self, world: World, member: int) -> Judged:
        fate = self._manifests.fate(world.manifest)
        mine = fate.owner == WRITER.token
        end = fate.end if fate.state is not None else None
        return Judged(member=member, state=fate.state, mine=mine, end_block=end)

    def _pipeline(self, world: World, links: Links) -> Pipeline:
        return Pipeline(
            acks=self._setup.acks,
            acked=tuple(link.acked for link in links),
            lost=frozenset(i for i, link in enumerate(links) if link.is_lost),
            sent=world.sent,
            lac=world.lac,
            has_ended=world.has_ended,
        )
