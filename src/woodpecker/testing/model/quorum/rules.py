"""What a model of kind ``quorum`` is made of: the rules under test, and how much may happen.

``Rules`` are the real functions of ``core/`` and, where a rule lives in a driver, its habit. A mutant is
``replace(RULES, on_fence=something_else)``. ``Setup`` bounds the world: sizes, and which faults occur.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from woodpecker.core import quorum_append, quorum_recovery, replica
from woodpecker.core.quorum_append import Effect, Event, Pipeline
from woodpecker.core.quorum_recovery import Decided, Undecided
from woodpecker.core.replica import BlockIn, Decision, FenceMark, Identity, Replica, Target, Vote


def _drained(pipeline: Pipeline) -> int | None:
    return pipeline.lac if 0 <= pipeline.lac == pipeline.sent else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Each rule of the protocol that the model can be run without."""

    # core/replica.py
    on_append: Callable[[Identity, int, Replica | None, Target, BlockIn], Decision] = (
        replica.on_append
    )
    on_repair: Callable[[Identity, int, Replica | None, Target, BlockIn, int], Decision] = (
        replica.on_repair
    )
    on_fence: Callable[[Identity, int, Replica | None, Target, FenceMark], Decision] = (
        replica.on_fence
    )
    answers_writer: Callable[[Replica], bool] = replica.answers_writer
    is_voting: Callable[[Replica], bool] = replica.is_voting
    vote: Callable[[Identity, Replica], Vote] = replica.vote
    readable: Callable[[Replica, int | None], int] = replica.readable
    new_floor: Callable[[int, int], int] = replica.new_floor
    # core/quorum_append.py
    step: Callable[[Pipeline, Event], tuple[Pipeline, tuple[Effect, ...]]] = quorum_append.step
    # core/quorum_recovery.py
    decide: Callable[[int, int, Mapping[int, Vote]], Decided | Undecided] = quorum_recovery.decide
    to_repair: Callable[[int, Decided, Mapping[int, Vote]], tuple[int, ...]] = (
        quorum_recovery.to_repair
    )
    is_safe: Callable[[int, Decided, int], bool] = quorum_recovery.is_safe

    # habits of the node: a repeated block is answered at once if it is on the disk, else with its sync
    answers_repeated: Callable[[Replica, int], bool] = lambda copy, number: number <= copy.synced
    acks_before_sync: bool = False
    has_repaired: Callable[[Replica, int], bool] = lambda copy, number: number <= copy.synced
    journals_fences: bool = True
    drops_before_floor_is_synced: bool = False
    # habits of the writer: where a live close ends (None: not yet), and what follows the choice
    end_of_live_close: Callable[[Pipeline], int | None] = _drained
    sends_after_choosing_end: bool = False
    # habit of the floor, given the first segment that is not SEALED and the id of the next one
    floor_of: Callable[[int, int], int] = lambda lowest_unsealed, _: lowest_unsealed
    # habits of sealing: does this copy hold enough; is an object found at the key the right one
    may_seal: Callable[[int, int], bool] = lambda held, end: held >= end
    adopts: Callable[[int, int], bool] = lambda uploaded, end: uploaded == end
    # habit of the reader: what it is shown beside the node's own answer
    reader_counts_copies: bool = False


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How big the world is, and what may go wrong in it."""

    members: int = 3
    acks: int = 2
    blocks: int = 2  # that the writer would like to write
    takers: int = 1  # attempts to take over, racing
    closes: bool = False  # the writer may close its segment alive
    splits: bool = (
        False  # accepting and syncing are two steps; a node may crash between, and restart
    )
    damages: int = 0  # disks that are lost, or lose their newest record, in total: at most A - 1
    loses_disks: bool = True  # a damage may be: empty disk, new incarnation
    cuts_tails: bool = (
        False  # a damage may be: the newest record on the disk is cut off at a restart
    )
    rots: bool = False  # a damage may be: the newest record of the copy became unreadable
    drops: bool = False  # sealing; nodes then forget the copy below the floor
    uploads: bool = False  # a recoverer may have the sealed object written before its CAS
    reads: bool = False  # readers; remembers the last block that anybody was shown
    tells: bool = False  # members have heard of the newest LAC whenever they vote
    strays: int = 0  # members that somebody fences by hand, without a take-over
    checks_copies: bool = False  # A copies of what is acknowledged, none on a disk known to be lost

    def __str__(self) -> str:
        words = {"closes": "live close", "splits": "crashes", "drops": "sealing and floor",
                 "uploads": "upload before the CAS", "reads": "readers", "tells": "LAC known"}  # fmt: skip
        damages = {"loses_disks": "lost", "cuts_tails": "cut", "rots": "rotten"}
        kinds = [word for name, word in damages.items() if getattr(self, name)]
        parts = [
            f"{self.members}/{self.acks} W{self.blocks}",
            f"{self.takers} taker{'s' if self.takers != 1 else ''}",
            *[word for name, word in words.items() if getattr(self, name)],
            *([f"{self.damages} disk {' or '.join(kinds)}"] if self.damages else []),
            *([f"{self.strays} fenced by hand"] if self.strays else []),
            *(["A copies known at each acknowledgement"] if self.checks_copies else []),
        ]
        return ", ".join(parts)
