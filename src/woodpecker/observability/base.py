"""The observer: where drivers report what they do. Passed in, never a global; silent by default.

Nothing is reported per entry: a driver counts per block, request or operation, and may leave even
that out when ``observer is SILENT``. Names are constants of ``names.py``; labels are few and have few
values (store operation, kind of segment), never a log's name or a seq.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from woodpecker.observability.names import Counter, Event, Gauge, Histogram, Span

Field = str | int | float | bool


class Observer(Protocol):
    """Takes what happens. Must not block, await or raise; called from the loop and from threads."""

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Add ``n`` >= 0 to a counter."""

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        """Set a value that goes up and down."""

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        """Add one observation, in the unit of ``name``."""

    def event(self, name: Event, **fields: Field) -> None:
        """Report something rare a person may want to see: a take-over, a failed background job."""

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        """Context of one operation, for traces; an exception passing through marks it failed."""


class Silent:
    """The default: takes everything, does nothing."""

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Do nothing."""

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        """Do nothing."""

    def event(self, name: Event, **fields: Field) -> None:
        """Do nothing."""

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        """Do nothing around the block."""
        return nullcontext()


SILENT: Observer = Silent()
