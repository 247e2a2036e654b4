"""Counts what a metadata store is asked: requests by operation and result, latency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from woodpecker.errors import WoodpeckerError
from woodpecker.metadata.base import Lease, MetadataStore, Record
from woodpecker.observability.base import Observer
from woodpecker.observability.names import Counter, Histogram
from woodpecker.runtime.runtime import Runtime


class InstrumentedMetadata:
    """Another store, observed. Waiting for changes and renewing leases is not counted."""

    def __init__(self, inner: MetadataStore, observer: Observer, runtime: Runtime) -> None:
        self._inner = inner
        self._observer = observer
        self._runtime = runtime

    @property
    def url(self) -> str:
        return self._inner.url

    async def get(self, key: str) -> Record | None:
        with self._request("get"):
            return await self._inner.get(key)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        with self._request("put"):
            return await self._inner.put(key, value, expect=expect)

    async def remove(self, key: str, *, expect: str) -> bool:
        with self._request("remove"):
            return await self._inner.remove(key, expect=expect)

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        with self._request("list"):
            return await self._inner.list(prefix, start_after=start_after, limit=limit)

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        await self._inner.wait_change(key, version, timeout_ms)

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        with self._request("acquire_lease"):
            return await self._inner.acquire_lease(key, holder, ttl_ms)

    async def close(self) -> None:
        await self._inner.close()

    @contextmanager
    def _request(self, op: str) -> Iterator[None]:
        begin_ms, result = self._runtime.monotonic_ms(), "failed"
        try:
            yield
            result = "ok"
        except WoodpeckerError as error:
            result = error.code
            raise
        finally:
            self._observer.count(Counter.METADATA_REQUESTS, op=op, result=result)
            took_ms = self._runtime.monotonic_ms() - begin_ms
            self._observer.observe(Histogram.METADATA_LATENCY, took_ms, op=op)
