"""Writes the history of one process: each line is one write, before anything is done about it.

A line that was written is in the page cache, so SIGKILL loses at most what nobody was told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from woodpecker.errors import Conflict, Fenced, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.testing.history import (
    Began,
    Call,
    Ended,
    Event,
    Item,
    Note,
    Outcome,
    Return,
    Seen,
    encode,
)

REFUSALS = ("conflict", "invalid_request", "closed", "not_found", "out_of_range", "log_ended")


class Recorder:
    """The history of the process ``process``, appended to ``path``."""

    def __init__(self, path: Path, process: str) -> None:
        self.process = process
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._numbers = count()

    def call(
        self,
        kind: str,
        *,
        items: Sequence[Item] = (),
        epoch: int = 0,
        expect: int | None = None,
        before: int | None = None,
    ) -> int:
        """A call is about to be made; returns its number."""
        number = next(self._numbers)
        self._write(
            Call(
                process=self.process,
                number=number,
                kind=kind,
                at_ns=time.monotonic_ns(),
                items=tuple(items),
                epoch=epoch,
                expect=expect,
                before=before,
            )
        )
        return number

    def ok(self, number: int, value: int, *, epoch: int = 0) -> None:
        """It was acknowledged."""
        self._return(number, "ok", value=value, epoch=epoch)

    def failed(self, number: int, error: WoodpeckerError) -> None:
        """It raised a documented error."""
        actual = error.actual if isinstance(error, Conflict) else None
        value = actual if isinstance(actual, int) else None
        self._return(number, outcome_of(error), error=error.code, value=value)

    def began(self, reader: str, start: int | None) -> None:
        """A reader begins."""
        self._write(
            Began(process=self.process, reader=reader, at_ns=time.monotonic_ns(), start=start)
        )

    def seen(self, reader: str, first: int, items: Sequence[Item]) -> None:
        """It was shown something."""
        self._write(
            Seen(
                process=self.process,
                reader=reader,
                at_ns=time.monotonic_ns(),
                first=first,
                items=tuple(items),
            )
        )

    def note(self, what: str, text: str = "") -> None:
        """Something to count."""
        self._write(Note(process=self.process, at_ns=time.monotonic_ns(), what=what, text=text))

    def ended(self, *, held: int = 0) -> None:
        """The process ends by itself now."""
        self._write(Ended(process=self.process, at_ns=time.monotonic_ns(), held=held))

    def _return(
        self, number: int, outcome: Outcome, *, error: str = "", value: int | None, epoch: int = 0
    ) -> None:
        self._write(
            Return(
                process=self.process,
                number=number,
                at_ns=time.monotonic_ns(),
                outcome=outcome,
                error=error,
                value=value,
                epoch=epoch,
            )
        )

    def _write(self, event: Event) -> None:
        line = encode(event)
        written = os.write(self._fd, line)
        assert written == len(line), "the disk that holds the history is full"


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
