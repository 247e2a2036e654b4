"""Who decides: the record that candidates compete for, and for how long its holder may (pure).

A candidate takes the record over when it has seen it stand still for a ttl, on its own clock, or when its
holder has left it. The holder stops deciding when its newest proven beat is older than half a ttl, so
two hardly ever decide at once; should they, it is harmless: every decision is a compare-and-swap.
"""

from __future__ import annotations

from dataclasses import replace

from woodpecker.core.membership import Sighting
from woodpecker.streaming.core.records import CoordinatorRecord

NOBODY = ""


def is_free(record: CoordinatorRecord | None, sighting: Sighting | None, ttl_ms: float) -> bool:
    """Whether a candidate that has seen the record so may stand."""
    if record is None or record.holder == NOBODY:
        return True
    return sighting is not None and sighting.silent_ms >= ttl_ms


def elected(before: CoordinatorRecord | None, holder: str, address: str) -> CoordinatorRecord:
    """The record of a new holder: the epoch grows with every change."""
    epoch = 0 if before is None else before.epoch
    return CoordinatorRecord(epoch=epoch + 1, holder=holder, address=address)


def beaten(record: CoordinatorRecord) -> CoordinatorRecord:
    """The record with its next beat."""
    return replace(record, beat=record.beat + 1)


def abdicated(record: CoordinatorRecord) -> CoordinatorRecord:
    """What a holder leaves behind that stops in good order: nobody needs to wait."""
    return replace(record, holder=NOBODY, beat=record.beat + 1)


def may_decide(proof_age_ms: float, ttl_ms: float) -> bool:
    """Whether the holder's newest beat is young enough for decisions."""
    return proof_age_ms < ttl_ms / 2
