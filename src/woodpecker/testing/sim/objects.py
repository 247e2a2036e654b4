"""Simulated object store: what a bucket does to one process, over objects in memory.

Listings are as strong as the port promises (a page shows what is there when it is made), and come in
small pages, so that much can happen in between.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from woodpecker.errors import Closed, Unavailable
from woodpecker.storage.base import Buffer, Feature, ObjectInfo
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.sim.line import Line, now
from woodpecker.testing.sim.trace import kind_of, name_of
from woodpecker.testing.sim.weather import READ_FAULTS, WRITE_FAULTS, Fault

T = TypeVar("T")
CREATE_FAULTS = (*WRITE_FAULTS, Fault.REPEATED)


class SimObjectStore:
    """An ``ObjectStore`` of one process. The process may die or stop; the bucket stays.

    Args:
        inner: carries requests out; shared by all processes, never closed.
        before_delete: told each key just before it goes.
    """

    def __init__(
        self,
        bucket: MemoryBucket,
        inner: MemoryObjectStore,
        line: Line,
        *,
        page_objects: int = 1000,
        before_delete: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._bucket = bucket
        self._inner = inner
        self._line = line
        self._page_objects = page_objects
        self._before_delete = before_delete
        self._is_closed = False
        self._created: set[str] = set()

    @property
    def url(self) -> str:
        return self._inner.url

    async def create(self, key: str, data: Buffer) -> str:
        kept = bytes(data)
        what = kind_of(key, len(kept))
        if key in self._created:
            self._line.server.seen[f"create {what} again"] += 1
        self._created.add(key)
        return await self._write(
            f"create {what}",
            f"create {what} {name_of(key)} ({len(kept)} B)",
            lambda: now(self._inner.create(key, kept)),
            CREATE_FAULTS,
        )

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        kept = bytes(data)
        return await self._write(
            f"replace {kind_of(key)}",
            f"replace {name_of(key)}",
            lambda: now(self._inner.replace(key, kept, etag=etag)),
            WRITE_FAULTS,
        )

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        return await self._read(
            f"get {kind_of(key)}",
            f"get {name_of(key)}",
            lambda: now(self._inner.get(key, start=start, length=length)),
        )

    async def head(self, key: str) -> ObjectInfo | None:
        return await self._read(
            f"head {kind_of(key)}", f"head {name_of(key)}", lambda: now(self._inner.head(key))
        )

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        while True:
            page = await self._read(
                "list",
                f"list {prefix[:4]}{prefix[32:]}",
                partial(self._page, prefix, start_after),
            )
            if page:
                yield page
                start_after = page[-1].key
            if len(page) < self._page_objects:
                return

    def _page(self, prefix: str, start_after: str) -> Sequence[ObjectInfo]:
        keys = sorted(
            key for key in self._bucket.objects if key.startswith(prefix) and key > start_after
        )
        infos = (now(self._inner.head(key)) for key in keys[: self._page_objects])
        return [info for info in infos if info is not None]

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        collected = bytearray()
        async for part in parts:
            collected += part
        data = bytes(collected)
        what = kind_of(key)
        return await self._write(
            f"write {what}",
            f"write {what} {name_of(key)} ({len(data)} B)",
            lambda: self._put(key, data),
            WRITE_FAULTS,
        )

    def _put(self, key: str, data: bytes) -> int:
        async def whole() -> AsyncIterator[Buffer]:
            yield data

        return now(self._inner.write_stream(key, whole()))

    async def delete(self, keys: Sequence[str]) -> None:
        doomed = tuple(keys)
        weather, rng = self._line.weather, self._line.rng
        half = weather.draw(rng, (Fault.PARTIAL,)) if len(doomed) > 1 else None
        if half is not None:
            self._line.server.injected[half] += 1
        await self._read(
            f"delete {kind_of(doomed[0])}",
            f"delete {len(doomed)}: {name_of(doomed[0])}...",
            lambda: self._delete(doomed, is_half=half is not None),
        )

    def _delete(self, doomed: Sequence[str], *, is_half: bool) -> None:
        for key in doomed[: len(doomed) // 2] if is_half else doomed:
            self._before_delete(key)
            now(self._inner.delete([key]))
        if is_half:
            raise Unavailable("delete: broken off in the middle")

    async def probe(self, feature: Feature) -> str | None:
        self._check_open()
        return None

    def local_path(self, key: str) -> Path | None:
        return None

    async def clock_ms(self) -> int | None:
        return await self._read("clock", "clock", lambda: now(self._inner.clock_ms()))

    async def close(self) -> None:
        self._is_closed = True

    async def _read(self, what: str, text: str, effect: Callable[[], T]) -> T:
        self._check_open()
        return await self._line.ask(what, text, effect, possible=READ_FAULTS, is_write=False)

    async def _write(
        self, what: str, text: str, effect: Callable[[], T], possible: Sequence[Fault]
    ) -> T:
        self._check_open()
        return await self._line.ask(what, text, effect, possible=possible, is_write=True)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(f"{self.url} is closed; open a new store")
