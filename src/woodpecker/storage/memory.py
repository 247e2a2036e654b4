"""Objects in memory: the reference for every other store, for tests and ``memory://``."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from woodpecker.errors import AlreadyExists, Closed, Conflict, NotFound
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.base import Buffer, Feature, ObjectInfo
from woodpecker.storage.names import byte_range, check_key

PAGE_OBJECTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    data: bytes
    etag: str
    modified_ms: int


class MemoryBucket:
    """The objects themselves; several stores in one process may share one bucket."""

    def __init__(self) -> None:
        self.objects: dict[str, _Stored] = {}
        self.writes = 0

    def put(self, key: str, data: bytes, modified_ms: int) -> str:
        """Store ``data`` under a new etag; etags never repeat."""
        self.writes += 1
        stored = _Stored(data=data, etag=str(self.writes), modified_ms=modified_ms)
        self.objects[key] = stored
        return stored.etag


class MemoryObjectStore:
    """An object store in this process's memory; nothing survives the process.

    Args:
        bucket: share these objects with other stores; default: a bucket of its own.
        runtime: its clock stamps the objects; without it times are unknown.
        name: shown in the URL.
    Concurrency: one event loop.
    """

    def __init__(
        self,
        bucket: MemoryBucket | None = None,
        runtime: Runtime | None = None,
        *,
        name: str = "",
    ) -> None:
        self._bucket = bucket if bucket is not None else MemoryBucket()
        self._runtime = runtime
        self._url = f"memory://{name}"
        self._closed = False

    @property
    def url(self) -> str:
        return self._url

    async def create(self, key: str, data: Buffer) -> str:
        self._check(key)
        if key in self._bucket.objects:
            raise AlreadyExists(f"{self._url}: object {key} is there already")
        return self._put(key, bytes(data))

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        self._check(key)
        found = self._bucket.objects.get(key)
        if found is None or found.etag != etag:
            actual = found.etag if found else None
            raise Conflict(f"{self._url}: object {key} is not at version {etag}", actual=actual)
        return self._put(key, bytes(data))

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        self._check(key)
        found = self._bucket.objects.get(key)
        if found is None:
            raise NotFound(f"{self._url}: no object {key}")
        first, end = byte_range(len(found.data), start, length)
        return memoryview(found.data)[first:end], _info(key, found)

    async def head(self, key: str) -> ObjectInfo | None:
        self._check(key)
        found = self._bucket.objects.get(key)
        return None if found is None else _info(key, found)

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        self._check_open()
        keys = sorted(
            key for key in self._bucket.objects if key.startswith(prefix) and key > start_after
        )
        for first in range(0, len(keys), PAGE_OBJECTS):
            page = keys[first : first + PAGE_OBJECTS]
            objects = self._bucket.objects  # read anew: a page shows what is there when it is made
            yield [_info(key, objects[key]) for key in page if key in objects]

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        self._check(key)
        collected = bytearray()
        async for part in parts:
            collected += part
        self._check_open()
        self._put(key, bytes(collected))
        return len(collected)

    async def delete(self, keys: Sequence[str]) -> None:
        self._check_open()
        for key in keys:
            self._bucket.objects.pop(check_key(key), None)

    async def probe(self, feature: Feature) -> str | None:
        self._check_open()
        return None

    def local_path(self, key: str) -> Path | None:
        return None

    async def clock_ms(self) -> int | None:
        self._check_open()
        return None if self._runtime is None else self._runtime.now_us() // 1000

    async def close(self) -> None:
        self._closed = True

    def _put(self, key: str, data: bytes) -> str:
        now_ms = 0 if self._runtime is None else self._runtime.now_us() // 1000
        return self._bucket.put(key, data, now_ms)

    def _check(self, key: str) -> None:
        self._check_open()
        check_key(key)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self._url} is closed; open a new store")


def _info(key: str, stored: _Stored) -> ObjectInfo:
    return ObjectInfo(
        key=key, size=len(stored.data), etag=stored.etag, modified_ms=stored.modified_ms
    )
