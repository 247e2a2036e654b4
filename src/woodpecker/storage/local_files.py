"""Blocking file work under a directory store: durable creation, listing, temporary files.

Rules:
- Data is on disk before its name is; a name is on disk before its writer returns.
- A new name is made by a hard link of a temporary file (``link`` is exclusive, also on NFS), the
  directory is synced, and only then the temporary name goes. So a file with two names is one whose
  entry may not be durable yet: who meets it syncs the directory before trusting it.
- A directory is used only after the entries leading to it were synced, whoever made it.
- Names of temporary files start with ``TEMP_PREFIX``; no key may contain such a part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from woodpecker.errors import InvalidRequest, OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.storage.base import Buffer

TEMP_PREFIX = ".wp-tmp-"
TEMP_MAX_AGE_MS = 24 * 3600 * 1000
SYNCED_DIRECTORIES_MAX = 10_000

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_BAD_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_REFUSED = (*_DISK_FULL, *_NOT_ALLOWED, *_BAD_NAME, errno.ENOENT)  # by the file system, for certain


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What ``stat`` says of one file. ``etag`` changes with every new file at the name."""

    size: int
    etag: str
    modified_ms: int
    settled: bool  # False: its directory entry may not be durable yet


def facts_of(stat: os.stat_result) -> FileFacts:
    return FileFacts(
        size=stat.st_size,
        etag=f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}",
        modified_ms=stat.st_mtime_ns // 1_000_000,
        settled=stat.st_nlink == 1,
    )


def translate(error: OSError, what: str) -> WoodpeckerError:
    """The error to raise for ``error``; only for work that certainly changed nothing."""
    reason = f"{what}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _DISK_FULL:
        return Unavailable(f"{reason}; nothing was written: free space and try again")
    if error.errno in _NOT_ALLOWED:
        return InvalidRequest(
            f"{reason}; see to owner and mode, or open with read_only=True to read"
        )
    if error.errno in _BAD_NAME:
        return InvalidRequest(f"{reason}; choose another name")
    return Unavailable(f"{reason}; check the disk or mount")


def sync_file(fd: int) -> None:
    """Put a file's data and size on disk."""
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full is not None:
        fcntl.fcntl(fd, full)
    else:
        os.fdatasync(fd)


def sync_directory(path: str) -> None:
    """Put a directory's entries on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: Buffer) -> None:
    """Write all of ``data``; one call may write less than it was given."""
    rest = memoryview(data).cast("B")
    while len(rest) > 0:
        rest = rest[os.write(fd, rest) :]


def read_range(fd: int, first: int, end: int) -> bytes:
    """Bytes [first, end); less if the file is shorter."""
    data = os.pread(fd, end - first, first)
    if len(data) == end - first or not data:
        return data
    pieces = [data]  # one call reads at most 2 GiB, and signals may cut it short
    position = first + len(data)
    while position < end and (piece := os.pread(fd, end - position, position)):
        pieces.append(piece)
        position += len(piece)
    return b"".join(pieces)


class Directories:
    """Makes directories and remembers which have durable entries. Safe from several threads."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._synced: dict[str, None] = {}

    def ensure(self, path: str) -> None:
        """Make ``path`` and everything above it, down from the root, exist durably.

        Raises:
            OSError: it cannot be made or synced.
        """
        if path in self._synced:
            return
        if path == self._root:
            self._ensure_root()
        else:
            parent = os.path.dirname(path)
            self.ensure(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            sync_directory(parent)  # also when it was there: its maker may not have got so far
        with self._lock:
            while len(self._synced) >= SYNCED_DIRECTORIES_MAX:
                del self._synced[next(iter(self._synced))]
            self._synced[path] = None

    def forget(self) -> None:
        """A directory turned out to be missing: trust nothing remembered."""
        with self._lock:
            self._synced.clear()

    def _ensure_root(self) -> None:
        missing = []
        path = self._root
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for new in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(new)
            sync_directory(os.path.dirname(new))
        if not missing:
            with contextlib.suppress(PermissionError):  # an old root below a closed directory
                sync_directory(os.path.dirname(self._root))


class TempFile:
    """A temporary file beside its target, gone at the end of the ``with`` block.

    Concurrency: ``write`` and ``close`` may meet in two threads (a cancelled stream).
    """

    def __init__(self, directory: str, token: str) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self.path = os.path.join(directory, TEMP_PREFIX + token)
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close and remove it; a name that stays behind is swept later. Again: no effect."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self.fd)
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def write(self, data: Buffer) -> None:
        """Append all of ``data``. Raises: OSError, also after ``close``."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the temporary file is closed")
            write_all(self.fd, data)

    def link_to(self, target: str) -> bool:
        """Give the file its name; False if another file has it.

        Raises:
            OutcomeUnknown: no telling whether it got the name.
            OSError: it certainly did not.
        """
        try:
            os.link(self.path, target)
        except OSError as error:
            if self._is_at(target, error):  # NFS: the request was repeated and met itself
                return True
            if isinstance(error, FileExistsError):
                return False
            if error.errno in _NO_LINKS:
                raise InvalidRequest(
                    f"{target}: {os.strerror(error.errno or 0)}; this file system has no hard "
                    f"links, which directory stores need: choose another directory"
                ) from error
            if error.errno in _REFUSED:
                raise
            raise _unclear(target, error) from error
        return True

    def rename_to(self, target: str, token: str) -> None:
        """Replace whatever is at ``target``, keeping a second name until the directory is synced.

        Raises:
            OutcomeUnknown: it may be at the target, durable or not.
            OSError: it certainly is not.
        """
        mover = os.path.join(os.path.dirname(target), TEMP_PREFIX + token)
        os.link(self.path, mover)
        try:
            os.rename(mover, target)
        except OSError as error:
            if not self._is_at(target, error):
                with contextlib.suppress(OSError):
                    os.unlink(mover)
                if error.errno in _REFUSED:
                    raise
                raise _unclear(target, error) from error
        settle(target)

    def _is_at(self, target: str, error: OSError) -> bool:
        try:
            found = os.stat(target)
        except FileNotFoundError:
            return False
        except OSError as second:
            raise _unclear(target, error) from second
        mine = os.fstat(self.fd)
        return (found.st_ino, found.st_dev) == (mine.st_ino, mine.st_dev)


def _unclear(target: str, error: OSError) -> OutcomeUnknown:
    reason = os.strerror(error.errno or 0)
    return OutcomeUnknown(f"{target}: {reason}; it may or may not be written, even later")


def settle(path: str) -> None:
    """Make the entry of ``path`` durable. Raises: OutcomeUnknown, the entry being visible already."""
    try:
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise OutcomeUnknown(
            f"{path}: syncing its directory failed ({os.strerror(error.errno or 0)}); "
            f"the file is visible but may be lost in a crash"
        ) from error


def walk(root: str, prefix: str, start_after: str, record_suffix: str) -> Iterator[tuple[str, str]]:
    """(key, path) of files under ``prefix`` with keys after ``start_after``, sorted by key.

    A directory with ``record_suffix`` is a record: one key, the directory as its path.
    """
    head = prefix.rpartition("/")[0]
    yield from _walk_directory(
        os.path.join(root, head) if head else root, head + "/" if head else "", prefix,
        start_after, record_suffix,
    )  # fmt: skip


def _walk_directory(
    path: str, base: str, prefix: str, start_after: str, record_suffix: str
) -> Iterator[tuple[str, str]]:
    for key, child, is_directory in _sorted_children(path, base, record_suffix):
        if is_directory:
            inside = key.startswith(prefix) or prefix.startswith(key)
            if inside and (key > start_after or start_after.startswith(key)):
                yield from _walk_directory(child, key, prefix, start_after, record_suffix)
        elif key.startswith(prefix) and key > start_after:
            yield key, child


def _sorted_children(path: str, base: str, record_suffix: str) -> list[tuple[str, str, bool]]:
    """(key, path, is a directory of keys) of each child; a directory's key ends with ``/``."""
    children = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(TEMP_PREFIX):
                    continue
                if not entry.is_dir():
                    children.append((base + entry.name, entry.path, False))
                elif entry.name.endswith(record_suffix):
                    name = entry.name.removesuffix(record_suffix)
                    children.append((base + name, entry.path, False))
                else:
                    children.append((f"{base}{entry.name}/", entry.path, True))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(children)  # with the slash in place this is the order of the keys


def sweep_temps(directory: str, now_ms: int) -> None:
    """Remove temporary files nobody has written to for a day; failures do not matter."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(TEMP_PREFIX):
                modified_ms = entry.stat().st_mtime_ns // 1_000_000
                if modified_ms < now_ms - TEMP_MAX_AGE_MS:
                    os.unlink(entry.path)
