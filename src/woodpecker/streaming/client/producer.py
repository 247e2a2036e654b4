"""A producer of one channel, as users see it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from woodpecker.errors import (
    Closed,
    InvalidRequest,
    Overloaded,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.large import send_large
from woodpecker.streaming.client.messages import (
    Message,
    Payload,
    PropertyInput,
    Text,
    as_bytes,
    as_message,
)
from woodpecker.streaming.client.producing import ProduceLane
from woodpecker.streaming.client.session import Result, Session
from woodpecker.streaming.client.transactions import Transaction
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.requests import Channel as ChannelInfo


class Producer:
    """Sends messages to one channel, in order, each once; use it in ``async with``.

    A named producer fences its predecessor of the same name. Within a producer's life a message is never
    written twice, whatever breaks; with the first outcome that cannot be found out the producer ends.
    Concurrency: any number of tasks of one event loop; messages keep the order of the calls. Not thread-safe.
    """

    def __init__(
        self, env: Environment, lane: ProduceLane, info: ChannelInfo, name: str | None
    ) -> None:
        if name is not None and not (isinstance(name, str) and name):
            raise InvalidRequest(
                f"a producer's name is a non-empty str, not {name!r}; None is for one without a name"
            )
        if name is not None:
            as_bytes(name, "a producer's name")
        self.name = name
        self._env = env
        self._lane = lane
        self._info = info
        self._session: Session | None = None
        self._is_closed = False

    @property
    def session(self) -> Session:
        """Its state, for transactions. Raises: Closed: it is not open."""
        if self._session is None or self._is_closed:
            raise Closed("this producer is not open: use it in 'async with', or open a new one")
        return self._session

    # --- opening and closing ---

    async def open(self) -> Self:
        """Get a session; called by ``async with``. Idempotent.

        Raises: Unavailable: nobody served the channel in time. InvalidRequest, NotFound: refused.
        Cancellation: nothing is left behind but an epoch of the name that may have been taken.
        """
        if self._session is not None:
            self.session.check()
            return self
        session = self._lane.open(self._info.name, self._info.vcid, self.name)
        self._session = session
        try:
            async with asyncio.timeout(self._env.timeout_ms / 1000):
                await session.opened
        except TimeoutError:
            await self._leave()
            seconds = self._env.timeout_ms / 1000
            text = f"nobody served channel {self._info.name!r} within {seconds:g} s"
            raise Unavailable(f"{text}: {self._lane.reason}") from None
        except BaseException:
            await self._leave()
            raise
        return self

    async def close(self) -> None:
        """Wait for all that was put in, and let go. Idempotent.

        Raises: the first failure among what was still on its way.
        Cancellation: what is not answered then may or may not be written.
        """
        if self._session is None or self._is_closed:
            return
        try:
            await self._session.flush()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        self._is_closed = True
        if self._session is not None:
            await self._lane.leave(self._session)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        elif isinstance(error, Exception):
            with suppress(WoodpeckerError):  # the block's own failure is the one to tell
                await self.close()
        else:  # cancelled: whoever did it does not want to wait
            await self._leave()

    # --- sending ---

    async def send(
        self,
        payload: Payload | Message,
        *,
        key: Text | None = None,
        properties: PropertyInput | None = None,
        type: str | None = None,
        ephemeral: bool = False,
    ) -> Position | None:
        """Send one message and wait until it is durable; waits for room in the queue if need be.

        Args:
            payload: up to 64 MiB; above 4 MiB it travels in pieces.
            key, properties, type: as of ``Message``; not with one.
            ephemeral: only for those who listen now; it is never stored. The result is None.
        Returns: its position, with its tick.
        Raises:
            InvalidRequest, NotFound: refused: malformed; the channel is deleted.
            NotWritten, Overloaded: it was tried for ``timeout_s`` and is certainly not written.
            OutcomeUnknown, ProducerExpired: it may be written; this producer has ended.
            Fenced(outcome=): a newer producer of this name; this one has ended. Closed.
        Cancellation: it may still be written; the producer stays usable.
        """
        message = self.message(payload, key, properties, type)
        session = self.session
        if self._is_large(message) and not ephemeral:
            message.check(self._env.settings)
            return await send_large(self._env, session, message)
        size_bytes = self.check_batch([message])
        await session.room.enter(size_bytes)
        result = await self._put([message], size_bytes, is_open=True, ephemeral=ephemeral)
        assert not isinstance(result, list)
        return result

    async def send_many(
        self, messages: Iterable[Payload | Message], *, ephemeral: bool = False
    ) -> list[Position]:
        """Send messages that belong together: one batch, next to one another, all or nothing.

        At most 16 MiB. Returns: their positions; [] for ephemeral ones. Else as ``send``.
        """
        batch = [as_message(item) for item in messages]
        session = self.session
        if not batch:
            return []
        size_bytes = self.check_batch(batch)
        await session.room.enter(size_bytes)
        result = await self._put(
            batch, size_bytes, count=len(batch), is_open=False, ephemeral=ephemeral
        )
        return result if isinstance(result, list) else []

    def submit(
        self,
        payload: Payload | Message,
        *,
        key: Text | None = None,
        properties: PropertyInput | None = None,
        type: str | None = None,
    ) -> asyncio.Future[Position]:
        """Put one message in the queue; the future gives its position once it is durable.

        Raises:
            Overloaded: the queue is full; await ``ready()``. InvalidRequest: malformed, or above 4 MiB.
            What ended the producer. The future fails with what ``send`` would raise later.
        Cancellation of the future: the message may still be written.
        """
        message = self.message(payload, key, properties, type)
        session = self.session
        session.check()
        if self._is_large(message):
            raise InvalidRequest(f"{message!r} is too large to be submitted: use send()")
        size_bytes = self.check_batch([message])
        if not session.room.take(size_bytes):
            session.room.refuse(size_bytes)
            text = f"{session.room.taken_bytes} of {session.room.limit_bytes} bytes are queued"
            raise Overloaded(f"{session.what}: {text}; await ready(), then submit again")
        future: asyncio.Future[Any] = self._put([message], size_bytes, is_open=True)
        return future

    async def flush(self) -> None:
        """Wait for all that was put in before. Raises: the first failure among it."""
        await self.session.flush()

    async def ready(self) -> None:
        """Wait until the queue has room. Raises: what ended the producer."""
        session = self.session
        await session.room.ready()
        session.check()

    def transaction(self, *, keep_alive_s: float = 10.0) -> Transaction:
        """A transaction, for ``async with``.

        Args:
            keep_alive_s: 1 to 60; it is aborted when its owner hears nothing from here for so long.
        """
        return Transaction(self, keep_alive_s)

    # --- for transactions ---

    def message(
        self,
        payload: Payload | Message,
        key: Text | None,
        properties: PropertyInput | None,
        type_: str | None,
    ) -> Message:
        """What ``send`` was given, as one message. Raises: InvalidRequest."""
        if not isinstance(payload, Message):
            return Message(payload, key=key, properties=properties, type=type_)
        if key is not None or properties is not None or type_ is not None:
            raise InvalidRequest("key, properties and type belong in the Message that is given")
        return payload

    def check_batch(self, messages: list[Message]) -> int:
        """Size of a batch. Raises: InvalidRequest: too large in one way or another."""
        settings = self._env.settings
        if len(messages) > settings.batch_max_messages:
            raise InvalidRequest(
                f"a batch of {len(messages)} messages is larger than {settings.batch_max_messages}: "
                "send it in parts, in a transaction if they belong together"
            )
        for message in messages:
            message.check(settings)
        size_bytes = sum(message.size_bytes for message in messages)
        if size_bytes > settings.batch_max_bytes:
            raise InvalidRequest(
                f"a batch of {size_bytes} bytes is larger than {settings.batch_max_bytes}: "
                "send it in parts, in a transaction if they belong together"
            )
        return size_bytes

    def keep_alive(self, txn: int) -> None:
        """A sign of life of a transaction."""
        self._lane.keep_alive(self.session, txn)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task of a transaction."""
        return self._env.runtime.spawn(work, name)

    async def sleep_ms(self, delay_ms: float) -> None:
        """Sleep."""
        await self._env.runtime.sleep_ms(delay_ms)

    # --- inside ---

    def _is_large(self, message: Message) -> bool:
        return len(message.payload) > self._env.settings.chunk_from_bytes

    def _put(
        self,
        messages: list[Message],
        size_bytes: int,
        *,
        count: int | None = None,
        is_open: bool,
        ephemeral: bool = False,
    ) -> asyncio.Future[Result]:
        """Send a draft for which room was taken."""
        session = self._session
        assert session is not None
        draft = session.draft(messages, size_bytes)
        draft.is_open, draft.ephemeral = is_open, ephemeral
        return session.put(draft, count)
