"""A directory as object store, on a local or a network file system.

Layout below the root: an object is the plain file at its key; a record (key under ``meta/``) is a
directory of numbered versions (``local_records.py``). Only records can be replaced.

Durability: what a call returned is on disk, data and directory entry; what a read shows is, too.
Directories are made as needed and never removed: a name made inside one must not vanish with it.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from woodpecker.errors import (
    AlreadyExists,
    Closed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage import local_files as files
from woodpecker.storage.base import Buffer, Feature, ObjectInfo
from woodpecker.storage.local_pool import ThreadPool
from woodpecker.storage.local_records import RECORD_SUFFIX, Records, Version
from woodpecker.storage.names import byte_range, check_key, is_record

PAGE_OBJECTS = 1000
THREADS_MAX = 8

T = TypeVar("T")


class LocalObjectStore:
    """Objects as files under one directory.

    Args:
        root: the directory; made, durably, by the first write.
        runtime: names temporary files and tells the time for sweeping them.
        read_only: every write is InvalidRequest; nothing on disk is touched.
    Concurrency: many tasks of one event loop; any number of processes and machines on one directory.
    """

    def __init__(
        self, root: str | os.PathLike[str], runtime: Runtime, *, read_only: bool = False
    ) -> None:
        self._root = os.path.abspath(os.fspath(root))
        self._runtime = runtime
        self._read_only = read_only
        self._directories = files.Directories(self._root)
        self._records = Records(self._directories)
        self._pool = ThreadPool(self.url, THREADS_MAX)

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    async def create(self, key: str, data: Buffer) -> str:
        path = self._path(key)
        token, now_ms = self._stamp()
        if is_record(key):
            version = await self._write(
                key, lambda: self._records.create(path, data, token, now_ms)
            )
            return version.etag
        return await self._write(key, lambda: self._create(path, data, token))

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        path = self._path(key)
        if not is_record(key):
            raise InvalidRequest(f"{self.url}: only keys under meta/ can be replaced, not {key}")
        token, now_ms = self._stamp()
        version = await self._write(
            key, lambda: self._records.replace(path, data, etag, token, now_ms)
        )
        return version.etag

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        path = self._path(key)
        if not is_record(key):
            return await self._read(key, lambda: self._get(key, path, start, length))
        version = await self._read(key, lambda: self._records.current(path))
        if version is None or version.value is None:
            raise NotFound(f"{self.url}: no object {key}")
        first, end = byte_range(len(version.value), start, length)
        return version.value[first:end], _record_info(key, version)

    async def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        return await self._read(key, lambda: self._info(key, path))

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        pages = self._pages(prefix, start_after)
        while page := await self._read(prefix, lambda: next(pages, None)):
            yield page
        if not self._read_only:
            _, now_ms = self._stamp()
            start = os.path.join(self._root, prefix.rpartition("/")[0])
            await self._read(prefix, partial(files.sweep_temps, start, now_ms))

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        path = self._path(key)
        if is_record(key):
            raise InvalidRequest(f"{self.url}: {key} is a record; write it with create or replace")
        token, _ = self._stamp()
        size = 0
        temp = await self._write(key, lambda: self._temp_file(path, token))
        try:
            async for part in parts:
                size += memoryview(part).nbytes
                await self._write(key, partial(temp.write, part))
            await self._write(key, lambda: _finish_stream(temp, path, token))
        finally:
            try:
                await self._pool.run(temp.close)
            except Closed:
                temp.close()
        return size

    async def delete(self, keys: Sequence[str]) -> None:
        self._pool.check_open()
        paths = {key: self._path(key) for key in keys}
        plain = [path for key, path in paths.items() if not is_record(key)]
        if plain:
            await self._write(plain[0], lambda: _delete_plain(self._root, plain))
        for key, path in paths.items():
            if is_record(key):
                token, now_ms = self._stamp()
                await self._write(key, partial(self._records.delete, path, token, now_ms))

    async def probe(self, feature: Feature) -> str | None:
        # both features rest on exclusive hard links, which some file systems lack or fake
        if self._read_only:
            return f"{self.url} is opened read-only"
        first, second = self._runtime.token(), self._runtime.token()
        return await self._write("probe", lambda: self._probe_links(first, second))

    def local_path(self, key: str) -> Path | None:
        path = Path(self._path(key))
        return None if is_record(key) else path

    async def clock_ms(self) -> int | None:
        if self._read_only:
            return None
        token, _ = self._stamp()  # a network file system's server stamps its files by its own clock
        return await self._write("clock", lambda: self._file_time_ms(token))

    async def close(self) -> None:
        await self._pool.close()

    # ------------------------------------------------------------------------ work in the threads

    def _create(self, path: str, data: Buffer, token: str) -> str:
        with self._temp_file(path, token) as temp:
            temp.write(data)
            files.sync_file(temp.fd)
            if not temp.link_to(path):
                raise AlreadyExists(f"{self.url}: object {path} is there already")
            files.settle(path)
            return files.facts_of(os.fstat(temp.fd)).etag

    def _temp_file(self, path: str, token: str) -> files.TempFile:
        directory = os.path.dirname(path)
        self._directories.ensure(directory)
        try:
            return files.TempFile(directory, token)
        except FileNotFoundError:  # somebody removed the directory
            self._directories.forget()
            self._directories.ensure(directory)
            return files.TempFile(directory, token)

    def _get(self, key: str, path: str, start: int, length: int | None) -> tuple[bytes, ObjectInfo]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{self.url}: no object {key}") from None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise NotFound(f"{self.url}: {key} is a directory, not an object")
            facts = files.facts_of(status)
            if not facts.settled:
                files.settle(path)
            first, end = byte_range(facts.size, start, length)
            return files.read_range(fd, first, end), _info(key, facts)
        finally:
            os.close(fd)

    def _info(self, key: str, path: str) -> ObjectInfo | None:
        if is_record(key):
            version = self._records.current(path)
            deleted = version is None or version.value is None
            return None if version is None or deleted else _record_info(key, version)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        facts = files.facts_of(status)
        if not facts.settled:
            files.settle(path)
        return _info(key, facts)

    def _pages(self, prefix: str, start_after: str) -> Iterator[Sequence[ObjectInfo]]:
        page: builtins.list[ObjectInfo] = []
        for key, path in files.walk(self._root, prefix, start_after, RECORD_SUFFIX):
            info = self._info(key, path)
            if info is not None:
                page.append(info)
            if len(page) == PAGE_OBJECTS:
                yield page
                page = []
        if page:
            yield page

    def _probe_links(self, first: str, second: str) -> str | None:
        path = os.path.join(self._root, "probe")
        target = os.path.join(self._root, files.TEMP_PREFIX + "link-" + first)
        with self._temp_file(path, first) as one, self._temp_file(path, second) as two:
            try:
                made = one.link_to(target)
                refused = not two.link_to(target)
            finally:
                if os.path.exists(target):
                    os.unlink(target)
        return None if made and refused else f"{self.url}: hard links are not exclusive here"

    def _file_time_ms(self, token: str) -> int:
        with self._temp_file(os.path.join(self._root, "clock"), token) as temp:
            return os.fstat(temp.fd).st_mtime_ns // 1_000_000

    # ---------------------------------------------------------------------------------- plumbing

    async def _read(self, what: str, work: Callable[[], T]) -> T:
        try:
            return await self._pool.run(work)
        except OutcomeUnknown as error:  # it came from settling what was read
            raise Unavailable(str(error)) from error
        except OSError as error:
            raise files.translate(error, f"{self.url}: {what}") from error

    async def _write(self, key: str, work: Callable[[], T]) -> T:
        if self._read_only:
            raise InvalidRequest(f"{self.url} is opened read-only; {key} was not written")
        try:
            return await self._pool.run(work)
        except OSError as error:
            raise files.translate(error, f"{self.url}: {key}") from error

    def _path(self, key: str) -> str:
        check_key(key)
        for part in key.split("/"):
            if part.startswith(files.TEMP_PREFIX) or part.endswith(RECORD_SUFFIX):
                raise InvalidRequest(
                    f"{self.url}: {key}: a part must not start with {files.TEMP_PREFIX} "
                    f"or end with {RECORD_SUFFIX}"
                )
        path = os.path.join(self._root, key)
        return path + RECORD_SUFFIX if is_record(key) else path

    def _stamp(self) -> tuple[str, int]:
        return self._runtime.token(), self._runtime.now_us() // 1000


def _finish_stream(temp: files.TempFile, path: str, token: str) -> None:
    files.sync_file(temp.fd)
    temp.rename_to(path, token + "-2")


def _delete_plain(root: str, paths: Sequence[str]) -> None:
    directories: dict[str, None] = {}
    for path in paths:
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        directories[os.path.dirname(path)] = None
    for directory in directories:
        files.sync_directory(directory)
    _prune(root, directories)


def _prune(root: str, directories: Iterable[str]) -> None:
    """Remove what holds no file any more: all below the first part of a key, as a deleted log leaves it."""
    parts = (os.path.relpath(directory, root).split(os.sep) for directory in directories)
    for top in {os.path.join(root, part[0]): None for part in parts if len(part) > 1}:
        if any(names for _, _, names in os.walk(top)):
            continue
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):  # somebody has begun to write there
                os.rmdir(directory)


def _info(key: str, facts: files.FileFacts) -> ObjectInfo:
    return ObjectInfo(key=key, size=facts.size, etag=facts.etag, modified_ms=facts.modified_ms)


def _record_info(key: str, version: Version) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=len(version.value or b""),
        etag=version.etag,
        modified_ms=version.facts.modified_ms,
    )
