"""What the users of a streaming service write down: what they sent and were told, and what they were shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from woodpecker.streaming.client.messages import Message
from woodpecker.streaming.core.values import Position


@dataclass(slots=True, eq=False)
class Sent:
    """One message, or all of a transaction, that a producer was asked to write.

    ``outcome``: "ack", "not written", "unknown"; None: its process died before it knew.
    """

    line: str  # one producer of one life: what it sends comes in this order
    payloads: list[bytes]
    is_txn: bool = False
    outcome: str | None = None
    position: Position | None = None


class Shown(NamedTuple):
    """A message as a reader was shown it."""

    position: Position
    payload: bytes
    tick: int
    type: str | None = None
    key: bytes | None = None

    @property
    def low(self) -> int:
        """All of the log from here on was needed to show it."""
        return self.position.low if self.position.low >= 0 else self.position.seq


class Passing(NamedTuple):
    """An ephemeral message as a reader was shown it."""

    payload: bytes
    tick: int


class Signal(NamedTuple):
    """Nothing at or below ``tick`` was to come."""

    tick: int


def shown(message: Message) -> Shown:
    """A message that is kept, as it came."""
    return Shown(message.position, message.payload, message.tick, message.type, message.key)


@dataclass(slots=True)
class View:
    """All that one consumer was shown, in its order.

    Attributes:
        type: its filter; None: everything.
        is_alive: it is to have everything in the end. is_first: it began before anything could be trimmed.
    """

    who: str
    type: str | None = None
    events: list[Shown | Passing | Signal] = field(default_factory=list)
    is_alive: bool = True
    is_first: bool = True

    @property
    def got(self) -> list[Shown]:
        """Messages that are kept."""
        return [event for event in self.events if isinstance(event, Shown)]

    def wants(self, one: Shown) -> bool:
        """Whether its filter lets it pass."""
        return self.type is None or one.type == self.type


@dataclass(slots=True)
class Subscribed:
    """What all holders of one cursor were handed, and what they acknowledged (stored or not)."""

    type: str | None = None
    handed: set[bytes] = field(default_factory=set)
    acked: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Book:
    """What the users of one channel know together.

    Attributes:
        vcid: -1 as long as nobody knows. is_deleted: somebody has begun to delete it.
        top: end of what anybody was told is written.
        passing: payloads of what was sent for listeners only.
    """

    name: str
    vcid: int = -1
    is_deleted: bool = False
    sent: list[Sent] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    cursors: dict[str, Subscribed] = field(default_factory=dict)
    passing: set[bytes] = field(default_factory=set)
    top: Position = field(default_factory=lambda: Position(0))


@dataclass(slots=True)
class Announced:
    """One broadcast. ``positions``: by channel, as it was told; None: nobody was told that it is done."""

    key: str
    payload: bytes
    targets: tuple[str, ...]
    resources: tuple[str, ...] = ()
    positions: dict[str, Position] | None = None


@dataclass(slots=True, kw_only=True)
class History:
    """What a channel delivered: what a last reader found in it, and below it what others saw before it was trimmed.

    Attributes:
        kept_from: seq; all from there on is still there.
        spans: (first, last) seq of stretches below it that are known without a gap.
    """

    all: list[Shown]
    kept_from: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)

    def knows(self, place: Position) -> bool:
        """Whether a message at this place would have been seen: all that reading it takes is there, or was."""
        low = place.low if place.low >= 0 else place.seq
        return low >= self.kept_from or any(
            first <= place.seq <= last for first, last in self.spans
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing since the beginning."""
        return self.knows(Position(0))


class Written(NamedTuple):
    """One batch as it stands in the log of a pchannel. ``kind``: of its body; ``number``: of a broadcast."""

    seq: int
    tick: int
    term: int
    vcid: int
    kind: str
    payloads: tuple[bytes, ...] = ()
    number: int = 0


class Trims(NamedTuple):
    """What holds the log of a pchannel, all read after ``earliest`` was."""

    earliest: int
    checkpoints: tuple[int, ...]  # seqs, newest first
    cursors: dict[str, int]  # the lowest seq that each needs
