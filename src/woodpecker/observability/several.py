"""Several observers as one: log lines and metrics at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from woodpecker.observability.base import Field, Observer
from woodpecker.observability.names import Counter, Event, Gauge, Histogram, Span


class Several:
    """Passes everything on to each of its observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def count(self, name: Counter, n: int = 1, **labels: str) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.count(name, n, **labels)

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.gauge(name, value, **labels)

    def observe(self, name: Histogram, value: float, **labels: str) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.observe(name, value, **labels)

    def event(self, name: Event, **fields: Field) -> None:
        """Pass on."""
        for observer in self._observers:
            observer.event(name, **fields)

    def span(self, name: Span, **fields: Field) -> AbstractContextManager[None]:
        """Open a span of each."""
        return self._span(name, fields)

    @contextmanager
    def _span(self, name: Span, fields: dict[str, Field]) -> Iterator[None]:
        with ExitStack() as stack:
            for observer in self._observers:
                stack.enter_context(observer.span(name, **fields))
            yield
