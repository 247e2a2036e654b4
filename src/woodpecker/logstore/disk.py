"""Port: the disk under a node's journal. Adapters: ``disk_files.py`` (O_DIRECT), a simulated one in tests.

Offsets and sizes are whole units of 4096 bytes; buffers handed in are aligned where the disk needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

UNIT_BYTES = 4096


class JournalFile(Protocol):
    """One preallocated file of the journal."""

    number: int
    size_bytes: int

    def write(self, parts: Sequence[memoryview], offset: int) -> asyncio.Future[None]:
        """Write ``parts`` one behind the other at ``offset`` and sync; done when both are.

        All writes to one disk are carried out in the order of the calls, each after the one before is
        synced. The parts must not change before the future is done. It fails with OSError: then every
        later write to this disk fails as well, for what a failed sync leaves on the disk is unknown.
        """

    async def read(self, offset: int, size_bytes: int) -> memoryview:
        """Bytes as they are on the disk or were written; fewer at the end of the file. Raises: OSError."""

    async def sync(self) -> None:
        """Make everything that ``read`` has shown durable (a disk has a cache). Raises: OSError."""

    async def close(self) -> None:
        """Release it; waits for writes under way."""


class Disk(Protocol):
    """The directory of one node, held by one process."""

    async def load(self, name: str) -> bytes | None:
        """A small file; None: not there. Raises: OSError."""

    async def store(self, name: str, data: bytes) -> None:
        """Replace a small file atomically and durably. Raises: OSError."""

    async def files(self) -> Sequence[int]:
        """Numbers of the journal files, sorted. Raises: OSError."""

    async def create(self, number: int, size_bytes: int) -> JournalFile:
        """Make a journal file, zeros all over, its name durable. Raises: OSError (no room)."""

    async def open(self, number: int) -> JournalFile:
        """Open an existing one. Raises: OSError."""

    async def delete(self, number: int) -> None:
        """Delete a journal file. Raises: OSError."""

    def free_bytes(self) -> tuple[int, int]:
        """Free and total bytes of the file system. Raises: OSError."""

    async def close(self) -> None:
        """Let go of the directory."""
