"""Reading a file or stdin in big pieces, ahead, on a thread of its own.

A thread stuck in ``read`` of a silent pipe must not keep the process alive after Ctrl-C, so it is a
daemon and owns nothing but the descriptor.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

from woodpecker.errors import InvalidRequest, NotFound

AHEAD = 3


class Feed:
    """Pieces of up to ``chunk_bytes``. ``exact``: only the last one is shorter, whatever the source.

    ``path`` "-" is stdin. Raises: NotFound, InvalidRequest: the file cannot be read.
    """

    def __init__(self, path: str, chunk_bytes: int, *, exact: bool = False) -> None:
        self._fd = os.dup(0) if path == "-" else _open(path)
        self._name = "stdin" if path == "-" else path
        self._chunk_bytes = chunk_bytes
        self._exact = exact
        facts = os.fstat(self._fd)
        if stat.S_ISDIR(facts.st_mode):
            os.close(self._fd)
            raise InvalidRequest(f"{self._name} is a directory: name a file, or - for stdin")
        self.size_bytes = facts.st_size if stat.S_ISREG(facts.st_mode) else None
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)
        self._is_closed = False
        threading.Thread(target=self._work, name="woodpecker-feed", daemon=True).start()

    async def read(self) -> bytes:
        """The next piece; empty at the end. Raises: InvalidRequest: reading failed."""
        piece = await self._pieces.get()
        self._room.release()
        if isinstance(piece, OSError):
            raise InvalidRequest(f"{self._name} cannot be read: {piece.strerror}")
        return piece

    def close(self) -> None:
        """Stop reading ahead; the descriptor goes with the thread or with the process."""
        self._is_closed = True
        self._room.release()

    def _work(self) -> None:
        piece: bytes | OSError = b"-"
        try:
            while piece and not isinstance(piece, OSError):
                self._room.acquire()
                if self._is_closed:
                    return
                piece = self._next()
                try:
                    self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
                except RuntimeError:  # the loop is gone: the command has ended
                    return
        finally:
            os.close(self._fd)

    def _next(self) -> bytes | OSError:
        try:
            piece = os.read(self._fd, self._chunk_bytes)
            if not self._exact or len(piece) in (0, self._chunk_bytes):
                return piece
            parts, missing = [piece], self._chunk_bytes - len(piece)
            while missing and (part := os.read(self._fd, missing)):
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)
        except OSError as error:
            return error


def _open(path: str) -> int:
    try:
        return os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
