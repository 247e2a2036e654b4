"""Reading a database of records without touching it. Blocks; runs in the thread of its store.

While nobody has the database open there is no journal beside it, and an ordinary reader would
create one. So the file is then read as immutable (https://sqlite.org/uri.html), opened for this
one call, and read again if it changed meanwhile. With a journal beside it, it is read the ordinary
way: SQLite maps the ``-shm`` file there, but changes neither database nor journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from woodpecker.errors import NotFound, Unavailable, WoodpeckerError
from woodpecker.metadata.base import Record
from woodpecker.metadata.sqlite_errors import translated
from woodpecker.metadata.sqlite_file import (
    check_application,
    select_many,
    select_one,
    select_versions,
)

TRIES = 5

T = TypeVar("T")
_State = tuple[int, int, int, bool]  # inode, size, mtime (ns) of the database; is there a journal


class ReadOnlyDatabase:
    """The reads of ``RecordDatabase`` on a file that must not be changed.

    Raises (all methods): NotFound: no such database. Others as ``translated``.
    """

    def __init__(self, path: Path, busy_ms: int) -> None:
        self._path = path
        self._busy_ms = busy_ms

    def get(self, key: str) -> Record | None:
        return self._read(lambda db: select_one(db, key))

    def list(self, prefix: str, start_after: str, limit: int) -> Sequence[Record]:
        return self._read(lambda db: select_many(db, prefix, start_after, limit))

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The versions of ``keys`` now."""
        return self._read(lambda db: select_versions(db, keys))

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        for _ in range(TRIES):
            before = self._state()
            try:
                result = self._read_once(work, journal=before[3])
            except WoodpeckerError:
                if self._state() == before:
                    raise
                continue
            if before[3] or self._state() == before:
                return result
        raise Unavailable(f"the metadata database {self._path} is being opened; try again")

    def _read_once(self, work: Callable[[sqlite3.Connection], T], *, journal: bool) -> T:
        mode = "mode=ro" if journal else "mode=ro&immutable=1"
        uri = f"file:{quote(str(self._path))}?{mode}"
        with (
            translated(self._path, writes=False),
            closing(
                sqlite3.connect(uri, uri=True, timeout=self._busy_ms / 1000, isolation_level=None)
            ) as db,
        ):
            if not check_application(db, self._path):
                raise NotFound(
                    f"{self._path} is empty: no metadata database; create a log first, or put back what "
                    "belongs to it (a copy needs metadata.sqlite-wal, too)"
                )
            return work(db)

    def _state(self) -> _State:
        try:
            facts = self._path.stat()
            journal = self._path.with_name(self._path.name + "-wal").exists()
        except FileNotFoundError as error:
            raise NotFound(
                f"no metadata database at {self._path}; check the path, or open it for writing once"
            ) from error
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read ({error})") from error
        return facts.st_ino, facts.st_size, facts.st_mtime_ns, journal
