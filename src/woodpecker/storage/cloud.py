"""S3 and compatible stores, Google Cloud Storage and Azure Blob Storage, through obstore.

Rules, each against a measured behaviour of the SDK or of a service:
- Conditional writes are sent once (no retries inside, no multipart); the caller reads back.
- A buffer the SDK gets must never change: it is sent without a copy, perhaps after a cancellation.
- Only the three services themselves are trusted to sort listings by bytes. Compatible ones may put
  directories first, and then skip keys behind a start key; those are listed whole and sorted here.
- The process must live a moment after the last request, or the interpreter may crash at exit.
"""

from __future__ import annotations

import asyncio
import atexit
import builtins
import os
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore

from woodpecker.errors import Closed, InvalidRequest, NotFound, Unavailable
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage import cloud_config, cloud_errors
from woodpecker.storage.base import Buffer, Feature, ObjectInfo
from woodpecker.storage.cloud_stream import Upload
from woodpecker.storage.names import check_key
from woodpecker.storage.probing import probe_feature
from woodpecker.storage.retrying import retry
from woodpecker.storage.url import StoreSettings

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode

PAGE_OBJECTS = 1000
DELETES_AT_ONCE = 16
DRAIN_MS = 20.0
EXIT_PAUSE_S = 0.02

T = TypeVar("T")


class CloudObjectStore:
    """A bucket or container, under one root prefix.

    Args:
        settings: from ``parse_store_url``.
        runtime: time and chance for retries.
        env: where credentials and endpoints not in ``settings`` come from.
    Raises:
        InvalidRequest: settings that cannot work; nothing is sent before the first call.
    Concurrency: many tasks of one event loop. Not usable in a forked child.
    """

    def __init__(
        self, settings: StoreSettings, runtime: Runtime, env: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._proven: set[Feature] = set()
        self._runtime = runtime
        self._env = os.environ if env is None else env
        self._store = cloud_config.open_store(settings, self._env, retries=0)
        self._stream_store: cloud_config.SdkStore | None = None
        self._root = f"{settings.path}/" if settings.path else ""
        self._sorted = cloud_config.sorts_listings(settings, self._env)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        _pause_at_exit()

    @property
    def url(self) -> str:
        return self._settings.url

    async def create(self, key: str, data: Buffer) -> str:
        return await self._put(key, data, "create")

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        return await self._put(key, data, await self._update_mode(key, etag), etag=etag)

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        check_key(key)
        if length is not None and length < 0:
            raise InvalidRequest(f"length must not be negative, got {length}")
        if start < 0 and self._settings.scheme == "az":  # Azure has no suffix ranges
            info = await self._must_head(key)
            start = max(0, info.size + start)
        if length == 0:
            return b"", await self._must_head(key)
        found = await self._retried(key, lambda: self._get_range(key, start, length))
        if found is None:  # the range begins beyond the end
            return b"", await self._must_head(key)
        data, info = found
        return (data[:length] if start < 0 and length is not None else data), info

    async def head(self, key: str) -> ObjectInfo | None:
        check_key(key)
        try:
            meta = await self._retried(
                key, lambda: obstore.head_async(self._store, self._path(key))
            )
        except cloud_errors.BucketNotFound:
            raise
        except NotFound:
            return None
        return self._info(meta)

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        if self._sorted:
            last = start_after
            async for page in self._pages(prefix, start_after):
                wanted = _matching(page, prefix, start_after)
                if wanted and not _ascending(last, wanted):
                    raise InvalidRequest(
                        f"{self.url}: the listing of {prefix} is not sorted after {last}; "
                        f"leave out sorted_listing, or set express=true for a directory bucket"
                    )
                if wanted:
                    last = wanted[-1].key
                    yield wanted
            return
        found: dict[str, ObjectInfo] = {}
        async for page in self._pages(prefix, ""):
            found.update((info.key, info) for info in _matching(page, prefix, start_after))
        keys = sorted(found)
        for first in range(0, len(keys), PAGE_OBJECTS):
            yield [found[key] for key in keys[first : first + PAGE_OBJECTS]]

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        check_key(key)
        if self._stream_store is None:  # parts of a multipart upload may be sent again
            self._stream_store = cloud_config.open_store(
                self._settings, self._env, retries=cloud_config.STREAM_RETRIES
            )
        storage_class = self._settings.storage_class
        upload = Upload(
            self._runtime,
            self._stream_store,
            self._path(key),
            {"Storage-Class": storage_class} if storage_class else None,
            lambda error: cloud_errors.map_write(error, key, self._settings),
        )
        async with self._tracked():
            return await upload.run(parts)

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(check_key(key)) for key in keys]
        if not paths:
            self._check_open()
            return
        try:
            await self._retried(keys[0], lambda: obstore.delete_async(self._store, paths))
        except cloud_errors.BucketNotFound:
            raise
        except NotFound:
            await self._delete_each(paths)  # GCS and Azure stop at the first one that is absent

    async def probe(self, feature: Feature) -> str | None:
        """See the port; what has been proven once is not asked again by this object."""
        if feature in self._proven:
            return None
        fault = await probe_feature(self, feature, self._runtime.token())
        if fault is None:
            self._proven.add(feature)
        return fault

    def local_path(self, key: str) -> Path | None:
        return None

    async def clock_ms(self) -> int | None:
        key = f"probe/clock-{self._runtime.token()}"
        try:
            await self.create(key, b"")
            info = await self.head(key)
            await self.delete([key])
        except InvalidRequest:  # no right to write: no way to ask
            return None
        return info.modified_ms if info else None

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        await self._runtime.sleep_ms(DRAIN_MS)

    # --------------------------------------------------------------------------------- one request

    async def _put(self, key: str, data: Buffer, mode: PutMode, *, etag: str = "") -> str:
        path = self._path(check_key(key))
        async with self._tracked():
            try:
                result = await obstore.put_async(
                    self._store, path, frozen(data), mode=mode, use_multipart=False
                )
            except cloud_errors.SDK_ERRORS as error:
                raise cloud_errors.map_write(error, key, self._settings, etag=etag) from error
        return self._etag(result["e_tag"], result["version"])

    async def _update_mode(self, key: str, etag: str) -> PutMode:
        if self._settings.scheme != "gs":
            return {"e_tag": f'"{etag}"' if self._settings.quoted_etags else etag}
        if etag.startswith("generation:"):
            return {"version": etag.removeprefix("generation:")}
        # GCS lists etags but compares generations: find the generation that has this etag
        path = self._path(check_key(key))
        meta = await self._retried(key, lambda: obstore.head_async(self._store, path))
        matches = (meta["e_tag"] or "").strip('"') == etag
        return {"version": str(meta["version"]) if matches else "1"}

    async def _get_range(
        self, key: str, start: int, length: int | None
    ) -> tuple[Buffer, ObjectInfo] | None:
        options: GetOptions = {}
        if start < 0:
            options["range"] = {"suffix": -start}
        elif length is not None:
            options["range"] = (start, start + length)
        elif start > 0:
            options["range"] = {"offset": start}
        try:
            result = await obstore.get_async(self._store, self._path(key), options=options)
            return memoryview(await result.bytes_async()), self._info(result.meta)
        except cloud_errors.SDK_ERRORS as error:
            if cloud_errors.begins_beyond_end(error):
                return None
            raise

    async def _must_head(self, key: str) -> ObjectInfo:
        info = await self.head(key)
        if info is None:
            raise NotFound(f"{self.url}: no object {key}")
        return info

    async def _pages(self, prefix: str, offset: str) -> AsyncIterator[builtins.list[ObjectInfo]]:
        """Pages as the service sends them; a listing that breaks goes on or, unsorted, starts again."""
        folder = (self._root + prefix).rpartition("/")[0]  # the SDK takes whole path parts
        stream = self._list_stream(folder, offset)

        async def next_page() -> Sequence[ObjectMeta] | None:
            nonlocal stream
            try:
                return await anext(stream, None)
            except BaseException:
                stream = self._list_stream(folder, offset)  # a broken stream does not go on
                raise

        while (metas := await self._retried(f"listing of {folder}/", next_page)) is not None:
            page = [self._info(meta) for meta in metas]
            if page:
                offset = page[-1].key if self._sorted else ""
                yield page

    def _list_stream(self, folder: str, offset: str) -> AsyncIterator[Sequence[ObjectMeta]]:
        start = self._root + offset if offset else None
        stream = obstore.list(self._store, folder or None, offset=start, chunk_size=PAGE_OBJECTS)
        return aiter(stream)

    async def _delete_each(self, paths: Sequence[str]) -> None:
        async def delete_one(path: str) -> None:
            try:
                await self._retried(path, lambda: obstore.delete_async(self._store, path))
            except cloud_errors.BucketNotFound:
                raise
            except NotFound:
                return

        for first in range(0, len(paths), DELETES_AT_ONCE):
            batch = paths[first : first + DELETES_AT_ONCE]
            await asyncio.gather(*(delete_one(path) for path in batch))

    # ------------------------------------------------------------------------------------ plumbing

    async def _retried(self, what: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def attempt() -> T:
            try:
                return await work()
            except cloud_errors.SDK_ERRORS as error:
                raise cloud_errors.map_read(error, what, self._settings) from error

        async with self._tracked():
            return await retry(self._runtime, attempt)

    @asynccontextmanager
    async def _tracked(self) -> AsyncIterator[None]:
        self._check_open()
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._idle.set()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self.url} is closed; open a new store")

    def _path(self, key: str) -> str:
        return self._root + key

    def _info(self, meta: ObjectMeta) -> ObjectInfo:
        return ObjectInfo(
            key=meta["path"].removeprefix(self._root),
            size=meta["size"],
            etag=self._etag(meta["e_tag"], meta["version"]),
            modified_ms=int(meta["last_modified"].timestamp() * 1000),
        )

    def _etag(self, e_tag: str | None, version: str | None) -> str:
        if self._settings.scheme == "gs" and version:
            return f"generation:{version}"
        if not e_tag:
            raise Unavailable(f"{self.url}: the store sent no ETag; conditional writes need one")
        return e_tag.strip('"')  # listings of some services leave the quotes out


def _matching(
    page: Sequence[ObjectInfo], prefix: str, start_after: str
) -> builtins.list[ObjectInfo]:
    return [info for info in page if info.key.startswith(prefix) and info.key > start_after]


def _ascending(last: str, page: Sequence[ObjectInfo]) -> bool:
    keys = [last, *(info.key for info in page)]
    return all(one < two for one, two in pairwise(keys))


def frozen(data: Buffer) -> bytes | memoryview:
    """``data`` itself if it does not change any more, which a read-only view promises; else a copy."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, memoryview) and data.readonly:
        return data.cast("B")
    return bytes(data)


_exit_guard = threading.Lock()
_exit_pauses: list[Callable[[], object]] = []


def _pause_at_exit() -> None:
    # the SDK's threads call into the interpreter once more after a request has ended; without the
    # pause an exit right behind one ends in SIGABRT (PyO3/pyo3-async-runtimes#40)
    with _exit_guard:
        if not _exit_pauses:
            _exit_pauses.append(atexit.register(lambda: threading.Event().wait(EXIT_PAUSE_S)))
