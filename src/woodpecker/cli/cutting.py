"""Cutting a stream of bytes into entries, and entries back into bytes.

``lines``: an entry per line, without its newline; a last line without one carries the header
``no-eol``, so that reading gives the same bytes again. ``raw``: pieces of equal size. ``jsonl``: one
JSON object per entry, as ``cli/records.py`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from woodpecker.cli.formats import Format
from woodpecker.cli.records import entry_from_json
from woodpecker.client.entry import Entry
from woodpecker.core.ids import MAX_PAYLOAD_BYTES
from woodpecker.errors import InvalidRequest

NO_EOL = b"no-eol"


Entries = Sequence[bytes | Entry]


class Cutter(Protocol):
    """Takes the input piece by piece."""

    def cut(self, chunk: bytes) -> Entries:
        """The entries complete with this piece. Raises: InvalidRequest."""

    def rest(self) -> Entries:
        """What is left at the end of the input. Raises: InvalidRequest."""


def make_cutter(form: Format, entry_bytes: int) -> Cutter:
    """The cutter for a format; ``entry_bytes`` is of ``raw``."""
    match form:
        case Format.RAW:
            return Pieces(entry_bytes)
        case Format.LINES:
            return Lines()
        case Format.JSONL:
            return JsonLines()


class Lines:
    """Lines by their newline; carriage returns and all other bytes stay in the payload."""

    def __init__(self) -> None:
        self._open: list[bytes] = []  # parts of a line that has no end yet
        self._open_bytes = 0
        self._count = 0

    def cut(self, chunk: bytes) -> list[bytes]:
        if b"\n" not in chunk:
            self._keep(chunk)
            return []
        lines = chunk.split(b"\n")
        if self._open:
            self._keep(lines[0])
            lines[0] = b"".join(self._open)
        last = lines.pop()
        self._open, self._open_bytes = [], 0
        self._count += len(lines)
        self._keep(last)
        return lines

    def rest(self) -> Entries:
        if not self._open:
            return []
        return [Entry(b"".join(self._open), headers={NO_EOL: b""})]

    def _keep(self, part: bytes) -> None:
        self._open_bytes += len(part)
        if self._open_bytes > MAX_PAYLOAD_BYTES:
            raise InvalidRequest(
                f"line {self._count + 1} is longer than 64 MiB, the most an entry can hold: "
                "make it shorter, or `append` it in pieces with --format raw"
            )
        if part:
            self._open.append(part)


class JsonLines:
    """One entry per line of JSON."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._count = 0

    def cut(self, chunk: bytes) -> list[Entry]:
        return self._decode(self._lines.cut(chunk))

    def rest(self) -> list[Entry]:
        return self._decode([e.payload for e in self._lines.rest() if isinstance(e, Entry)])

    def _decode(self, lines: Sequence[bytes]) -> list[Entry]:
        first = self._count + 1
        self._count += len(lines)
        return [
            entry_from_json(line, number)
            for number, line in enumerate(lines, first)
            if line.strip()
        ]


class Pieces:
    """Pieces of ``entry_bytes``; the last one is shorter."""

    def __init__(self, entry_bytes: int) -> None:
        self._size = entry_bytes
        self._open = bytearray()

    def cut(self, chunk: bytes) -> list[bytes]:
        if not self._open and len(chunk) == self._size:
            return [chunk]
        self._open += chunk
        whole = len(self._open) - len(self._open) % self._size
        with memoryview(self._open) as data:
            pieces = [bytes(data[at : at + self._size]) for at in range(0, whole, self._size)]
        del self._open[:whole]
        return pieces

    def rest(self) -> list[bytes]:
        return [bytes(self._open)] if self._open else []
