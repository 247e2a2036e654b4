"""Who is to be shown what is acknowledged: the consumers of one owner's life, by channel."""

from __future__ import annotations

from woodpecker.streaming.core.facts import Grant
from woodpecker.streaming.core.tail_buffer import Slot
from woodpecker.streaming.node.consumer import Consumer
from woodpecker.streaming.node.pieces import Ephemeral, Piece


class Audience:
    """Consumers of one pchannel. A batch costs those of its channel, whoever else is here."""

    def __init__(self) -> None:
        self._by_vcid: dict[int, dict[int, Consumer]] = {}
        self._joined = 0

    def join(self, consumer: Consumer) -> int:
        """From now on it is shown what comes. Returns: its number, to leave with."""
        self._joined += 1
        self._by_vcid.setdefault(consumer.vcid, {})[self._joined] = consumer
        return self._joined

    def leave(self, consumer: Consumer, number: int) -> None:
        """No longer."""
        there = self._by_vcid.get(consumer.vcid, {})
        there.pop(number, None)
        if not there:
            self._by_vcid.pop(consumer.vcid, None)

    def show(self, slot: Slot[Piece | Ephemeral]) -> None:
        """Show it to whom it concerns."""
        for consumer in list(self._by_vcid.get(slot.vcid, {}).values()):
            consumer.show(slot)
        if slot.facts is not None and isinstance(slot.facts.column.body, Grant):
            for there in list(self._by_vcid.values()):
                for consumer in list(there.values()):
                    consumer.show(slot)

    @property
    def wants_ticks(self) -> bool:
        """Whether anybody asked for signals of time."""
        return any(c.wants_ticks for there in self._by_vcid.values() for c in there.values())

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self._by_vcid.values()))
