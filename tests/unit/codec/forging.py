"""Forged bytes with right checksums: what a buggy writer could leave, for tests of the decoders."""

from __future__ import annotations

import struct
from zlib import crc32

from xxhash import xxh3_128_digest, xxh3_128_hexdigest


def resign_block(data: bytes | bytearray) -> bytearray:
    """The block with CRC and digest made right again."""
    block = bytearray(data)
    struct.pack_into("<I", block, 124, crc32(block[:8] + block[24:124]))
    block[8:24] = xxh3_128_digest(bytes(block[24:]))
    return block


def resign_end(data: bytes | bytearray, size_bytes: int) -> bytearray:
    """The CRC in the last four bytes made right again; it covers the last ``size_bytes``."""
    result = bytearray(data)
    struct.pack_into("<I", result, len(result) - 4, crc32(result[-size_bytes:-4]))
    return result


def record(kind: str, value: bytes, fmt: int = 1) -> bytes:
    """A record with any value, well or badly formed, and the right digest."""
    head = f'{{"woodpecker":"{kind}","format":{fmt},"digest":"'.encode()
    return head + xxh3_128_hexdigest(head + value).encode() + b'","value":' + value + b"}\n"
