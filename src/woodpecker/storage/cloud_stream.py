"""Upload of one object from parts with bounded memory: one request if small, else multipart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import obstore

from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.base import Buffer
from woodpecker.storage.cloud_errors import SDK_ERRORS

if TYPE_CHECKING:
    from obstore import Attributes, PutResult
    from obstore.store import ObjectStore as SdkStore

PART_BYTES = 8 * 1024 * 1024  # x 10,000 parts: objects up to 80 GiB
PARTS_AT_ONCE = 4


class _GaveUp(OSError):
    """Raised into the SDK so that it drops the parts it has uploaded."""


class Upload:
    """One object on its way.

    Args:
        map_error: makes the error to raise from one of the SDK.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: SdkStore,
        path: str,
        attributes: Attributes | None,
        map_error: Callable[[BaseException], WoodpeckerError],
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._path = path
        self._attributes = attributes
        self._map_error = map_error
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._gave_up = False

    async def run(self, parts: AsyncIterable[Buffer]) -> int:
        """Write the object; return its size in bytes.

        Raises:
            Errors made by ``map_error``, and whatever ``parts`` raises; parts are dropped then.
        Cancellation: parts are dropped.
        """
        source = aiter(parts)
        head: list[bytes] = []
        size = 0
        async for part in source:
            head.append(bytes(part))
            size += len(head[-1])
            if size > PART_BYTES:
                return await self._run_multipart(head, source)
        await self._mapped(
            obstore.put_async(
                self._store, self._path, b"".join(head),
                attributes=self._attributes, use_multipart=False,
            )
        )  # fmt: skip
        return size

    async def _run_multipart(self, head: list[bytes], rest: AsyncIterator[Buffer]) -> int:
        put = obstore.put_async(
            self._store, self._path, self._feed(),
            attributes=self._attributes, use_multipart=True,
            chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE,
        )  # fmt: skip
        sending = self._runtime.spawn(self._mapped(put), f"upload {self._path}")
        size = 0
        try:
            for part in head:
                size += await self._hand_over(part, sending)
            async for buffer in rest:
                size += await self._hand_over(bytes(buffer), sending)
            await self._hand_over(None, sending)
            await asyncio.shield(sending)
        except BaseException:
            await self._abandon(sending)
            raise
        return size

    async def _hand_over(self, part: bytes | None, sending: asyncio.Task[PutResult]) -> int:
        if part is not None and not part:
            return 0
        handed = self._runtime.spawn(self._queue.put(part), "upload: hand over")
        sending.add_done_callback(lambda _: handed.cancel())  # nobody takes it any more
        try:
            await handed
        except asyncio.CancelledError:
            if sending.done() and not sending.cancelled():
                sending.result()
            raise
        return len(part or b"")

    async def _abandon(self, sending: asyncio.Task[PutResult]) -> None:
        if sending.done():
            return
        self._gave_up = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)
        await asyncio.gather(asyncio.shield(sending), return_exceptions=True)

    async def _feed(self) -> AsyncIterator[bytes]:
        while (part := await self._queue.get()) is not None:
            yield part
        if self._gave_up:
            raise _GaveUp("the upload was given up")

    async def _mapped(self, put: Coroutine[Any, Any, PutResult]) -> PutResult:
        try:
            return await put
        except SDK_ERRORS as error:
            raise self._map_error(error) from error
