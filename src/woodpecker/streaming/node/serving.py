"""What consumers and producers see of the owner's life that serves them."""

from __future__ import annotations

from typing import Protocol

from woodpecker import Log
from woodpecker.errors import OutOfRange
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.core.refusals import Refusal
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.node.counting import Counts
from woodpecker.streaming.node.line import Line
from woodpecker.streaming.node.runs import Runs
from woodpecker.streaming.node.tail import Tail
from woodpecker.streaming.settings import StreamSettings


class Serving(Protocol):
    """See ``Life``."""

    name: str  # of the pchannel
    term: int
    log: Log
    line: Line
    tail: Tail
    runs: Runs
    runtime: Runtime
    settings: StreamSettings
    counts: Counts
    earliest: int  # nothing below it can be read, as far as is known

    @property
    def position(self) -> Position:
        """All below it is acknowledged."""

    async def prove(self) -> None:
        """Return when the log was this owner's at some time after the call. Raises: Refused."""

    def trimmed(self, seq: int, error: OutOfRange) -> Refusal:
        """What to tell a reader whose next seq is gone."""

    def count_reading(self, by: int) -> None:
        """So many consumers more are reading the log."""
