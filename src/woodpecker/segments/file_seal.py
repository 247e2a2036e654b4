"""Sealing in place: the file of a CLOSED segment becomes the sealed object, by a second name.

Only with the lock (a stopped writer of the segment would hold it), and only as long as the file has
one name: what has been linked once is a sealed object, and nobody writes to it any more.
"""

from __future__ import annotations

import os
from pathlib import Path

from woodpecker.direct_file import DataFile
from woodpecker.errors import Corrupt
from woodpecker.segments.file_place import make_directory, sync_directory
from woodpecker.segments.file_recovery import try_lock


def seal(path: Path, target: Path, tail: bytes, at: int) -> bool:
    """Cut the file at byte ``at``, append ``tail``, sync, link; False: not possible here.

    Idempotent; a crash on the way leaves a readable segment.
    Raises: OSError (FileNotFoundError: dropped), Corrupt: blocks are missing.
    """
    file = DataFile.open(path, os.O_RDWR, direct=False)
    try:
        if not try_lock(file.fd):
            return False
        found = os.fstat(file.fd)
        if not os.path.samestat(found, os.stat(path)):
            return False
        make_directory(target.parent)
        if found.st_nlink > 1:  # done before
            return target.exists() and target.samefile(path)
        if target.parent.stat().st_dev != found.st_dev or target.exists():
            return False
        if found.st_size < at:
            where = f"{path}@{found.st_size}"
            raise Corrupt(f"{where}: the file ends here, and its blocks at {at}", where=where)
        return _seal(file, target, tail, at)
    finally:
        file.close()


def _seal(file: DataFile, target: Path, tail: bytes, at: int) -> bool:
    os.ftruncate(file.fd, at)
    _write(file.fd, tail, at)
    os.fsync(file.fd)
    try:
        os.link(file.path, target)
    except FileExistsError:
        return False
    sync_directory(target.parent)
    return True


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
