"""SQLite: no log, but what many take for one: a table in this process, a transaction for each append."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from woodpecker.bench.peers.base import Peer, PeerPlace


class _Table:
    def __init__(self, database: sqlite3.Connection, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread

    async def append(self, payload: bytes) -> None:
        await self.append_many([payload])

    async def append_many(self, payloads: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._insert, payloads)

    def _insert(self, payloads: Sequence[bytes]) -> None:
        with self._database:
            self._database.executemany("INSERT INTO log (payload) VALUES (?)", zip(payloads))


@asynccontextmanager
async def started(place: PeerPlace) -> AsyncIterator[Sequence[Peer]]:
    """See ``Starter``."""
    database = sqlite3.connect(place.directory / "bench.sqlite", check_same_thread=False)
    database.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
        "CREATE TABLE log (seq INTEGER PRIMARY KEY, payload BLOB);"
    )
    with ThreadPoolExecutor(1) as thread:
        yield [
            Peer(
                name="SQLite",
                settings=f"{sqlite3.sqlite_version}, in this process, journal_mode WAL, synchronous FULL "
                "(synced at each commit); one commit for each append or batch",
                log=_Table(database, thread),
            )
        ]
    database.close()
