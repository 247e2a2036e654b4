"""What a worker process is told to do, as plain data that goes through a pipe."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import woodpecker as wp
from woodpecker.observability.base import Observer, Silent
from woodpecker.observability.names import Event
from woodpecker.testing.faults.recorder import Recorder

COUNTED = (Event.SEGMENT_SEALED, Event.SEGMENT_RECOVERED, Event.BACKGROUND_FAILED, Event.CORRUPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One life of one worker process.

    Attributes:
        role: "writer" | "follower" | "trimmer". name: unique in the run.
        url, metadata, options: for ``connect``. env: added to the environment (credentials).
        directory: histories and the socket for signals lie there.
        max_s: the process ends itself then, however it hangs.
        settings: of the role.
    """

    role: str
    name: str
    log: str
    url: str
    directory: str
    seed: int
    metadata: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    max_s: int = 120
    settings: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def decode(line: bytes) -> Job:
        """Read it back."""
        return Job(**json.loads(line))

    def recorder(self) -> Recorder:
        """Where this process writes its history."""
        return Recorder(Path(self.directory) / f"{self.name}.jsonl", self.name)

    def connect(self, recorder: Recorder, *, background: bool = True) -> wp.Client:
        """A client of the store, which notes what it does in the history."""
        return wp.connect(
            self.url,
            metadata=self.metadata,
            background=background,
            observer=Noting(recorder),
            **self.options,
        )

    def tell(self, word: str) -> None:
        """Tell the orchestrator that a point has been reached."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as signals:
            signals.sendto(f"{self.name} {word}".encode(), f"{self.directory}/signals")


class Noting(Silent):
    """An observer that writes rare events into the history."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def event(self, name: Event, **fields: Any) -> None:
        if name in COUNTED:
            self._recorder.note(name, " ".join(f"{key}={value}" for key, value in fields.items()))


_: type[Observer] = Noting
