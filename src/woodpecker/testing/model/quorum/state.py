"""The state of the quorum model as values, and the tables that turn them into small numbers."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Vote
from woodpecker.testing.model.quorum.node import Node

T = TypeVar("T")

IDLE, ASKING, DECIDED, DONE = "idle", "asking", "decided", "done"  # phases of a taker
HOLDER, SHORT = "holder", "short"  # what a taker that has decided knows of a member

Role = Vote | str | None


class Taker(NamedTuple):
    """One attempt to take the log over."""

    phase: str = IDLE
    end: int = NO_BLOCK  # that it decided on
    is_uploaded: bool = False  # an object holds all up to ``end``, so it is safe


class World(NamedTuple):
    """Everything but the members. Numbers of blocks; NO_BLOCK for none."""

    manifest: int  # index, see Manifests
    takers: tuple[Taker, ...]
    sent: int = NO_BLOCK
    lac: int = NO_BLOCK  # what the writer has acknowledged
    has_ended: bool = False  # the writer
    closing: int | None = None  # end that the writer has chosen for a live close
    not_written: int | None = None  # blocks from here on were reported NotWritten
    repaired: int = NO_BLOCK  # highest block that a taker has sent to members
    uploaded: frozenset[int] = frozenset()  # ends of the objects that were written before a CAS
    object_end: int | None = None  # last block in the object that the manifest names
    shown: int = NO_BLOCK  # highest block that any reader was shown
    damages: int = 0
    strays: int = 0


class Member(NamedTuple):
    """One member: its node, and what others know of it."""

    node: Node
    roles: tuple[Role, ...]  # for each taker: the member's vote, then HOLDER or SHORT
    told: int = NO_BLOCK  # highest block in any acknowledgement that it sent to the writer
    acked: int = NO_BLOCK  # of those that arrived
    is_lost: bool = False  # to the writer

    def with_role(self, taker: int, role: Role) -> Member:
        """The member as one taker sees it now."""
        return self._replace(roles=(*self.roles[:taker], role, *self.roles[taker + 1 :]))

    def forgotten(self) -> Member:
        """The member once no acknowledgement counts any more."""
        return self._replace(told=NO_BLOCK, acked=NO_BLOCK, is_lost=False)


class Table(Generic[T]):
    """Values by number: equal values have the same one."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._codes: dict[T, int] = {}

    def code(self, value: T) -> int:
        """The number of ``value``; a new one if it was never seen."""
        code = self._codes.get(value)
        if code is None:
            code = self._codes[value] = len(self.values)
            self.values.append(value)
        return code
