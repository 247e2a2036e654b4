"""Errors of the log as refusals: what a caller of the service does next."""

from __future__ import annotations

from woodpecker.errors import (
    Conflict,
    Corrupt,
    Fenced,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    OutOfRange,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.streaming.core.refusals import Class, Refusal

_CLASSES: tuple[tuple[type[WoodpeckerError], Class], ...] = (
    (Corrupt, Class.CORRUPT),
    (OutOfRange, Class.OUT_OF_RANGE),
    (InvalidRequest, Class.INVALID),
    (NotFound, Class.NOT_FOUND),
    (Conflict, Class.LATER),
    (OutcomeUnknown, Class.UNKNOWN),
    (Unavailable, Class.UNAVAILABLE),
    (Fenced, Class.FENCED),
)


def refusal_from(error: WoodpeckerError) -> Refusal:
    """The refusal that says the same."""
    kind = next((kind for type_, kind in _CLASSES if isinstance(error, type_)), Class.UNKNOWN)
    earliest = error.earliest if isinstance(error, OutOfRange) else None
    return Refusal(kind=kind, message=str(error), earliest=-1 if earliest is None else earliest)
