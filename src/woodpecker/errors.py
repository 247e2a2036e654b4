"""Every error a user can meet: one small tree, cut by what the caller does next.

An error says what happened, to what, and what to do. ``code`` is stable and goes over wires and into
JSON; ``retryable`` says whether the same call may succeed later without any change by the caller.
Extra facts are typed attributes. No exception of a lower library leaves Woodpecker.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Outcome = Literal["not_written", "unknown"]


class WoodpeckerError(Exception):
    """Base of all errors of this library."""

    code: ClassVar[str] = "error"
    retryable: bool = False  # of the class; an instance may know better


class InvalidRequest(WoodpeckerError):
    """The call can never succeed as made: bad name, size, option, URL, credentials."""

    code = "invalid_request"


class NotFound(WoodpeckerError):
    """The log, cursor, bucket, key or file is not there."""

    code = "not_found"


class AlreadyExists(WoodpeckerError):
    """Something of this name is there already."""

    code = "already_exists"


class Conflict(WoodpeckerError):
    """A condition did not hold: another version, another claim, another ``expect_seq``.

    ``actual`` carries the value found where one is known (for ``expect_seq``: the next seq).
    """

    code = "conflict"

    def __init__(self, message: str, *, actual: int | str | None = None) -> None:
        super().__init__(message)
        self.actual = actual


class NotWritten(WoodpeckerError):
    """The entry is certainly not in the log and never will be; it may be appended again."""

    code = "not_written"
    retryable = True


class Overloaded(NotWritten):
    """A bounded queue or disk is full; nothing was written. Wait (``writer.ready()``), try again."""

    code = "overloaded"


class Aborted(NotWritten):
    """The transaction is aborted: none of its messages will ever be seen. Run it again whole.

    ``reason``: ``"expired"`` (no sign of life within its keep-alive), ``"too old"``, ``"fenced"`` (a newer
    producer of that name), ``"deleted"`` (its channel), ``"aborted"`` (by its producer).
    """

    code = "aborted"

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class OutcomeUnknown(WoodpeckerError):
    """The write may or may not take effect.

    Of a log: ask ``writer.resolve()`` before writing it again. Of a channel: read it, or see to it that
    a repeat does no harm.
    """

    code = "outcome_unknown"


class ProducerExpired(OutcomeUnknown):
    """The producer's session is forgotten, so repeats are not recognised. Open a new producer."""

    code = "producer_expired"


class Fenced(WoodpeckerError):
    """Another writer took the log over (or it was deleted). This writer is finished.

    ``outcome`` says what is known of the entry concerned: ``"not_written"`` or ``"unknown"``.
    """

    code = "fenced"

    def __init__(self, message: str, *, outcome: Outcome = "unknown") -> None:
        super().__init__(message)
        self.outcome: Outcome = outcome


class LogEnded(NotWritten):
    """The log was ended with ``log.end()``: nothing can be appended any more."""

    code = "log_ended"
    retryable = False


class OutOfRange(WoodpeckerError):
    """The position is not readable: trimmed (``earliest``) or not yet written (``tail``)."""

    code = "out_of_range"

    def __init__(
        self, message: str, *, earliest: int | None = None, tail: int | None = None
    ) -> None:
        super().__init__(message)
        self.earliest = earliest
        self.tail = tail


class Unavailable(WoodpeckerError):
    """A store, node, disk or lock holder did not answer in time; nothing was changed by this call."""

    code = "unavailable"
    retryable = True


class Corrupt(WoodpeckerError):
    """Stored bytes fail their checks. ``where`` names the object or file and the place in it."""

    code = "corrupt"

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class Closed(WoodpeckerError):
    """You closed this handle (or its client); open a new one."""

    code = "closed"


ALL_ERRORS: tuple[type[WoodpeckerError], ...] = (
    InvalidRequest,
    NotFound,
    AlreadyExists,
    Conflict,
    NotWritten,
    Overloaded,
    Aborted,
    OutcomeUnknown,
    ProducerExpired,
    Fenced,
    LogEnded,
    OutOfRange,
    Unavailable,
    Corrupt,
    Closed,
)
