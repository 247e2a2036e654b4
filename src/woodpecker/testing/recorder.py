"""Writes the history of one process: an event before each call, an event as soon as the answer is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from woodpecker.errors import Conflict, Fenced, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.testing.history import Began, Call, Ended, Event, Item, Note, Outcome, Return, Seen

REFUSALS = ("conflict", "invalid_request", "closed", "not_found", "out_of_range", "log_ended")


class Recorder:
    """The history of the process ``process``.

    Args:
        now_ns: a monotonic clock that all processes of the run share.
        write: keeps one event; what it has taken is not lost when the process dies.
    """

    def __init__(
        self, process: str, now_ns: Callable[[], int], write: Callable[[Event], None]
    ) -> None:
        self.process = process
        self._now_ns = now_ns
        self._write = write
        self._numbers = count()

    def call(self, kind: str, *, items: Sequence[Item] = (), **fields: Any) -> int:
        """A call is about to be made, with these fields of ``Call``; returns its number."""
        number = next(self._numbers)
        self._write(
            Call(
                process=self.process,
                number=number,
                kind=kind,
                at_ns=self._now_ns(),
                items=tuple(items),
                **fields,
            )
        )
        return number

    def ok(self, number: int, value: int, *, epoch: int = 0) -> None:
        """It was acknowledged."""
        self._return(number, "ok", value=value, epoch=epoch)

    def failed(self, number: int, error: WoodpeckerError) -> None:
        """It raised a documented error."""
        value = getattr(error, "actual", None) if isinstance(error, Conflict) else None
        if error.code == "out_of_range":
            value = getattr(error, "earliest", None)
        self._return(
            number,
            outcome_of(error),
            error=error.code,
            value=value if isinstance(value, int) else None,
        )

    def gave_up(self, number: int) -> None:
        """The caller did not wait for an answer: what became of it stays open."""
        self._return(number, "unknown", error="cancelled", value=None)

    def began(self, reader: str, start: int | None) -> None:
        """A reader begins."""
        self._write(Began(process=self.process, reader=reader, at_ns=self._now_ns(), start=start))

    def seen(self, reader: str, first: int, items: Sequence[Item]) -> None:
        """It was shown something."""
        self._write(
            Seen(
                process=self.process,
                reader=reader,
                at_ns=self._now_ns(),
                first=first,
                items=tuple(items),
            )
        )

    def note(self, what: str, text: str = "") -> None:
        """Something to count."""
        self._write(Note(process=self.process, at_ns=self._now_ns(), what=what, text=text))

    def ended(self, *, held: int = 0) -> None:
        """The process ends by itself now."""
        self._write(Ended(process=self.process, at_ns=self._now_ns(), held=held))

    def _return(
        self, number: int, outcome: Outcome, *, error: str = "", value: int | None, epoch: int = 0
    ) -> None:
        self._write(
            Return(
                process=self.process,
                number=number,
                at_ns=self._now_ns(),
                outcome=outcome,
                error=error,
                value=value,
                epoch=epoch,
            )
        )


def outcome_of(error: WoodpeckerError) -> Outcome:
    """What an error says of the entry concerned."""
    if isinstance(error, Fenced):
        return error.outcome
    if isinstance(error, OutcomeUnknown):
        return "unknown"
    if error.code in REFUSALS:
        return "refused"
    if isinstance(error, NotWritten):
        return "not_written"
    return "unknown"
