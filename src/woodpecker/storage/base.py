"""Port: an object store with create-if-absent, and compare-and-swap where it has it.

Keys are relative to the store's root prefix: ASCII, parts joined by ``/``. Adapters translate every
error of their SDK into the ones below and never retry a conditional write by themselves: the caller
knows how to find out what became of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Buffer = bytes | bytearray | memoryview
Feature = Literal["create_if_absent", "compare_and_swap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One listed object. ``etag`` is opaque and fits ``replace(etag=)`` of the same store."""

    key: str
    size: int
    etag: str
    modified_ms: int  # by the store's clock; 0 where unknown


class ObjectStore(Protocol):
    """A bucket or directory, under one root prefix."""

    @property
    def url(self) -> str:
        """The store's URL without secrets, for messages."""

    async def create(self, key: str, data: Buffer) -> str:
        """Write a new object in one request; return its etag. ``data`` must not change meanwhile.

        A read-only view is a promise that it never changes: it may be sent without a copy, and later.

        Raises:
            AlreadyExists: the key is taken, perhaps by an earlier try of this very write.
            OutcomeUnknown: no definite answer (time-out, cut, 409, 5xx): the object may appear, even later.
            Unavailable: certainly not sent. InvalidRequest, NotFound: credentials or bucket refused.
        Cancellation: the object may still be written.
        """

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        """Overwrite the object if its etag still is ``etag``; return the new etag.

        Raises:
            Conflict: another version is there, or none.
            OutcomeUnknown, Unavailable, InvalidRequest: as in ``create``.
        """

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        """Read an object, or ``length`` bytes from ``start`` (negative: from the end); less at the end.

        Reads are retried inside, bounded. ``ObjectInfo.size`` is the whole object's.
        Raises:
            NotFound: no such object. Unavailable: the store did not answer.
        """

    async def head(self, key: str) -> ObjectInfo | None:
        """Facts of one object, or None. Raises: Unavailable."""

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectInfo]]:
        """Objects whose key starts with ``prefix``, sorted by key, in pages. Raises: Unavailable."""

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        """Write one object from parts without holding it all (multipart, temporary file).

        Visible only when complete; an older object at the key is replaced. Only for keys whose
        content is determined by the key, never for blocks or records. Returns the size in bytes.
        Raises:
            OutcomeUnknown, Unavailable, InvalidRequest: as in ``create``; unfinished parts are dropped.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; absent ones are no error. Retried inside, bounded. Raises: Unavailable."""

    async def probe(self, feature: Feature) -> str | None:
        """Try ``feature`` on the real store with a key of its own; None if it works, else what is wrong."""

    def local_path(self, key: str) -> Path | None:
        """Where the object lies (or would) in this machine's file system; None for any other store."""

    async def clock_ms(self) -> int | None:
        """The store's wall clock now, or None where it shows none."""

    async def close(self) -> None:
        """Release connections, after those under way have ended."""
