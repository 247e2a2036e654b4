"""Refusals as users meet them: ``woodpecker.errors``, by what is known of the outcome."""

from __future__ import annotations

from woodpecker.errors import (
    Aborted,
    AlreadyExists,
    Conflict,
    Corrupt,
    Fenced,
    InvalidRequest,
    NotFound,
    NotWritten,
    OutcomeUnknown,
    OutOfRange,
    Overloaded,
    ProducerExpired,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.streaming.core.refusals import Class, Refusal

ROUTING = frozenset({Class.MOVED, Class.UNKNOWN, Class.NOT_LEADER})  # somebody else may do it
WAITING = frozenset({Class.LATER, Class.UNAVAILABLE})  # the same one may do it later
HANDLED = ROUTING | WAITING | {Class.GAP}  # never shown before the deadline

_PLAIN: dict[Class, type[WoodpeckerError]] = {
    Class.EXPIRED: ProducerExpired,
    Class.EXISTS: AlreadyExists,
    Class.GONE: NotFound,
    Class.NOT_FOUND: NotFound,
    Class.CORRUPT: Corrupt,
    Class.INVALID: InvalidRequest,
    Class.DENIED: InvalidRequest,
}


def as_error(refusal: Refusal, what: str) -> WoodpeckerError:
    """Of something that was certainly not done, or changes nothing when it is done twice."""
    text = f"{what}: {refusal.message}"
    match refusal.kind:
        case Class.STALE_PRODUCER | Class.FENCED:
            return Fenced(text, outcome="not_written")
        case Class.ABORTED:
            return Aborted(text, reason=refusal.reason)
        case Class.CONDITION:
            return Conflict(text, actual=refusal.actual)
        case Class.OUT_OF_RANGE:
            return OutOfRange(text, earliest=refusal.earliest)
    return _PLAIN.get(refusal.kind, Unavailable)(text)


def unwritten(refusal: Refusal | None, what: str, timeout_ms: int) -> WoodpeckerError:
    """Of a batch whose deadline has passed, and every sending of which was refused."""
    late = f"{what}: not written within {timeout_ms / 1000:g} s"
    if refusal is None:
        return NotWritten(f"{late}: nobody served the channel; send it again")
    if refusal.kind is Class.LATER:
        return Overloaded(f"{late}: {refusal.message}")
    return NotWritten(f"{late}: {refusal.message}; send it again")


def unknown(refusal: Refusal | None, what: str) -> WoodpeckerError:
    """Of a batch that may be written; ``refusal``: what its last sending met."""
    because = "the stream to its owner has ended" if refusal is None else refusal.message
    if refusal is not None and refusal.kind is Class.EXPIRED:
        return ProducerExpired(f"{what}: {because}; whether it was written is not known")
    if refusal is not None and refusal.kind is Class.STALE_PRODUCER:
        return Fenced(f"{what}: {because}; whether it was written is not known", outcome="unknown")
    return OutcomeUnknown(f"{what}: {because}; whether it was written is not known")
