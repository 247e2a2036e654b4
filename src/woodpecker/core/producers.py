"""Producer sessions: may this batch be written, and is it a repeat? (log protocol, section 9)

A session is (id, epoch); its batches carry sequences 0, 1, 2, ... A repeat gets the first one's
result, pending or final; a gap, an older epoch and an unknown producer are distinct refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from woodpecker.core.register import BatchResult, ProducerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """The batch is the next one: write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """The batch was written before, with this result."""

    result: BatchResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The batch must not be written; nothing was."""

    reason: str


Verdict = Fresh | Repeat | Rejected


def admit(known: ProducerState | None, *, producer: str, epoch: int, sequence: int) -> Verdict:
    """Judge one batch against the session's state, batches in flight included."""
    if known is None:
        return Rejected(reason=f"producer {producer!r} is unknown or was forgotten: open it anew")
    if epoch != known.epoch:
        return Rejected(
            reason=f"producer {producer!r} has epoch {known.epoch}, the batch has {epoch}: "
            "a newer session of this producer replaced it"
        )
    if sequence == known.last_sequence + 1:
        return Fresh()
    if sequence > known.last_sequence:
        return Rejected(
            reason=f"producer {producer!r}: sequence {sequence} leaves a gap after "
            f"{known.last_sequence}"
        )
    for result in known.results:
        if result.sequence == sequence:
            return Repeat(result=result)
    return Rejected(
        reason=f"producer {producer!r}: sequence {sequence} is older than the results kept"
    )


def evictable(producers: Sequence[str], *, limit: int) -> Sequence[str]:
    """Whom to forget before one more is granted, so that at most ``limit`` are known.

    Args:
        producers: their ids; who was idle longest comes first.
    """
    return producers[: max(0, len(producers) + 1 - limit)]
