"""Ending somebody else's segment of kind ``quorum``: when is E decided, and when is it safe (section 7).

- Every question asked of a member fences it. E is the last block in the answers once the members that
  answered in full are a fence cover (N - A + 1), or once all N have answered, lower bounds included.
  Fewer answers decide nothing.
- *Why the maximum:* what was confirmed is on A disks, so at least one member of any cover has it. A block
  beyond that may be kept as well: nobody was promised that it is not there.
- No end lies below a LAC that anybody was told: if those who answered hold less, disks have forgotten more
  than the protocol survives, or lied about a sync. Then all N must answer, and if that does not help it
  is damage, which only a person may accept. (Else acknowledged blocks vanish without a word.)
- Before the closing CAS, at least A members hold everything up to E, or the sealed object does.
- An attempt's answers die with the attempt. If the holder of E goes away, all begins again, with any
  cover, and may come to another E: only the CAS fixes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.quorum import fence_cover
from woodpecker.core.replica import Tip, Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """Not enough answers; ``missing`` are the members (by index) that have not answered."""

    missing: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """E: the last block (None: the segment has none), and who holds it."""

    tip: Tip | None
    holders: tuple[int, ...]

    @property
    def number(self) -> int:
        """Number of the last block; NO_BLOCK for none."""
        return NO_BLOCK if self.tip is None else self.tip.number


class Contradiction(Exception):
    """What members say cannot be: a bug, or damage beyond what the protocol survives."""


def decide(members: int, acks: int, votes: Mapping[int, Vote]) -> Decided | Undecided:
    """What the answers so far say. ``votes``: by index of the member.

    Raises: Contradiction.
    """
    full = sum(vote.is_complete for vote in votes.values())
    tips = [vote.tip for vote in votes.values() if vote.tip is not None]
    end = max(tips, key=lambda tip: tip.number, default=None)
    confirmed = max((vote.lac for vote in votes.values()), default=NO_BLOCK)
    is_short = confirmed > (NO_BLOCK if end is None else end.number)
    if len(votes) < members and (is_short or full < fence_cover(members, acks)):
        return Undecided(missing=tuple(i for i in range(members) if i not in votes))
    if is_short:
        raise Contradiction(f"block {confirmed} was acknowledged, and no member has it any more")
    if end is None:
        return Decided(tip=None, holders=tuple(votes))
    if any(tip.number == end.number and tip != end for tip in tips):
        raise Contradiction(f"members hold different blocks of number {end.number}")
    holders = tuple(index for index, vote in votes.items() if vote.tip == end)
    return Decided(tip=end, holders=holders)


def to_repair(acks: int, decided: Decided, votes: Mapping[int, Vote]) -> tuple[int, ...]:
    """Members to bring up to E, the fullest first; more than enough, so that one may fail.

    Empty when enough hold it already, or there is nothing to hold.
    """
    if decided.tip is None or len(decided.holders) >= acks:
        return ()
    short = [index for index in votes if index not in decided.holders]

    def last(index: int) -> int:
        tip = votes[index].tip
        return NO_BLOCK if tip is None else tip.number

    return tuple(sorted(short, key=lambda index: (-last(index), index)))


def is_safe(acks: int, decided: Decided, repaired: int) -> bool:
    """Whether enough members hold everything up to E, ``repaired`` of them by repair."""
    return decided.tip is None or len(decided.holders) + repaired >= acks
