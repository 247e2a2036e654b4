"""What SQLite's errors mean for the caller (https://sqlite.org/rescode.html)."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from woodpecker.errors import (
    Corrupt,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.metadata.sqlite_locks import lock_holders

LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
NO_RIGHTS = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
)


@contextmanager
def translated(path: Path, *, writes: bool) -> Iterator[None]:
    """Turn errors of SQLite and of the system into ours.

    Raises:
        Unavailable: locked, disk full, or not readable now; nothing was changed.
        OutcomeUnknown: an I/O error while writing.
        InvalidRequest: no rights, or not a Woodpecker database.
        Corrupt: the database is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise map_error(error, path, writes=writes) from error
    except OSError as error:
        raise _map_os_error(error, path) from error


def map_error(error: sqlite3.Error, path: Path, *, writes: bool) -> WoodpeckerError:
    """The error to raise instead of ``error``."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in LOCKED:
        return Unavailable(
            f"the metadata database {path} is locked by {lock_holders(path)}; "
            "nothing was changed; continue or end that process, then try again"
        )
    if code == sqlite3.SQLITE_FULL:
        return _disk_full(path)
    if code in NO_RIGHTS:
        return _no_rights(path, error)
    if code == sqlite3.SQLITE_NOTADB:
        return InvalidRequest(f"{path} is not a SQLite database; choose another path")
    if code == sqlite3.SQLITE_CORRUPT:
        return Corrupt(
            f"the metadata database {path} is damaged ({error}); restore it from a backup",
            where=str(path),
        )
    if writes:
        return OutcomeUnknown(
            f"writing to the metadata database {path} failed ({error}); the change may or may not "
            "be there: check the disk, then read it again"
        )
    return Unavailable(f"the metadata database {path} cannot be read ({error}); check the disk")


def _map_os_error(error: OSError, path: Path) -> WoodpeckerError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(path)
    return _no_rights(path, error)


def _disk_full(path: Path) -> Unavailable:
    return Unavailable(
        f"the file system of the metadata database {path} is full; nothing was changed; "
        "free some space, then try again"
    )


def _no_rights(path: Path, error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"the metadata database {path} cannot be opened or written ({error}); the file and its "
        "directory must be writable for this user (or open the store with read_only=True)"
    )
