"""A bucket seen through LogStore nodes: for clients that have no rights of their own there.

Nodes show sealed segments, pages and registers, and nothing else: enough to read every log whose open
segments are of kind ``quorum``. Nothing can be written, listed or deleted.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from woodpecker.codec.messages import GetObject, Object
from woodpecker.errors import InvalidRequest, NotFound
from woodpecker.rpc.base import Answer
from woodpecker.storage.base import Buffer, Feature, ObjectInfo

PART_BYTES = 4 << 20  # of one answer


class Asker(Protocol):
    """Asks whichever node answers."""

    async def ask(self, request: GetObject) -> Answer:
        """Raises: Unavailable; InvalidRequest: a key that nodes do not show."""


class ThroughNodes:
    """The object store ``storage`` (as in a manifest; "" is the store's own), read through nodes.

    Concurrency: any number of tasks of one loop. ``close`` leaves the nodes' links to their owner.
    """

    def __init__(self, url: str, storage: str, nodes: Asker) -> None:
        self._url = url
        self._storage = storage
        self._nodes = nodes

    @property
    def url(self) -> str:
        return self._url

    async def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> tuple[Buffer, ObjectInfo]:
        parts: list[Buffer] = []
        size, left = 0, length
        while True:
            wanted = PART_BYTES if left is None else min(left, PART_BYTES)
            part, size = await self._part(key, start, wanted)
            parts.append(part)
            start = max(0, size + start) if start < 0 else start
            start += len(part)
            left = None if left is None else left - len(part)
            if not len(part) or left == 0 or start >= size:
                break
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data, _info(key, size)

    async def head(self, key: str) -> ObjectInfo | None:
        try:
            _, size = await self._part(key, 0, 1)
        except NotFound:
            return None
        return _info(key, size)

    async def _part(self, key: str, start: int, length: int) -> tuple[Buffer, int]:
        answer = await self._nodes.ask(
            GetObject(storage=self._storage, key=key, start=start, length=length)
        )
        message = answer.message
        assert isinstance(message, Object), "any other answer was raised by the asker"
        if message.size is None:
            raise NotFound(f"{self._url}: no object {key}")
        return answer.payload, message.size

    # --- what nodes do not do for others ---

    async def create(self, key: str, data: Buffer) -> str:
        self._refuse("written")

    async def replace(self, key: str, data: Buffer, *, etag: str) -> str:
        self._refuse("written")

    async def write_stream(self, key: str, parts: AsyncIterable[Buffer]) -> int:
        self._refuse("written")

    async def delete(self, keys: Sequence[str]) -> None:
        self._refuse("deleted")

    async def list(
        self, prefix: str, *, start_after: str = ""
    ) -> AsyncIterator[Sequence[ObjectInfo]]:
        self._refuse("listed")
        yield ()

    async def probe(self, feature: Feature) -> str | None:
        self._refuse("written")

    def local_path(self, key: str) -> Path | None:
        return None

    async def clock_ms(self) -> int | None:
        return None

    async def close(self) -> None:
        return

    def _refuse(self, verb: str) -> NoReturn:
        raise InvalidRequest(
            f"{self._url}: nothing can be {verb} by this client, which has no rights on the store and "
            "reads it through LogStore nodes: give it credentials, or use a client that has them"
        )


def _info(key: str, size: int) -> ObjectInfo:
    return ObjectInfo(key=key, size=size, etag="", modified_ms=0)
