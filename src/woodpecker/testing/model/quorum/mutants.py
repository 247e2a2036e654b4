"""Rules of kind ``quorum`` left out: functions that take the place of a real one in ``Rules``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from woodpecker.core import quorum_append as append
from woodpecker.core import quorum_recovery as recovery
from woodpecker.core import replica as node
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.quorum_append import Effect, Event, Fail, Pipeline
from woodpecker.core.quorum_recovery import Decided, Undecided
from woodpecker.core.replica import (
    BlockIn,
    Decision,
    FenceMark,
    Identity,
    Replica,
    Target,
    Tip,
    Verdict,
    Vote,
)
from woodpecker.testing.model.quorum.node import tip

Votes = Mapping[int, Vote]


# --- nodes ---


def takes_anything(
    me: Identity, floor: int, copy: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A block that leaves a gap is accepted."""
    decision = node.on_append(me, floor, copy, target, block)
    if decision.verdict is not Verdict.GAP:
        return decision
    copy = copy or Replica(incarnation=target.incarnation, epoch=target.epoch)
    last = Tip(number=block.number, end_seq=block.end_seq, digest=block.digest)
    return Decision(verdict=Verdict.STORE, replica=replace(copy, queued=last), last=block.number)


def takes_though_cut(
    me: Identity, floor: int, copy: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A past incarnation goes on taking blocks."""
    current = replace(me, incarnation=target.incarnation) if target.incarnation in me.past else me
    return node.on_append(replace(current, past=frozenset()), floor, copy, target, block)


def takes_though_unsure(
    me: Identity, floor: int, copy: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A copy that lost a record goes on taking blocks."""
    known = copy and replace(copy, is_unsure=False)
    decision = node.on_append(me, floor, known, target, block)
    kept = decision.replica and replace(decision.replica, is_unsure=bool(copy and copy.is_unsure))
    return replace(decision, replica=kept)


def answers_repaired(
    me: Identity, floor: int, copy: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A fenced copy still answers the writer for blocks that it has: repaired ones as well."""
    decision = node.on_append(me, floor, copy, target, block)
    if decision.verdict is Verdict.FENCED and copy is not None and block.number <= copy.last:
        return replace(decision, verdict=Verdict.WAIT)
    return decision


def ignores_fence(
    me: Identity, floor: int, copy: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A fence stops nobody."""
    free = copy and replace(copy, fence=None)
    decision = node.on_append(me, floor, free, target, block)
    kept = decision.replica and replace(decision.replica, fence=copy.fence if copy else None)
    return replace(decision, replica=kept)


def fences_only_what_it_has(
    me: Identity, floor: int, copy: Replica | None, target: Target, fence: FenceMark
) -> Decision:
    """A fence of a segment never seen leaves nothing behind."""
    if copy is None and target.incarnation == me.incarnation and target.segment_id >= floor:
        empty = Replica(incarnation=target.incarnation, epoch=target.epoch, is_fence_synced=True)
        return Decision(verdict=Verdict.WAIT, replica=empty)
    return node.on_fence(me, floor, copy, target, fence)


def asks_without_fencing(
    me: Identity, floor: int, copy: Replica | None, target: Target, fence: FenceMark
) -> Decision:
    """The recoverer's question leaves the copy as it is."""
    decision = node.on_fence(me, floor, copy, target, fence)
    if decision.verdict not in (Verdict.STORE, Verdict.WAIT):
        return decision
    empty = Replica(incarnation=target.incarnation, epoch=target.epoch)
    return Decision(verdict=Verdict.WAIT, replica=copy or empty)


def has_what_is_synced(copy: Replica) -> bool:
    return copy.synced == copy.last


def any_incarnation_votes(
    me: Identity, floor: int, copy: Replica | None, target: Target, fence: FenceMark
) -> Decision:
    """A node with an empty disk votes "nothing"."""
    return node.on_fence(me, floor, copy, replace(target, incarnation=me.incarnation), fence)


def any_incarnation_takes(
    me: Identity, floor: int, copy: Replica | None, target: Target, block: BlockIn
) -> Decision:
    """A node with an empty disk goes on where the writer is."""
    if me.incarnation == target.incarnation:
        return node.on_append(me, floor, copy, target, block)
    here = replace(target, incarnation=me.incarnation)
    if copy is None and block.number > 0:
        copy = Replica(incarnation=me.incarnation, epoch=target.epoch, queued=tip(block.number - 1))
    return node.on_append(me, floor, copy, here, block)


def votes_as_usual(_: Identity, copy: Replica) -> Vote:
    """Whoever lost a record votes as if nothing had happened."""
    return Vote(tip=copy.queued, is_complete=True)


def votes_what_is_synced(me: Identity, copy: Replica) -> Vote:
    return replace(node.vote(me, copy), tip=tip(copy.synced))


def shows_all(copy: Replica, limit: int | None) -> int:
    """Readers are shown what the node has."""
    return copy.synced if limit is None else min(limit, copy.synced)


# --- the writer ---


def counts_one_less(pipeline: Pipeline, event: Event) -> tuple[Pipeline, tuple[Effect, ...]]:
    """A - 1 acknowledgements are taken for enough."""
    after, effects = append.step(replace(pipeline, acks=pipeline.acks - 1), event)
    return replace(after, acks=pipeline.acks), effects


def adds_up_over_members(pipeline: Pipeline, event: Event) -> tuple[Pipeline, tuple[Effect, ...]]:
    """Any A acknowledgements confirm the newest block that one of them names."""
    after, effects = append.step(pipeline, event)
    heard = [number for number in after.acked if number != NO_BLOCK]
    if isinstance(event, append.Acked) and len(heard) >= pipeline.acks:
        return replace(after, lac=max(heard)), effects
    return after, effects


def fenced_is_not_written(pipeline: Pipeline, event: Event) -> tuple[Pipeline, tuple[Effect, ...]]:
    """FENCED from a member is taken as proof that nothing more was written."""
    if isinstance(event, append.Stopped) and not pipeline.has_ended:
        first = pipeline.lac + 1
        failed = Fail(first=first, fenced=True, not_written_from=first)
        return replace(pipeline, has_ended=True), (failed,)
    return append.step(pipeline, event)


def counts_the_lost(pipeline: Pipeline, event: Event) -> tuple[Pipeline, tuple[Effect, ...]]:
    """What a member had acknowledged counts, though it has lost its disk since."""
    if isinstance(event, append.Lost):
        event = replace(event, has_forgotten=False)
    return append.step(pipeline, event)


def closes_at_lac(pipeline: Pipeline) -> int | None:
    """A live close does not drain; acknowledgements go on until the CAS is known."""
    return pipeline.lac if pipeline.lac >= 0 else None


# --- recovery ---


def one_vote_less(members: int, acks: int, votes: Votes) -> Decided | Undecided:
    """N - A members are taken for a fence cover."""
    return recovery.decide(members, acks + 1, votes)


def shortest(members: int, acks: int, votes: Votes) -> Decided | Undecided:
    """E is the minimum of the answers."""
    decided = recovery.decide(members, acks, votes)
    if isinstance(decided, Undecided):
        return decided
    tips = [vote.tip for vote in votes.values()]
    least = min(tips, key=lambda tip: NO_BLOCK if tip is None else tip.number)
    holders = [i for i, t in enumerate(tips) if least is None or (t and t.number >= least.number)]
    return Decided(tip=least, holders=tuple(list(votes)[i] for i in holders))


def majority_of_answers(members: int, acks: int, votes: Votes) -> Decided | Undecided:
    """E is what A of those that answered hold: a quorum for reading what was confirmed."""
    decided = recovery.decide(members, acks, votes)
    if isinstance(decided, Undecided):
        return decided
    tips = sorted(vote.tip.number if vote.tip else NO_BLOCK for vote in votes.values())
    end = tips[-acks] if len(tips) >= acks else NO_BLOCK
    holders = [i for i, vote in votes.items() if vote.tip and vote.tip.number >= end]
    return Decided(tip=tip(end), holders=tuple(holders))


def lower_bounds_count(members: int, acks: int, votes: Votes) -> Decided | Undecided:
    return recovery.decide(
        members, acks, {i: replace(vote, is_complete=True) for i, vote in votes.items()}
    )
