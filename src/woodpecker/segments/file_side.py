"""The side file of a segment: one mapped page shared by its writer, taker-overs and readers.

    0     header: whose it is; written once, durable before the segment is opened
    512   words of 8 bytes: fence, published bytes, published seq, interest
    1024  two slots for the verified-prefix hint, written in turn, each with a CRC
    2048  a byte that is written to wake readers (a store to a mapping raises no file event)

Words are set by aligned 8-byte stores through ``memoryview.cast("Q")``: ``struct.pack_into`` would
tear. They live as long as the boot; under another boot id they mean nothing. A taker-over never
creates a side file: the writer would go on looking at the old one.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from mmap import PROT_READ, mmap
from pathlib import Path
from zlib import crc32

from woodpecker.core.file_rules import Position

PAGE_BYTES = 4096
_MAGIC = b"WPSIDE1\n"
_HEADER = struct.Struct("<8s16sQQ16s16sQ")  # magic, log, segment, epoch, token, boot, pid
_HINT = struct.Struct("<QQQQ16sQQQ")  # offset, last_offset, block, seq, digest, bytes, times
_CRC = struct.Struct("<I")
_WORDS_AT, _HINTS_AT, _HINT_STRIDE, _WAKE_AT = 512, 1024, 512, 2048
_FENCE, _PUBLISHED_BYTES, _PUBLISHED_SEQ, _INTEREST = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose side file it is; all but ``pid`` must match."""

    log_id: str
    segment_id: int
    epoch: int
    token: str
    boot: str
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A prefix of the file that was synced: recovery starts behind it. Void if it does not fit."""

    position: Position  # behind the prefix
    last_offset: int  # where its last block starts
    bytes: int  # of its blocks, without padding
    first_timestamp_us: int
    last_timestamp_us: int


class SideFile:
    """An open, mapped side file."""

    __slots__ = ("_fd", "_map", "_slot", "_words", "is_writable", "owner", "path")

    def __init__(self, fd: int, path: Path, owner: Owner, *, is_writable: bool = True) -> None:
        self._fd = fd
        self.path = path
        self.owner = owner
        self._map = mmap(fd, PAGE_BYTES) if is_writable else mmap(fd, PAGE_BYTES, prot=PROT_READ)
        self._words = memoryview(self._map)[_WORDS_AT : _WORDS_AT + 32].cast("Q")
        self._slot = 0
        self.is_writable = is_writable

    @classmethod
    def create(cls, path: Path, owner: Owner) -> SideFile:
        """Make it; it is durable once its directory is synced too. Raises: OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            header = _pack_header(owner)
            os.pwrite(fd, header.ljust(PAGE_BYTES, b"\0"), 0)
            os.fsync(fd)
            return cls(fd, path, owner)
        except BaseException:
            os.close(fd)
            path.unlink()  # whoever tries again makes a new one
            raise

    @classmethod
    def open(cls, path: Path, expected: Owner, *, read_only: bool = False) -> SideFile | None:
        """Open it; None if it is not the one made with the segment. Raises: OSError."""
        fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        try:
            owner = _parse_header(os.pread(fd, PAGE_BYTES, 0))
            if owner is not None and _is_same(owner, expected):
                return cls(fd, path, owner, is_writable=not read_only)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    @property
    def is_fenced(self) -> bool:
        return self._words[_FENCE] != 0

    def fence(self) -> None:
        self._words[_FENCE] = 1

    def barrier(self) -> None:
        """Have the words seen everywhere, and the page on disk. Raises: OSError."""
        os.fsync(self._fd)

    def publish(self, end_bytes: int, end_seq: int) -> None:
        """Show readers everything up to ``end_bytes`` of the data file."""
        self._words[_PUBLISHED_BYTES] = end_bytes
        self._words[_PUBLISHED_SEQ] = end_seq  # never ahead of the bytes; readers decide by those

    @property
    def published_bytes(self) -> int:
        """End of the blocks that readers may see."""
        return self._words[_PUBLISHED_BYTES]

    @property
    def published_seq(self) -> int:
        """Seq after the last one that readers may see; 0 if none was published."""
        return self._words[_PUBLISHED_SEQ]

    def ask_to_be_woken(self) -> None:
        """A reader is about to wait."""
        self._words[_INTEREST] = 1

    def wake(self) -> None:
        """Wake readers that asked for it. Raises: OSError."""
        if self._words[_INTEREST]:
            self._words[_INTEREST] = 0
            os.pwrite(self._fd, b"\1", _WAKE_AT)

    def write_hint(self, hint: Hint) -> None:
        """Keep the hint; the data below it is synced. Raises: OSError."""
        at = hint.position
        body = _HINT.pack(
            at.offset, hint.last_offset, at.block, at.seq, at.digest,
            hint.bytes, hint.first_timestamp_us, hint.last_timestamp_us,
        )  # fmt: skip
        start = _HINTS_AT + self._slot * _HINT_STRIDE
        self._map[start : start + _HINT.size + _CRC.size] = body + _CRC.pack(crc32(body))
        self._slot ^= 1
        os.fdatasync(self._fd)

    def hint(self) -> Hint | None:
        """The hint that reaches farthest, if any is whole."""
        found = [hint for slot in (0, 1) if (hint := self._read_hint(slot)) is not None]
        return max(found, key=lambda hint: hint.position.offset, default=None)

    def _read_hint(self, slot: int) -> Hint | None:
        start = _HINTS_AT + slot * _HINT_STRIDE
        raw = self._map[start : start + _HINT.size + _CRC.size]
        body, crc = raw[: _HINT.size], _CRC.unpack(raw[_HINT.size :])[0]
        offset, last, block, seq, digest, size, first_us, last_us = _HINT.unpack(body)
        if crc != crc32(body) or offset == 0:
            return None
        return Hint(
            position=Position(offset=offset, block=block, seq=seq, digest=digest),
            last_offset=last,
            bytes=size,
            first_timestamp_us=first_us,
            last_timestamp_us=last_us,
        )

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._fd)


def _pack_header(owner: Owner) -> bytes:
    body = _HEADER.pack(
        _MAGIC, bytes.fromhex(owner.log_id), owner.segment_id, owner.epoch,
        bytes.fromhex(owner.token), bytes.fromhex(owner.boot), owner.pid,
    )  # fmt: skip
    return body + _CRC.pack(crc32(body))


def _parse_header(page: bytes) -> Owner | None:
    body = page[: _HEADER.size]
    if len(page) != PAGE_BYTES or _CRC.unpack_from(page, _HEADER.size)[0] != crc32(body):
        return None
    magic, log_id, segment_id, epoch, token, boot, pid = _HEADER.unpack(body)
    if magic != _MAGIC:
        return None
    return Owner(
        log_id=log_id.hex(), segment_id=segment_id, epoch=epoch,
        token=token.hex(), boot=boot.hex(), pid=pid,
    )  # fmt: skip


def _is_same(owner: Owner, expected: Owner) -> bool:
    return (owner.log_id, owner.segment_id, owner.epoch, owner.token, owner.boot) == (
        expected.log_id, expected.segment_id, expected.epoch, expected.token, expected.boot,
    )  # fmt: skip
