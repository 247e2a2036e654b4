"""Acknowledgements of one subscription: what may be forgotten, what must come again (rules, section 9).

``done`` is where a resume begins: the oldest message handed out and not acknowledged, else as far as
delivery or Progress got. It never passes anything unacknowledged. **P** Runs where the messages are
handed out (the client); the record and its generation are in ``cursors``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, replace

from woodpecker.streaming.core.values import Position

Range = tuple[Position, Position]  # first, last message; inclusive


@dataclass(slots=True)
class _Message:
    number: int  # of delivery
    position: Position
    is_acked: bool


class Acks:
    """State of one attach of a subscription.

    Attributes:
        outstanding: messages handed out and not acknowledged.
    """

    def __init__(self, *, done: Position, ranges: tuple[Range, ...] = (), most: int = 1000) -> None:
        """Args: done, ranges: of the cursor record. most: ranges kept."""
        self.outstanding = 0
        self._most = most
        self._record = ranges  # acknowledged before this attach
        self._reached = done  # all below it was delivered
        self._messages: OrderedDict[int, _Message] = (
            OrderedDict()
        )  # by number, from the oldest unacknowledged one on
        self._waiting: OrderedDict[Position, _Message] = OrderedDict()  # not acknowledged
        self._number = 0  # of the next one
        self._runs = 0  # of acknowledged ones, one after another, in _messages

    def is_known(self, position: Position) -> bool:
        """Whether the message was acknowledged before this attach: tell ``delivered``, do not hand it out."""
        at = bisect_right(self._record, position, key=_first) - 1
        return at >= 0 and position <= self._record[at][1]

    def delivered(self, position: Position) -> None:
        """The next message of the stream; positions grow. What ``is_known`` counts as acknowledged."""
        message = _Message(self._number, position, is_acked=False)
        self._messages[self._number] = message
        self._number += 1
        self._waiting[position] = message
        self.outstanding += 1
        self._reached = replace(position, index=position.index + 1)
        if self.is_known(position):
            self._done_with(message)
            self._forget()

    def ack(self, position: Position) -> None:
        """One message is done with; again is no error.

        Raises: KeyError: it was never handed out by this attach.
        """
        if position >= self._reached:
            raise KeyError(position)
        message = self._waiting.get(position)
        if message is not None:
            self._done_with(message)
            self._forget()

    def ack_through(self, position: Position) -> None:
        """This message and all handed out before it are done with.

        Raises: KeyError: it was never handed out by this attach.
        """
        if position >= self._reached:
            raise KeyError(position)
        for message in list(self._waiting.values()):
            if message.position > position:
                break
            self._done_with(message)
        self._forget()

    def progress(self, position: Position) -> None:
        """All below ``position`` was delivered here, filtered out, or is nobody's."""
        self._reached = max(self._reached, position)

    def _done_with(self, message: _Message) -> None:
        del self._waiting[message.position]
        message.is_acked = True
        self.outstanding -= 1
        self._runs += 1 - self._is_acked(message.number - 1) - self._is_acked(message.number + 1)

    def _is_acked(self, number: int) -> bool:
        message = self._messages.get(number)
        return message is not None and message.is_acked

    def _forget(self) -> None:
        """Let go of the acknowledged ones below all that is outstanding."""
        oldest = next(iter(self._waiting.values()), None)
        until = self._number if oldest is None else oldest.number
        gone = [number for number in self._head() if number < until]
        self._runs -= bool(gone)
        for number in gone:
            del self._messages[number]

    def _head(self) -> list[int]:
        """Numbers of the acknowledged messages before the oldest outstanding one."""
        found = []
        for number, message in self._messages.items():
            if not message.is_acked:
                break
            found.append(number)
        return found

    @property
    def done(self) -> Position:
        """Everything below it is acknowledged; with its ``low``."""
        oldest = next(iter(self._waiting.values()), None)
        return self._reached if oldest is None else oldest.position

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Acknowledged messages above ``done``, those of the record that are still to come included.

        No more than a record takes, the lowest ones: what the others hold comes again to the next attach.
        """
        found: list[Range] = []
        for message in self._messages.values():
            if message.is_acked:
                is_next = self._is_acked(message.number - 1)
                first = found.pop()[0] if is_next else message.position
                found.append((first, message.position))
        return (*found, *self._to_come())[: self._most]

    def _to_come(self) -> list[Range]:
        at = bisect_right(self._record, self._reached, key=_first)
        ahead = list(self._record[max(0, at - 1) :])
        return [(max(first, self._reached), last) for first, last in ahead if last >= self._reached]

    @property
    def is_full(self) -> bool:
        """Ranges are used up: hand nothing out until the oldest ones are acknowledged, and say so.

        Never with nothing outstanding: nobody could acknowledge anything.
        """
        return self.outstanding > 0 and self._runs + len(self._to_come()) >= self._most


def _first(one: Range) -> Position:
    return one[0]
