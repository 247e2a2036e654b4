"""Metadata in memory: the reference for every other store, for tests and ``memory://``."""

from __future__ import annotations

import asyncio
import threading
from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import islice

from woodpecker.errors import Closed, Conflict
from woodpecker.metadata.base import Lease, Record
from woodpecker.metadata.checks import check_key, check_value
from woodpecker.metadata.lease import RecordLeases
from woodpecker.runtime.runtime import Runtime


class MemoryRecords:
    """The records themselves; several stores in one process may share them, also across threads.

    One counter gives every version, so none ever comes back, not even for another key.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.by_key: dict[str, Record] = {}
        self.keys: list[str] = []  # sorted
        self.writes = 0
        self.waiters: dict[str, dict[asyncio.Future[None], asyncio.AbstractEventLoop]] = {}

    def write(self, key: str, value: bytes) -> str:
        """Store ``value`` under a new version and wake who waits. The caller holds the lock."""
        self.writes += 1
        if key not in self.by_key:
            insort(self.keys, key)
        self.by_key[key] = Record(key=key, value=value, version=str(self.writes))
        self._wake(key)
        return str(self.writes)

    def drop(self, key: str) -> None:
        """Forget ``key`` and wake who waits. The caller holds the lock."""
        del self.by_key[key]
        del self.keys[bisect_right(self.keys, key) - 1]
        self._wake(key)

    def _wake(self, key: str) -> None:
        for future, loop in self.waiters.pop(key, {}).items():
            wake(future, loop)


class MemoryMetadata:
    """A metadata store in this process's memory; nothing survives the process.

    Args:
        runtime: clock and tasks, for leases.
        records: share these with other stores; default: records of its own.
        name: shown in the URL.
    Concurrency: a store belongs to one event loop; stores on other loops may share its records.
    """

    def __init__(
        self, runtime: Runtime, records: MemoryRecords | None = None, *, name: str = ""
    ) -> None:
        self._records = records if records is not None else MemoryRecords()
        self._url = f"memory://{name}"
        self._leases = RecordLeases(self, runtime)
        self._waiting: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}
        self._closed = False

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str) -> Record | None:
        self._check(key)
        with self._records.lock:
            return self._records.by_key.get(key)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        self._check(key)
        check_value(key, value)
        with self._records.lock:
            self._expect(key, expect)
            return self._records.write(key, bytes(value))

    async def remove(self, key: str, *, expect: str) -> bool:
        self._check(key)
        with self._records.lock:
            self._expect(key, expect)
            self._records.drop(key)
        return True

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        self._check_open()
        with self._records.lock:
            keys = self._records.keys
            first = bisect_right(keys, start_after)
            if start_after < prefix:
                first = bisect_right(keys, prefix) - (prefix in self._records.by_key)
            found = []
            for key in islice(keys, first, first + max(0, limit)):
                if not key.startswith(prefix):
                    break
                found.append(self._records.by_key[key])
            return found

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        self._check(key)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._records.lock:
            found = self._records.by_key.get(key)
            if (found.version if found else None) != version:
                return
            self._records.waiters.setdefault(key, {})[future] = loop
        self._waiting[future] = loop
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(future, None)
            with self._records.lock:
                self._records.waiters.get(key, {}).pop(future, None)

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        return await self._leases.acquire(key, holder, ttl_ms)

    async def close(self) -> None:
        self._closed = True
        await self._leases.close()
        for future, loop in self._waiting.items():
            wake(future, loop)

    def _expect(self, key: str, expect: str | None) -> None:
        found = self._records.by_key.get(key)
        actual = found.version if found else None
        if actual != expect:
            raise Conflict(
                f"{self._url}: {key} is at version {actual}, not {expect}; read it again",
                actual=actual,
            )

    def _check(self, key: str) -> None:
        self._check_open()
        check_key(key)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"metadata store {self._url} is closed; open a new one")


def wake(future: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """Resolve ``future`` from any thread; a loop that is gone waits for nothing."""
    try:
        loop.call_soon_threadsafe(_resolve, future)
    except RuntimeError:  # the loop is closed
        return


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
