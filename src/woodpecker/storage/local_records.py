"""Compare-and-swap on plain files, also over NFS: a record is a directory of numbered versions.

``<key>.versions/0000000000000042`` holds version 42: the value and a final newline; an empty file
says that the record was deleted. Rules:

- A version is made by an exclusive hard link, so each number is won once. It is never changed.
- The highest number is the record. Readers that lose it to cleaning look again.
- Cleaning removes the lowest first and keeps the last ``KEPT_VERSIONS``. So a number can come free
  again only after the one below it has gone. A writer that slept may re-create such a number; hence
  after its link it looks at the directory again: only if the version it started from is still there,
  the very same file, was its own version the successor. Otherwise later versions exist and it says
  that it does not know.
- An etag is number, inode, time and size; numbers never start again, not even after a deletion.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from woodpecker.errors import AlreadyExists, Conflict, Corrupt, OutcomeUnknown, Unavailable
from woodpecker.storage.base import Buffer
from woodpecker.storage.local_files import (
    TEMP_PREFIX,
    Directories,
    FileFacts,
    TempFile,
    facts_of,
    read_range,
    settle,
    sweep_temps,
    sync_file,
)

RECORD_SUFFIX = ".versions"
KEPT_VERSIONS = 8
TRIES = 20
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a record. ``value`` is None if the record was deleted by it."""

    number: int
    facts: FileFacts
    value: bytes | None

    @property
    def etag(self) -> str:
        return f"{self.number}-{self.facts.etag}"


class Records:
    """The versioned records below one root. All calls block."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories

    def current(self, path: str) -> Version | None:
        """The newest version of the record in directory ``path``; None if there never was one.

        Raises:
            Unavailable: versions vanish faster than they can be read.
            OutcomeUnknown: it cannot be made durable.
        """
        for _ in range(TRIES):
            numbers = _numbers(path)
            if not numbers:
                return None
            version = _read(path, numbers[-1])
            if version is not None:
                return version
        raise Unavailable(f"{path}: the record changes faster than it can be read; try again")

    def create(self, path: str, data: Buffer, token: str, now_ms: int) -> Version:
        """Write the record if there is none. Raises: AlreadyExists, OutcomeUnknown, OSError."""
        for _ in range(TRIES):
            base = self.current(path)
            if base is not None and base.value is not None:
                break
            written = self._commit(path, base, bytes(data) + b"\n", token, now_ms)
            if written is not None:
                return written
        raise AlreadyExists(f"record {path.removesuffix(RECORD_SUFFIX)} is there already")

    def replace(self, path: str, data: Buffer, etag: str, token: str, now_ms: int) -> Version:
        """Write the successor of the version ``etag``. Raises: Conflict, OutcomeUnknown, OSError."""
        base = self.current(path)
        if base is not None and base.value is not None and base.etag == etag:
            written = self._commit(path, base, bytes(data) + b"\n", token, now_ms)
            if written is not None:
                return written
            base = self.current(path)
        actual = None if base is None or base.value is None else base.etag
        raise Conflict(
            f"record {path.removesuffix(RECORD_SUFFIX)} is not at version {etag}", actual=actual
        )

    def delete(self, path: str, token: str, now_ms: int) -> None:
        """Make the record absent. Raises: Unavailable, OutcomeUnknown, OSError."""
        for _ in range(TRIES):
            base = self.current(path)
            if base is None or base.value is None:
                return
            if self._commit(path, base, b"", token, now_ms) is not None:
                return
        raise Unavailable(f"{path}: the record changes faster than it can be deleted; try again")

    def _commit(
        self, path: str, base: Version | None, content: bytes, token: str, now_ms: int
    ) -> Version | None:
        number = 1 if base is None else base.number + 1
        self._directories.ensure(path)
        with TempFile(path, token) as temp:
            temp.write(content)
            sync_file(temp.fd)
            target = _version_path(path, number)
            if not temp.link_to(target):
                return None
            settle(target)
            facts = facts_of(os.fstat(temp.fd))
        self._check_successor(path, base, number)
        self._clean(path, number, now_ms)
        return Version(number=number, facts=facts, value=content[:-1] if content else None)

    def _check_successor(self, path: str, base: Version | None, number: int) -> None:
        try:
            if base is None:
                numbers = _numbers(path)
                first = bool(numbers) and numbers[-1] == number
            else:
                found = _read(path, base.number)
                first = found is not None and found.etag == base.etag
        except OSError as error:
            raise OutcomeUnknown(f"{path}: version {number} was written, {error}") from error
        if not first:
            raise OutcomeUnknown(
                f"{path}: later versions than {number} exist; read the record to see what became of it"
            )

    def _clean(self, path: str, number: int, now_ms: int) -> None:
        with contextlib.suppress(OSError):
            for old in _numbers(path):  # ascending: see the module's rules
                if old <= number - KEPT_VERSIONS:
                    _remove(_version_path(path, old))
        if number % KEPT_VERSIONS == 0:
            sweep_temps(path, now_ms)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _version_path(path: str, number: int) -> str:
    return os.path.join(path, f"{number:0{_DIGITS}}")


def _numbers(path: str) -> list[int]:
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(TEMP_PREFIX)]
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if len(name) == _DIGITS and name.isdigit())


def _read(path: str, number: int) -> Version | None:
    target = _version_path(path, number)
    try:
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        facts = facts_of(os.fstat(fd))
        if not facts.settled:
            settle(target)
        content = read_range(fd, 0, facts.size)
    finally:
        os.close(fd)
    if content and not content.endswith(b"\n"):
        raise Corrupt(f"{target}: the record does not end as it was written", where=target)
    return Version(number=number, facts=facts, value=content[:-1] if content else None)
