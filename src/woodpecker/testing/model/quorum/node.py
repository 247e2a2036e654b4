"""One member in the model: its copy of the segment, by the functions of ``core/replica.py``.

A node is a value: who it is, its floor, the copy, what is in its journal and not yet on the disk. The
journal is written and synced from the front, one record at a time (a group that is synced at once is
the same without what could happen in between).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from woodpecker.core.ids import NO_BLOCK
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
    on_lac,
    on_synced,
)
from woodpecker.testing.model.quorum.rules import Rules

OLD, NEW = (
    "a" * 32,
    "b" * 32,
)  # incarnation in the manifest; of a node after its disk was lost or cut
TARGET = Target(log_id="L", segment_id=0, epoch=1, incarnation=OLD)
FENCE = FenceMark(epoch=2, token="t")
HEALTHY = Identity(node="n", incarnation=OLD)
REPLACED = Identity(node="n", incarnation=NEW)
CUT = Identity(node="n", incarnation=NEW, past=frozenset({OLD}))


class Record(NamedTuple):
    """One record of the journal: ``block``, ``repair``, ``fence`` or ``floor``."""

    kind: str
    number: int = NO_BLOCK


class Node(NamedTuple):
    """State of one member. ``whole``: its last block before which none is missing, on the disk."""

    me: Identity = HEALTHY
    floor: int = 0
    copy: Replica | None = None
    queue: tuple[Record, ...] = ()
    whole: int = NO_BLOCK
    newest: Record | None = None  # on the disk; kept only where a record may get lost


class Answer(NamedTuple):
    """What became of a request: the node after it, and the last block acknowledged to the writer."""

    node: Node
    acked: int = NO_BLOCK


def digest(number: int) -> bytes:
    """Digest of block ``number``: the writer makes each block once."""
    return bytes([number + 1]) * 16


def tip(number: int) -> Tip | None:
    """A copy's last block."""
    return None if number < 0 else Tip(number=number, end_seq=number + 1, digest=digest(number))


def block(number: int) -> BlockIn:
    """Block ``number`` as it arrives."""
    return BlockIn(
        number=number,
        end_seq=number + 1,
        prev_digest=digest(number - 1),
        digest=digest(number),
    )


class Nodes:
    """What nodes do, by ``rules``; ``splits`` and ``remembers``: see ``Setup``."""

    def __init__(self, rules: Rules, *, splits: bool, remembers: bool) -> None:
        self._rules = rules
        self._splits = splits
        self._remembers = remembers

    # --- requests ---

    def asked(self, node: Node, number: int) -> Decision:
        """What the copy's rules say to block ``number`` from the writer."""
        return self._rules.on_append(node.me, node.floor, node.copy, TARGET, block(number))

    def append(self, node: Node, number: int) -> Answer:
        """Block ``number`` from the writer, perhaps late, perhaps again."""
        decision = self.asked(node, number)
        if decision.verdict is Verdict.STORE:
            stored = self._stored(node, decision, Record("block", number))
            at_once = self._rules.acks_before_sync
            return stored._replace(acked=number) if at_once else stored
        if decision.verdict is Verdict.WAIT:
            assert node.copy is not None
            if self._rules.answers_repeated(node.copy, number):
                return Answer(node, number)
        return Answer(node)

    def repair(self, node: Node, number: int, end: int) -> Node:
        """Block ``number`` from a recoverer that found the end ``end``."""
        rules = self._rules
        decision = rules.on_repair(node.me, node.floor, node.copy, TARGET, block(number), end)
        if decision.verdict is Verdict.STORE:
            return self._stored(node, decision, Record("repair", number)).node
        return node

    def fence(self, node: Node) -> Node:
        """A recoverer's question."""
        decision = self._rules.on_fence(node.me, node.floor, node.copy, TARGET, FENCE)
        if decision.verdict is not Verdict.STORE:
            return node
        if self._rules.journals_fences:
            return self._stored(node, decision, Record("fence")).node
        assert decision.replica is not None
        return node._replace(copy=on_synced(decision.replica, fence=True))

    def raise_floor(self, node: Node, lowest_unsealed: int) -> Node:
        """The node read in the manifest that this segment is not needed any more."""
        if any(record.kind == "floor" for record in node.queue) or node.floor >= lowest_unsealed:
            return node
        queued = node._replace(queue=(*node.queue, Record("floor", lowest_unsealed)))
        if self._rules.drops_before_floor_is_synced:
            queued = queued._replace(copy=None, whole=NO_BLOCK)
        return queued if self._splits else self.sync(queued).node

    def _stored(self, node: Node, decision: Decision, record: Record) -> Answer:
        queued = node._replace(copy=decision.replica, queue=(*node.queue, record))
        return Answer(queued) if self._splits else self.sync(queued)

    # --- the disk ---

    def sync(self, node: Node) -> Answer:
        """The first record of the journal reaches the disk; its block is acknowledged if it may be."""
        record, rest = node.queue[0], node.queue[1:]
        newest = record if self._remembers else None
        if record.kind == "floor":
            floor = self._rules.new_floor(node.floor, record.number)
            gone = node._replace(floor=floor, copy=None, queue=(), whole=NO_BLOCK, newest=newest)
            return Answer(gone)
        if node.copy is None:  # dropped meanwhile
            return Answer(node._replace(queue=rest))
        if record.kind == "fence":
            copy = on_synced(node.copy, fence=True)
            return Answer(node._replace(copy=copy, queue=rest, newest=newest))
        number = record.number
        copy = on_synced(node.copy, block=number)
        whole = number if number == node.whole + 1 else node.whole
        synced = node._replace(copy=copy, queue=rest, whole=whole, newest=newest)
        is_told = record.kind == "block" and self._rules.answers_writer(copy)
        return Answer(synced, number if is_told else NO_BLOCK)

    def restart(self, node: Node) -> Node:
        """The process dies and comes back with what is on the disk."""
        return node._replace(copy=self._on_disk(node), queue=())

    def _on_disk(self, node: Node) -> Replica | None:
        copy = node.copy
        if copy is None:
            return None
        is_fenced = copy.is_fence_synced and self._rules.journals_fences
        if copy.synced == NO_BLOCK and not is_fenced and not copy.is_unsure:
            return None
        return Replica(
            incarnation=copy.incarnation,
            epoch=copy.epoch,
            queued=tip(copy.synced),
            synced=copy.synced,
            fence=FENCE if is_fenced else None,
            is_fence_synced=is_fenced,
            is_unsure=copy.is_unsure,
        )

    def lose_disk(self, node: Node) -> Node:
        """The node comes back with an empty disk: another incarnation, which knows of nothing."""
        return Node(me=REPLACED)

    def tear_tail(self, node: Node) -> Node:
        """The node dies while it writes, and must cut its journal behind what is synced."""
        return self.restart(node)._replace(me=CUT)

    def cut_tail(self, node: Node) -> Node:
        """The same, and the newest synced record is unreadable too: it is cut off with the rest."""
        return self._without_newest(self.restart(node))._replace(me=CUT)

    def rot(self, node: Node) -> Node:
        """The newest synced record of the copy is unreadable, and it is known whose it was."""
        left = self._without_newest(self.restart(node))
        if left.copy is None:
            empty = Replica(incarnation=OLD, epoch=TARGET.epoch, is_unsure=True)
            return left._replace(copy=empty)
        return left._replace(copy=replace(left.copy, is_unsure=True))

    def _without_newest(self, node: Node) -> Node:
        copy, newest = node.copy, node.newest
        if newest is not None and newest.kind == "floor":
            return node._replace(floor=0, newest=None)
        if copy is None or newest is None:
            return node
        if newest.kind == "fence":
            copy = replace(copy, fence=None, is_fence_synced=False)
        else:
            copy = replace(copy, queued=tip(newest.number - 1), synced=newest.number - 1)
        left = node._replace(copy=copy, newest=None, whole=min(node.whole, copy.synced))
        return left._replace(copy=self._on_disk(left))

    # --- answers to recoverers and readers ---

    def vote(self, node: Node, lac: int) -> Vote | None:
        """The answer to a fence, if it may be sent now, of a node that was told ``lac``."""
        decision = self._rules.on_fence(node.me, node.floor, node.copy, TARGET, FENCE)
        copy = decision.replica
        if decision.verdict is not Verdict.WAIT or copy is None or not self._rules.is_voting(copy):
            return None
        return self._rules.vote(node.me, on_lac(copy, lac))

    def has_stored(self, node: Node, end: int) -> bool:
        """Whether a recoverer that repairs hears that all up to ``end`` is on this disk."""
        rules = self._rules
        decision = rules.on_repair(node.me, node.floor, node.copy, TARGET, block(end), end)
        return (
            decision.verdict is Verdict.WAIT
            and node.copy is not None
            and rules.has_repaired(node.copy, end)
        )

    def shows(self, node: Node, lac: int) -> int:
        """The last block that a reader without an end may see here, once the node knows ``lac``."""
        copy = node.copy
        return NO_BLOCK if copy is None else self._rules.readable(on_lac(copy, lac), None)

    def damages(
        self, node: Node, *, disk: bool, cut: bool, rot: bool
    ) -> Iterator[tuple[str, Node]]:
        """What may happen to the disk."""
        if disk and node.me != REPLACED:
            yield "its disk is lost; it comes back empty", self.lose_disk(node)
        if node.newest is None:
            return
        if cut:
            yield "its newest record is cut off at a restart", self.cut_tail(node)
        if rot and node.me == HEALTHY and node.newest.kind != "floor":
            yield "the newest record of the copy became unreadable", self.rot(node)
