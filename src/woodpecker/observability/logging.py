"""Observer that writes events to the standard ``logging`` tree ``woodpecker``, and nothing else.

The library prints nothing and sets up no handler but a ``NullHandler``: what is shown, where and in
which form is the application's decision.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from woodpecker.observability.base import Field
from woodpecker.observability.names import Counter, Event, Gauge, Histogram, Span

ROOT: Final = "woodpecker"

_LEVELS = logging.getLevelNamesMapping()


class LoggingObserver:
    """One line per event on logger ``woodpecker.<area>``; fields as ``extra["fields"]`` too."""

    def __init__(self, area: str = "client") -> None:
        self._logger = logging.getLogger(f"{ROOT}.{area}")

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Not logged."""

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        """Not logged."""

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        """Not logged."""

    def event(self, name: Event, **fields: Field) -> None:
        """One line: the event's name and ``field=value`` pairs, at the event's level."""
        level = _LEVELS[name.unit.upper()]
        if self._logger.isEnabledFor(level):
            text = " ".join(f"{key}={value}" for key, value in fields.items())
            self._logger.log(level, "%s %s", name.value, text, extra={"fields": fields})

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        """Not logged."""
        return nullcontext()
