"""Acknowledgements of one subscription: what may be forgotten, what must come again (rules, section 9).

``done`` is where a resume begins: the oldest message delivered and not acknowledged, else as far as
delivery or Progress got. It never passes anything unacknowledged. **P** Runs where the messages are
handed out (the client); the record, the generation and the compare-and-swap are the node's.
"""

from __future__ import annotations

from woodpecker.streaming.core.values import Position

Range = tuple[Position, Position]  # first, last message; inclusive


class Acks:
    """State of one attach of a subscription."""

    def __init__(self, *, done: Position, ranges: tuple[Range, ...] = (), most: int = 1000) -> None:
        """Args: done, ranges: of the cursor record. most: ranges kept."""
        raise NotImplementedError

    def is_known(self, position: Position) -> bool:
        """Whether the message was acknowledged before: not handed out again."""
        raise NotImplementedError

    def delivered(self, position: Position) -> None:
        """A message is handed out; positions grow. Those that are known move ``done`` only."""
        raise NotImplementedError

    def ack(self, position: Position) -> None:
        """One message is done with. Raises: KeyError: it was never handed out by this attach."""
        raise NotImplementedError

    def ack_through(self, position: Position) -> None:
        """This message and all handed out before it are done with."""
        raise NotImplementedError

    def progress(self, position: Position) -> None:
        """All below ``position`` was delivered here, filtered out, or is nobody's."""
        raise NotImplementedError

    @property
    def done(self) -> Position:
        """Everything below it is acknowledged; with its ``low``."""
        raise NotImplementedError

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Acknowledged messages above ``done``."""
        raise NotImplementedError

    @property
    def is_full(self) -> bool:
        """Ranges are used up: hand nothing out until the oldest ones are acknowledged, and say so."""
        raise NotImplementedError

    @property
    def outstanding(self) -> int:
        """Messages handed out and not acknowledged."""
        raise NotImplementedError
