"""The moves of the quorum model in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from woodpecker.core.replica import Vote
from woodpecker.testing.model.quorum.node import Record


def told(move: tuple[Any, ...]) -> str:
    """One line of a story."""
    if isinstance(move[0], int):
        return f"n{move[0] + 1}: {_MEMBER[move[1]](*move[2:])}"
    return _ALONE[move[0]](*move[1:])


def _taker(index: int) -> str:
    return f"taker {'AB'[index] if index < 2 else index}"


def _vote(taker: int, vote: Vote) -> str:
    tip = "nothing" if vote.tip is None else f"block {vote.tip.number}"
    kind = "" if vote.is_complete else ", at least"
    return f"answers the fence of {_taker(taker)}: {tip}{kind}"


def _sync(record: Record) -> str:
    what = record.kind if record.kind in ("fence", "floor") else f"{record.kind} {record.number}"
    return f"syncs {what}"


_MEMBER: dict[str, Callable[..., str]] = {
    "append": lambda number: f"gets block {number} from the writer",
    "fence": lambda: "gets a fence",
    "stray fence": lambda: "is fenced by hand",
    "repair": lambda number: f"gets block {number} from a taker",
    "sync": _sync,
    "restart": lambda: "crashes and restarts; what was not synced is lost",
    "tear": lambda: "crashes while it writes; its torn journal is cut at what was synced",
    "damage": lambda what: what,
    "vote": _vote,
    "stored": lambda taker: f"tells {_taker(taker)} that the repairs are on its disk",
    "upload": lambda taker, end: f"uploads everything up to block {end} for {_taker(taker)}",
    "read": lambda shown: f"shows a reader everything up to block {shown}",
    "seal": lambda held: f"seals the segment; the object ends at block {held}",
    "floor": lambda: "reads that the segment is sealed or gone: raises its floor",
    "hears ack": lambda number: f"the writer hears its acknowledgement of block {number}",
    "hears lost": lambda: "the writer hears that it takes no more blocks",
    "hears fenced": lambda: "the writer hears that it is fenced, and reads the manifest",
    "mismatch": lambda: "refuses a block as contradicting what it has",
}
_ALONE: dict[str, Callable[..., str]] = {
    "submit": lambda number: f"the writer sends block {number}",
    "choose end": lambda end: f"the writer chooses end {end} for a live close",
    "live close": lambda end: f"the CAS of the live close lands: CLOSED at {end}",
    "take": lambda taker: f"{_taker(taker)} raises the epoch",
    "again": lambda taker: f"{_taker(taker)} throws its answers away and begins again",
    "decide": lambda taker, end: f"{_taker(taker)} decides: the end is {end}",
    "close": lambda taker, end: f"the CAS of {_taker(taker)} lands: CLOSED at {end}",
    "refused": lambda taker, _: (
        f"the CAS of {_taker(taker)} is refused: overtaken, or closed already"
    ),
    "adopt": lambda end: f"a sealer finds the key taken, and adopts the object that ends at {end}",
    "count": lambda held: f"a reader counts copies: shown up to block {held}",
}
