"""Mutants of kind ``quorum``: nodes, their disks, writers, recovery (see ``mutants.py``)."""

# ruff: noqa: SLF001, ARG001, ARG005  it reaches into what it breaks

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import md5
from typing import Any

from woodpecker.codec.journal import Kind
from woodpecker.core import node_disk, quorum_append, replica
from woodpecker.core import quorum_recovery as recovery_rules
from woodpecker.core.quorum_recovery import Decided
from woodpecker.core.replica import Decision, Replica, Tip, Verdict, Vote
from woodpecker.logstore import node, reading, replay, writing
from woodpecker.segments import quorum_recovery
from woodpecker.testing.sim.mutants import Patches, mutant

# --- nodes ---------------------------------------------------------------------------------------------


@mutant("a node answers for a block once it is synced", "quorum")
def ack_before_sync() -> Patches:
    store = writing.Writing._store

    def hasty(
        self: Any, kind: Kind, copy: Any, decision: Any, header: Any, payload: Any, then: Any
    ) -> None:
        if kind is not Kind.BLOCK:
            store(self, kind, copy, decision, header, payload, then)
            return
        store(self, kind, copy, decision, header, payload, lambda error: None)
        then(None)

    return [(writing.Writing, "_store", hasty)]


@mutant("a fenced node takes nothing more from the writer", "quorum")
def fenced_node_takes_blocks() -> Patches:
    append = replica.on_append

    def lax(me: Any, floor: int, copy: Replica | None, target: Any, block: Any) -> Decision:
        bare = None if copy is None else replace(copy, fence=None)
        decision = append(me, floor, bare, target, block)
        if copy is None or decision.replica is None:
            return decision
        return replace(decision, replica=replace(decision.replica, fence=copy.fence))

    return [(writing, "on_append", lax), (writing, "answers_writer", lambda copy: True)]


@mutant("a fenced node answers the writer only: fenced, queued blocks and duplicates too", "quorum")
def fenced_node_answers_queued_blocks() -> Patches:
    return [(writing, "answers_writer", lambda copy: True)]


@mutant("a node takes a block only behind the one before it", "quorum")
def block_accepted_with_a_gap() -> Patches:
    def take(copy: Replica, block: Any) -> Decision:
        if block.number <= copy.last:
            return replica._decide(Verdict.WAIT, copy)
        tip = Tip(number=block.number, end_seq=block.end_seq, digest=block.digest)
        return replica._decide(Verdict.STORE, replace(copy, queued=tip))

    return [(replica, "_take", take)]


@mutant("a node forgets blocks, never fences", "quorum")
def forgets_dropped_segments() -> Patches:
    async def forget(self: Any, log_id: str, floor: int) -> None:
        for copy in self.copies.raise_floor(self.copies.log(log_id), floor):
            self.cache.forget(copy)
        self.reading.floor_raised(log_id, floor)
        self.copies.log(log_id).floor = 0

    return [(node.Node, "set_floor", forget)]


@mutant("an empty disk is a new incarnation", "quorum")
def empty_disk_votes() -> Patches:
    real = node_disk.new_disk

    def same(name: str, token: str, boot_seen: int) -> Any:
        return real(name, md5(name.encode(), usedforsecurity=False).hexdigest(), boot_seen)

    return [(replay, "new_disk", same)]


@mutant("a node that had to cut its journal does not vote as if nothing were missing", "quorum")
def cut_journal_votes() -> Patches:
    lost = node_disk._lost

    def blind(state: Any, boot_seen: int, scars: Sequence[Any], end: Any) -> str:
        return lost(state, boot_seen, (), end)

    return [(node_disk, "_lost", blind)]


@mutant("an older disk put back is a new incarnation", "quorum")
def old_disk_votes() -> Patches:
    lost = node_disk._lost

    def blind(state: Any, boot_seen: int, scars: Sequence[Any], end: Any) -> str:
        return lost(replace(state, closed=None), 0, scars, end)

    return [(node_disk, "_lost", blind)]


@mutant("readers see nothing above the LAC", "quorum")
def reader_past_the_lac() -> Patches:
    def readable(copy: Replica, limit: int | None) -> int:
        return copy.synced if limit is None else min(limit, copy.synced)

    return [(reading, "readable", readable)]


# --- writers -------------------------------------------------------------------------------------------


@mutant("a block is confirmed once it is on A disks", "quorum")
def lac_of_one_disk() -> Patches:
    return [(quorum_append, "confirmed", lambda acked, acks: max(acked))]


@mutant("what a node has forgotten does not count for a block any more", "quorum")
def forgotten_blocks_count() -> Patches:
    real = quorum_append._lost

    def lax(pipeline: Any, member: int, *, has_forgotten: bool = False) -> Any:
        return real(pipeline, member)

    return [(quorum_append, "_lost", lax)]


# --- recovery ------------------------------------------------------------------------------------------


@mutant("N - A + 1 members must have answered before an end is known", "quorum")
def end_by_a_minority() -> Patches:
    return [
        (recovery_rules, "fence_cover", lambda members, acks: 1),
        (quorum_recovery, "fence_cover", lambda members, acks: 1),
    ]


@mutant("the end is the last block in the answers, not the last one that all have", "quorum")
def end_is_the_least() -> Patches:
    decide = recovery_rules.decide

    def least(members: int, acks: int, votes: Mapping[int, Vote]) -> Any:
        decided = decide(members, acks, votes)
        if not isinstance(decided, Decided) or decided.tip is None:
            return decided
        tips = [vote.tip for vote in votes.values()]
        if None in tips:
            return Decided(tip=None, holders=tuple(votes))
        tip = min((tip for tip in tips if tip is not None), key=lambda tip: tip.number)
        return Decided(tip=tip, holders=tuple(i for i, v in votes.items() if v.tip == tip))

    return [(recovery_rules, "decide", least)]


@mutant("before the closing CAS at least A members hold everything up to E", "quorum")
def closed_before_it_is_safe() -> Patches:
    return [(recovery_rules, "is_safe", lambda acks, decided, repaired: True)]
