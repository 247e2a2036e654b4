"""Counts what an object store is asked: requests by operation and result, bytes, latency."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from woodpecker.errors import WoodpeckerError
from woodpecker.observability.base import Observer
from woodpecker.observability.names import Counter, Histogram
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.base import Buffer, Feature, ObjectInfo, ObjectStore


class InstrumentedStore:
    """Another store, observed. One page of a listing, and one delete of many keys, is one request.

    What an adapter repeats inside, or sends in parts (``write_stream``), counts once.
    """

    def __init__(self, inner: ObjectStore, observer: Observer, runtime: Runtime) -> None:
        self._inner = inner
        self._observer = observer
        self._runtime = runtime

    @property
    def url(self) -> str:
        return self._inner.url

    async def create(self, key: str, data: Buffer) -> str:
        with self._request("create"):
            etag = await self._inner.create(key, data)
        self._observer.count(Counter.STORE_SENT_BYTES, len(data))
        return etag

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        with self._request("replace"):
            etag = await self._inner.replace(key, data, etag=etag)
        self._observer.count(Counter.STORE_SENT_BYTES, len(data))
        return etag

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        with self._request("get"):
            data, info = await self._inner.get(key, start=start, length=length)
        self._observer.count(Counter.STORE_RECEIVED_BYTES, len(data))
        return data, info

    async def head(self, key: str) -> ObjectInfo | None:
        with self._request("head"):
            return await self._inner.head(key)

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        pages = aiter(self._inner.list(prefix, start_after=start_after))
        with self._request("list"):
            page = await anext(pages, None)
        while page is not None:
            yield page
            page = await anext(pages, None)
            if page is not None:
                self._observer.count(Counter.STORE_REQUESTS, op="list", result="ok")

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        with self._request("write_stream"):
            size = await self._inner.write_stream(key, parts)
        self._observer.count(Counter.STORE_SENT_BYTES, size)
        return size

    async def delete(self, keys: Sequence[str]) -> None:
        with self._request("delete"):
            await self._inner.delete(keys)

    async def probe(self, feature: Feature) -> str | None:
        return await self._inner.probe(feature)

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    async def clock_ms(self) -> int | None:
        return await self._inner.clock_ms()

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
            self._observer.count(Counter.STORE_REQUESTS, op=op, result=result)
            took_ms = self._runtime.monotonic_ms() - begin_ms
            self._observer.observe(Histogram.STORE_LATENCY, took_ms, op=op)
