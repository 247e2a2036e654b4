"""Refusals: what a node or coordinator answers when it does not do what was asked (section 1 of the rules)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Class(StrEnum):
    """Named by what the caller does next."""

    MOVED = "moved"  # wrong node, incarnation or term; newer map, then the same again
    LATER = "later"  # wait after_ms, then the same again
    UNKNOWN = "unknown"  # route again, same id, epoch, sequence
    GAP = "gap"  # send again from ``expected``
    STALE_PRODUCER = "stale_producer"
    EXPIRED = "expired"  # outcome unknown
    ABORTED = "aborted"  # of a transaction: run it again whole
    CONDITION = "condition"
    GONE = "gone"
    INVALID = "invalid"
    DENIED = "denied"
    OUT_OF_RANGE = "out_of_range"
    FENCED = "fenced"  # an old generation of a cursor
    CORRUPT = "corrupt"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    NOT_LEADER = "not_leader"  # the coordinator is at ``address``
    UNAVAILABLE = "unavailable"  # a store below is away; nothing was changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal, with what its class needs; ``message`` says what happened, to what, what to do."""

    kind: Class
    message: str
    term: int = 0  # MOVED: the newest term known
    address: str = ""  # MOVED: a hint; NOT_LEADER: where the coordinator is
    after_ms: int = 0  # LATER
    expected: int = -1  # GAP: sequence
    actual: int = -1  # CONDITION
    earliest: int = -1  # OUT_OF_RANGE: seq
    reason: str = ""  # ABORTED


class Refused(Exception):
    """Carries a refusal through drivers and transports of the service; users see woodpecker.errors."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
