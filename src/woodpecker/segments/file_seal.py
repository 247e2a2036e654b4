"""Sealing in place: the file of a CLOSED segment becomes the sealed object, by a second name.

Only with the lock (a stopped writer of the segment would hold it), and only as long as the file has
one name: what has been linked once is a sealed object, and nobody writes to it any more.
"""

from __future__ import annotations

import os
from pathlib import Path

from woodpecker.codec.checksum import Checksum
from woodpecker.core.manifest import Sealed, Segment
from woodpecker.direct_file import DataFile
from woodpecker.errors import Corrupt
from woodpecker.segments.base import SealedTail, SegmentRef
from woodpecker.segments.file_aligned import BUFFER_BYTES
from woodpecker.segments.file_index import Index
from woodpecker.segments.file_place import make_directory, sync_directory
from woodpecker.segments.file_recovery import first_position, identity_of, try_lock
from woodpecker.segments.file_walk import Bound, Walk


def seal(ref: SegmentRef, path: Path, target: Path, tail: SealedTail, key: str) -> Sealed | None:
    """Cut behind the block at E, append index and footer, sync, link; None: not possible here.

    Every block is verified on the way. Idempotent; a crash on the way leaves a readable segment.
    Raises: OSError (FileNotFoundError: dropped), Corrupt.
    """
    file = DataFile.open(path, os.O_RDWR, direct=False)
    try:
        if not try_lock(file.fd) or not os.path.samestat(os.fstat(file.fd), os.stat(path)):
            return None
        make_directory(target.parent)
        if os.fstat(file.fd).st_nlink > 1:  # done before
            is_same = target.exists() and target.samefile(path)
            return _describe(file, key) if is_same else None
        if target.parent.stat().st_dev != os.fstat(file.fd).st_dev or target.exists():
            return None
        return _seal(ref.log_id, ref.segment, file, target, tail, key)
    finally:
        file.close()


def _seal(
    log_id: str, segment: Segment, file: DataFile, target: Path, tail: SealedTail, key: str
) -> Sealed | None:
    checksum = Checksum()
    offsets, end = _check(log_id, segment, file, checksum)
    data = tail(offsets, end)
    checksum.update(data)
    os.ftruncate(file.fd, end)
    _write(file.fd, data, end)
    os.fsync(file.fd)
    try:
        os.link(file.path, target)
    except FileExistsError:
        return None
    sync_directory(target.parent)
    return Sealed(key=key, size=checksum.size_bytes, checksum=checksum.hex)


def _check(
    log_id: str, segment: Segment, file: DataFile, checksum: Checksum
) -> tuple[list[int], int]:
    """Verify all blocks up to E; returns where each begins, and where the last one's padding ends."""
    end = segment.end
    assert end is not None, "only a CLOSED segment can be sealed"
    walk = Walk(file, identity_of(log_id, segment), Index())
    offsets: list[int] = []
    place = first_position(segment)
    for header, view in walk.verified(place, Bound(block=end.block + 1)):
        offsets.append(place.offset)
        place = place.after(header)
        checksum.update(view)
    if (place.block - 1, place.seq, place.digest.hex()) != (end.block, end.seq, end.digest):
        where = f"{file.path}@{place.offset}"
        raise Corrupt(f"{where}: not the block at which the manifest closed it", where=where)
    return offsets, place.offset


def _describe(file: DataFile, key: str) -> Sealed:
    checksum = Checksum()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    while got := file.read(buffer, checksum.size_bytes):
        checksum.update(buffer[:got])
    return Sealed(key=key, size=checksum.size_bytes, checksum=checksum.hex)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
