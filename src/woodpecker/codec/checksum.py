"""Checksum of a whole object or file, in one pass over its parts: XXH3-128 as 32 hex digits."""

from __future__ import annotations

from xxhash import xxh3_128

from woodpecker.codec.compression import Buffer


class Checksum:
    """Running checksum and size of the bytes seen so far."""

    __slots__ = ("_hash", "size_bytes")

    def __init__(self) -> None:
        self._hash = xxh3_128()
        self.size_bytes = 0

    def update(self, data: Buffer) -> None:
        """Take the next part."""
        self._hash.update(data)
        self.size_bytes += memoryview(data).nbytes

    @property
    def hex(self) -> str:
        """The checksum so far: equals ``records.digest_of`` of all parts joined."""
        return self._hash.hexdigest()

    @property
    def bytes(self) -> bytes:
        """The same as 16 bytes."""
        return self._hash.digest()
