"""Metadata in a SQLite file: for one machine, any number of processes.

The database's blocking calls run in one thread of each store; see sqlite_file.py for the rules of
durability and versions. A process that is stopped inside a write holds SQLite's lock: others then
get ``Unavailable`` with its pid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from woodpecker.errors import Closed, InvalidRequest
from woodpecker.metadata.base import Lease, Record
from woodpecker.metadata.checks import check_key, check_value
from woodpecker.metadata.lease import RecordLeases
from woodpecker.metadata.poller import ChangePoller
from woodpecker.metadata.sqlite_file import RecordDatabase
from woodpecker.metadata.sqlite_readonly import ReadOnlyDatabase
from woodpecker.metadata.worker import Job, Outcome, Worker
from woodpecker.runtime.runtime import Runtime

BUSY_MS = 2000

T = TypeVar("T")
_Database = RecordDatabase | ReadOnlyDatabase


class SqliteMetadata:
    """Metadata records in the SQLite file ``path``; opened by the first call.

    Args:
        path: the database file; it and its directory are created if absent.
        runtime: clock and tasks.
        read_only: never write; no file is created where SQLite can avoid it.
        busy_ms: how long a call waits for a lock, its time in this store's queue included.
    Errors: besides the port's, InvalidRequest (no rights, not our database, or a write with
        ``read_only``), NotFound (``read_only`` and no database), Corrupt (damaged).
    Concurrency: many tasks of one event loop; many stores and processes on one file.
    """

    def __init__(
        self,
        path: str | Path,
        runtime: Runtime,
        *,
        read_only: bool = False,
        busy_ms: int = BUSY_MS,
    ) -> None:
        self._path = Path(path).absolute()
        self._runtime = runtime
        self._read_only = read_only
        self._busy_ms = busy_ms
        self._leases = RecordLeases(self, runtime)
        self._worker = Worker(f"woodpecker-sqlite {self._path.name}", self._together)
        self._database: _Database | None = None  # the worker's own
        self._waits = ChangePoller(self._changed_versions, runtime)
        self._marker: tuple[int, int] | None = None  # the worker's own
        self._closed = False

    @property
    def url(self) -> str:
        return f"sqlite://{self._path}"

    async def get(self, key: str) -> Record | None:
        check_key(key)
        return await self._call(lambda db: db.get(key), joins=True)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        check_key(key)
        check_value(key, value)
        return await self._write(lambda db: db.put(key, bytes(value), expect))

    async def remove(self, key: str, *, expect: str) -> bool:
        check_key(key)
        return await self._write(lambda db: db.remove(key, expect))

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        return await self._call(lambda db: db.list(prefix, start_after, limit))

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        check_key(key)
        self._check_open()
        await self._waits.wait(key, version, timeout_ms)

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        return await self._leases.acquire(key, holder, ttl_ms)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._leases.close()
        await self._waits.close()
        try:
            await self._worker.run(self._close_database)
        finally:
            self._worker.stop()

    async def _write(self, work: Callable[[RecordDatabase], T]) -> T:
        def checked(database: _Database) -> T:
            if not isinstance(database, RecordDatabase):
                raise InvalidRequest(
                    f"{self.url} was opened with read_only=True: nothing is written"
                )
            return work(database)

        return await self._call(checked, joins=True, writes=True)

    async def _call(
        self, work: Callable[[_Database], T], *, joins: bool = False, writes: bool = False
    ) -> T:
        self._check_open()
        until_ms = self._runtime.monotonic_ms() + self._busy_ms

        def run() -> T:
            database = self._open_database()
            if isinstance(database, RecordDatabase):
                left_ms = int(until_ms - self._runtime.monotonic_ms())
                # In steps, so that the setting seldom changes; queued calls share one wait.
                database.wait_at_most(max(1, left_ms + 99) // 100 * 100)
            return work(database)

        return await self._worker.run(run, joins=joins, writes=writes)

    def _together(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """In the worker: several writes share one transaction, so one wait for the disk."""
        if isinstance(self._database, RecordDatabase) and sum(job.writes for job in jobs) > 1:
            outcomes = self._database.together(jobs)
            if outcomes is not None:
                return outcomes
        return [job.run() for job in jobs]

    async def _changed_versions(self, keys: Sequence[str], *, anew: bool) -> dict[str, str | None]:
        """The versions of ``keys``; nothing if no record has changed since the last call."""

        def read(database: _Database) -> dict[str, str | None]:
            if isinstance(database, RecordDatabase):
                before, self._marker = self._marker, database.marker()
                if before == self._marker and not anew:
                    return {}
            return database.versions(keys)

        return await self._call(read)

    def _open_database(self) -> _Database:
        if isinstance(self._database, RecordDatabase) and self._database.is_broken:
            self._database = self._marker = None
        if self._database is None:
            kind = ReadOnlyDatabase if self._read_only else RecordDatabase
            self._database = kind(self._path, self._busy_ms)
        return self._database

    def _close_database(self) -> None:
        database, self._database = self._database, None
        if isinstance(database, RecordDatabase):
            database.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"metadata store {self.url} is closed; open a new one")
