"""Compression of whole block bodies: none, zstd, lz4. Bounded by the raw length the header states."""

from __future__ import annotations

import lz4.block
import zstandard

from woodpecker.errors import Corrupt, InvalidRequest

Buffer = bytes | bytearray | memoryview

NONE, ZSTD, LZ4 = 0, 1, 2  # codes in block flags
MASK = 0b11  # the bits of the flags that hold the code
CODES = {"none": NONE, "zstd": ZSTD, "lz4": LZ4}
ZSTD_LEVEL = 1  # measured on log lines: about as fast as lz4 at twice its ratio


def code_of(name: str) -> int:
    """Code of a compression by its name. Raises: InvalidRequest."""
    code = CODES.get(name)
    if code is None:
        raise InvalidRequest(f"unknown compression {name!r}: use one of {', '.join(CODES)}")
    return code


def compress(code: int, raw: Buffer) -> bytes:
    """Compress with ZSTD or LZ4."""
    if code == ZSTD:
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw)
    return bytes(lz4.block.compress(raw, store_size=False))


def decompress(code: int, stored: Buffer, raw_bytes: int, *, where: str) -> bytes:
    """Undo ``compress``; never allocates more than ``raw_bytes`` for the result.

    Raises:
        Corrupt: ``stored`` is not one whole frame of exactly ``raw_bytes``.
    """
    try:
        raw = _unzstd(stored, raw_bytes) if code == ZSTD else _unlz4(stored, raw_bytes)
    except (zstandard.ZstdError, lz4.block.LZ4BlockError, ValueError, MemoryError) as error:
        raise Corrupt(
            f"{where}: the compressed body cannot be read: {error}", where=where
        ) from error
    if len(raw) != raw_bytes:
        raise Corrupt(
            f"{where}: the body decompresses to {len(raw)} bytes, not {raw_bytes}", where=where
        )
    return raw


def _unzstd(stored: Buffer, raw_bytes: int) -> bytes:
    # the decompressor allocates what the frame claims, so the claim is looked at first
    claimed = zstandard.frame_content_size(stored)
    if claimed != raw_bytes:
        raise ValueError(f"the frame claims {claimed} bytes, the header {raw_bytes}")
    return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)


def _unlz4(stored: Buffer, raw_bytes: int) -> bytes:
    return bytes(lz4.block.decompress(stored, uncompressed_size=raw_bytes))
