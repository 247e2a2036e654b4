"""One SQLite database of records: schema and statements. Blocks; runs in the thread of its store.

- Write-ahead journal with ``synchronous=FULL``: a commit that returned is on disk.
- A write is one statement. Those that stand in a queue together share a transaction, so one wait for the disk;
  nothing is waited for inside one.
- A version is the row's id, given by AUTOINCREMENT: larger than any the database ever gave, also
  after removals (https://sqlite.org/autoinc.html). A changed record is a new row.
- No RETURNING (SQLite 3.35): enterprise distributions still ship 3.34.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from woodpecker.errors import Conflict, InvalidRequest, Unavailable, WoodpeckerError
from woodpecker.metadata.base import Record
from woodpecker.metadata.sqlite_errors import translated
from woodpecker.metadata.worker import Job, Outcome

APPLICATION_ID = 0x57504D31  # "WPM1" in the file's header: a Woodpecker metadata database, format 1
SCHEMA = """
CREATE TABLE record (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value BLOB NOT NULL
)"""
CREATE = "INSERT OR IGNORE INTO record (key, value) VALUES (?, ?)"
REPLACE = (
    "INSERT OR REPLACE INTO record (key, value) "
    "SELECT key, ? FROM record WHERE key = ? AND version = ?"
)
REMOVE = "DELETE FROM record WHERE key = ? AND version = ?"
GET = "SELECT key, value, version FROM record WHERE key = ?"
VERSION = "SELECT version FROM record WHERE key = ?"
LIST = (
    "SELECT key, value, version FROM record "
    "WHERE key >= ? AND key > ? AND key < ? ORDER BY key LIMIT ?"
)
AFTER_ASCII = "\x7f"  # keys are printable ASCII, so this sorts after all of them
PREPARE_PAUSE_MS = 20
TOGETHER_BUSY_MS = 100  # each call by itself waits longer


class RecordDatabase:
    """An open database file, for one thread. Created with its directory if absent.

    Raises (all methods): as ``translated``.
    """

    def __init__(self, path: Path, busy_ms: int) -> None:
        self._path = path
        self._busy_ms = PREPARE_PAUSE_MS
        with translated(path, writes=False):
            make_directory(path.parent)
            self._db = sqlite3.connect(path, timeout=PREPARE_PAUSE_MS / 1000, isolation_level=None)
        self.is_broken = False  # closed on the way: it has to be opened anew
        try:
            _prepare(self._db, path, busy_ms)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close; the last one folds the journal into the database."""
        with translated(self._path, writes=False):
            self._db.close()

    def wait_at_most(self, busy_ms: int) -> None:
        """Bound the wait for a lock in the statements that follow."""
        if busy_ms != self._busy_ms:
            self._db.execute(f"PRAGMA busy_timeout = {busy_ms}")
            self._busy_ms = busy_ms

    def get(self, key: str) -> Record | None:
        with translated(self._path, writes=False):
            return select_one(self._db, key)

    def list(self, prefix: str, start_after: str, limit: int) -> Sequence[Record]:
        with translated(self._path, writes=False):
            return select_many(self._db, prefix, start_after, limit)

    def versions(self, keys: Sequence[str]) -> dict[str, str | None]:
        """The versions of ``keys`` now."""
        with translated(self._path, writes=False):
            return select_versions(self._db, keys)

    def marker(self) -> tuple[int, int]:
        """A value that differs after any change, by another connection or by this one."""
        with translated(self._path, writes=False):
            (others,) = self._db.execute("PRAGMA data_version").fetchone()
            return int(others), self._db.total_changes

    def put(self, key: str, value: bytes, expect: str | None) -> str:
        """Compare-and-swap; see ``MetadataStore.put``."""
        with translated(self._path, writes=True):
            if expect is None:
                done = self._db.execute(CREATE, (key, value))
            else:
                done = self._db.execute(REPLACE, (value, key, _row_id(expect)))
        if done.rowcount == 0:
            self._refuse(key, expect)
        return str(done.lastrowid)

    def remove(self, key: str, expect: str) -> bool:
        """Remove under a condition; see ``MetadataStore.remove``."""
        with translated(self._path, writes=True):
            done = self._db.execute(REMOVE, (key, _row_id(expect)))
        if done.rowcount == 0:
            self._refuse(key, expect)
        return True

    def together(self, jobs: Sequence[Job]) -> Sequence[Outcome] | None:
        """Run jobs that call this database in one transaction; their outcomes, in order.

        None: it came to nothing, and none of them has changed anything.
        """
        try:
            self.wait_at_most(TOGETHER_BUSY_MS)
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            return None
        try:
            return self._run_and_commit(jobs)
        finally:
            self._roll_back()  # whatever happened, what follows must not be taken for part of it

    def _run_and_commit(self, jobs: Sequence[Job]) -> Sequence[Outcome] | None:
        outcomes: list[Outcome] = []
        for job in jobs:
            outcome = job.run()
            if outcome.error is not None and not isinstance(outcome.error, Conflict):
                return None
            outcomes.append(outcome)
        try:
            with translated(self._path, writes=True):
                self._db.execute("COMMIT")
        except WoodpeckerError as error:
            self._roll_back()
            failed = Outcome(error=error)
            return [failed if job.writes else job.run() for job in jobs]
        return outcomes

    def _roll_back(self) -> None:
        """End the transaction, if there is one: SQLite may have done so by itself."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            self.is_broken = True
            self._db.close()  # which rolls back

    def _refuse(self, key: str, expect: str | None) -> NoReturn:
        try:
            actual = self.versions([key])[key]
        except WoodpeckerError:  # the refusal itself is what matters
            actual = None
        raise Conflict(
            f"{self._path}: {key} is at version {actual}, not {expect}; read it again",
            actual=actual,
        )


def select_one(db: sqlite3.Connection, key: str) -> Record | None:
    """The record at ``key``."""
    row = db.execute(GET, (key,)).fetchone()
    return None if row is None else _record(*row)


def select_many(
    db: sqlite3.Connection, prefix: str, start_after: str, limit: int
) -> Sequence[Record]:
    """Records under ``prefix``, in order of their keys."""
    bounds = (prefix, start_after, prefix + AFTER_ASCII, max(0, limit))
    return [_record(*row) for row in db.execute(LIST, bounds).fetchall()]


def select_versions(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, str | None]:
    """The versions of ``keys``; None where there is no record."""
    found: dict[str, str | None] = {}
    for key in keys:
        row = db.execute(VERSION, (key,)).fetchone()
        found[key] = None if row is None else str(row[0])
    return found


def check_application(db: sqlite3.Connection, path: Path) -> bool:
    """True if this is our database, False if it is empty. Raises: InvalidRequest: it is another's."""
    # In this order: another process may set the database up between the two, in one transaction.
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application_id,) = db.execute("PRAGMA application_id").fetchone()
    if application_id == APPLICATION_ID:
        return True
    if tables or application_id:
        raise InvalidRequest(
            f"{path} is a SQLite database of another program or of another Woodpecker format "
            f"(application_id {application_id:#x}); choose another path"
        )
    return False


def make_directory(directory: Path) -> None:
    """Create ``directory`` and what is missing above it; durable when it returns."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(db: sqlite3.Connection, path: Path, busy_ms: int) -> None:
    # Switching the journal needs the file alone for a moment and does not wait for it by itself.
    pause = threading.Event()
    tries = busy_ms // (2 * PREPARE_PAUSE_MS)
    while True:
        tries -= 1
        try:
            with translated(path, writes=False):
                return _prepare_once(db, path)
        except Unavailable:
            if tries <= 0:
                raise
        pause.wait(PREPARE_PAUSE_MS / 1000)


def _prepare_once(db: sqlite3.Connection, path: Path) -> None:
    ours = check_application(db, path)
    (journal,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != "wal":
        raise InvalidRequest(
            f"{path}: the file system cannot share memory between processes (journal mode {journal});"
            " put the metadata on a local file system"
        )
    db.execute("PRAGMA synchronous = FULL")
    if ours:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if not check_application(db, path):  # somebody may have been faster
            db.execute(SCHEMA)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    sync_directory(path.parent)


def _row_id(version: str) -> int:
    """The row id of a version; one that no row has for a version of another store."""
    return int(version) if version.isdecimal() and len(version) < 19 else -1


def _record(key: str, value: bytes, version: int) -> Record:
    return Record(key=key, value=value, version=str(version))
