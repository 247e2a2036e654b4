"""A rule of the log protocol that was broken, as the judges of a history say it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 20  # violations of one rule that are worth reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that was broken, and by what."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


def broken(rule: str, text: str) -> Violation:
    """The rule, and by what."""
    return Violation(rule=rule, text=text)


def shortened(found: Iterable[Violation]) -> list[Violation]:
    """At most ``SHOWN`` of one rule."""
    counts: dict[str, int] = {}
    kept = []
    for violation in found:
        count = counts[violation.rule] = counts.get(violation.rule, 0) + 1
        if count <= SHOWN:
            kept.append(violation)
    return kept
