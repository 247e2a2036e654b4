"""Writes the history of one real process: each line is one write, before anything is done about it.

A line that was written is in the page cache, so SIGKILL loses at most what nobody was told.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from woodpecker.testing import recorder
from woodpecker.testing.history import Event, encode
from woodpecker.testing.recorder import outcome_of

__all__ = ["Recorder", "outcome_of"]


class Recorder(recorder.Recorder):
    """The history of the process ``process``, appended to ``path``."""

    def __init__(self, path: Path, process: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        super().__init__(process, time.monotonic_ns, self._append)

    def _append(self, event: Event) -> None:
        line = encode(event)
        written = os.write(self._fd, line)
        assert written == len(line), "the disk that holds the history is full"
