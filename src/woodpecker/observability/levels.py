"""Gauges that many parts of one client move together: what is shown is their sum."""

from __future__ import annotations

from woodpecker.observability.base import SILENT, Observer
from woodpecker.observability.names import Gauge


class Levels:
    """Each part puts its own share; a part that has ended has put zero everywhere."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._shares: dict[tuple[object, Gauge], tuple[int, str]] = {}
        self._sums: dict[tuple[Gauge, str], int] = {}

    def put(self, part: object, name: Gauge, share: int, *, kind: str = "") -> None:
        """The share of ``part`` in ``name`` is now ``share``; ``kind`` is its label, if it has one."""
        if self._observer is SILENT:
            return
        before, old_kind = self._shares.pop((part, name), (0, kind))
        if share:
            self._shares[part, name] = (share, kind)
        if old_kind != kind:
            self._move(name, -before, old_kind)
            before = 0
        self._move(name, share - before, kind)

    def _move(self, name: Gauge, by: int, kind: str) -> None:
        level = self._sums.get((name, kind), 0) + by
        self._sums[name, kind] = level
        labels = {"kind": kind} if kind else {}
        self._observer.gauge(name, level, **labels)
