"""The buffer directory of kind ``file``: who it is, what its files are called, syncing directories.

    <directory>/buffer-id                          random, made once
    <directory>/host-id                            only where the machine has no id of its own
    <directory>/<log id>/<segment>-<token>.seg     blocks, each on its own 4 KiB unit
    <directory>/<log id>/<segment>-<token>.side    the side file

The token (of the writer that opened the segment) is part of the name because two openers may prepare
the same segment number: the slower one must never meet, let alone replace, the file of the other.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from woodpecker.core.manifest import FilePlace, Segment
from woodpecker.errors import InvalidRequest, NotFound
from woodpecker.filesystems import LOCAL_FILE_SYSTEMS, file_system_of
from woodpecker.runtime.runtime import Runtime

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Identity of this start of the machine, 32 hex digits."""
    return _BOOT_ID.read_text().strip().replace("-", "")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, durably. Raises: OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


class BufferDirectory:
    """One buffer directory. Everything here blocks: call it from a thread."""

    def __init__(self, path: Path, runtime: Runtime, *, read_only: bool) -> None:
        self.path = path
        self._runtime = runtime
        self._read_only = read_only
        self._place: FilePlace | None = None

    def place(self) -> FilePlace:
        """Identity of host, boot and directory, made at first use.

        Raises: OSError; InvalidRequest: not on a local file system; NotFound: read-only, not there.
        """
        if self._place is None:
            if self._read_only:
                if not self.path.is_dir():
                    raise NotFound(f"buffer directory {self.path} is not there")
            else:
                self._check_file_system()
                make_directory(self.path)
            self._place = FilePlace(
                host=self._host_id(), boot=boot_id(), buffer=self._stored_id("buffer-id")
            )
        return self._place

    def data_path(self, log_id: str, segment: Segment) -> Path:
        return self.path / log_id / f"{segment.id:012d}-{segment.token}.seg"

    def side_path(self, log_id: str, segment: Segment) -> Path:
        return self.path / log_id / f"{segment.id:012d}-{segment.token}.side"

    def _check_file_system(self) -> None:
        kind = file_system_of(self.path)
        if kind not in LOCAL_FILE_SYSTEMS:
            raise InvalidRequest(
                f"{self.path} is on a file system of type {kind}: logs of mode 'file' need a local one "
                f"({', '.join(sorted(LOCAL_FILE_SYSTEMS))}); use mode='object' there"
            )

    def _host_id(self) -> str:
        try:
            machine = _MACHINE_ID.read_text().strip()
        except OSError:
            machine = ""
        if not machine:
            return self._stored_id("host-id")
        # the machine id itself is meant to stay on the machine (machine-id(5))
        return hashlib.sha256(b"woodpecker host " + machine.encode()).hexdigest()[:32]

    def _stored_id(self, name: str) -> str:
        """An id kept in the directory: whoever links it first has made it."""
        path = self.path / name
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            if self._read_only:
                raise NotFound(f"{self.path} is no buffer directory: {name} is missing") from None
        fresh = self.path / f"{name}.{self._runtime.token()}"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, self._runtime.token().encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass  # another process was faster: its id counts
        finally:
            fresh.unlink()
        sync_directory(self.path)
        return path.read_text().strip()
