"""The streaming service without asyncio: the same calls, each waiting for its answer.

    with woodpecker.blocking.streaming.connect("localhost:7200") as client:
        channel = client.create_channel("orders", exist_ok=True)
        with channel.producer() as producer:
            producer.send(b"paid")
        for message in channel.consume(): ...

One event loop runs in one background thread per client; all handles of a client share it and may be used by
many threads. A ``KeyboardInterrupt`` while waiting cancels the call, as cancelling does there.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Self

from woodpecker import app_streaming, blocking
from woodpecker.errors import Closed
from woodpecker.facade import Handle, Inbox, Over, Walk, mirror, next_of
from woodpecker.runtime.portal import Portal
from woodpecker.streaming import standalone as standalone_module
from woodpecker.streaming.client import channel as channel_module
from woodpecker.streaming.client import client as client_module
from woodpecker.streaming.client import producer as producer_module
from woodpecker.streaming.client import subscriptions as subscription_module
from woodpecker.streaming.client import transactions as transaction_module
from woodpecker.streaming.client.messages import (
    Message,
    Payload,
    PropertyInput,
    Text,
    TickSignal,
)
from woodpecker.streaming.client.places import StartInput, StopInput
from woodpecker.streaming.core.values import ANYTHING, Position, Where

__all__ = [
    "Channel",
    "Producer",
    "Standalone",
    "StreamingClient",
    "Subscription",
    "Transaction",
    "connect",
]


def connect(
    addresses: str | Sequence[str],
    *,
    timeout_s: float = client_module.TIMEOUT_S,
    name: str = "",
    secret: str | bytes | None = None,
    secret_file: str | os.PathLike[str] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
) -> StreamingClient:
    """Connect to a service; use it in ``with``. Arguments and errors: ``woodpecker.streaming.connect``."""

    async def make() -> client_module.StreamingClient:
        return app_streaming.connect(
            addresses,
            timeout_s=timeout_s,
            name=name,
            secret=secret,
            secret_file=secret_file,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )

    portal = Portal()  # what it is made of may belong to a loop from the start
    try:
        return StreamingClient(portal.call(make()), portal, owns_portal=True)
    except BaseException:
        portal.close()
        raise


class Standalone(Handle):
    """A whole service in this process, over a store; see ``woodpecker.streaming.Standalone``.

    Args:
        store: an open ``woodpecker.blocking.Client``, which stays the caller's.
    """

    def __init__(self, store: blocking.Client, *, mode: str | None = None) -> None:
        self._inner = standalone_module.Standalone(store._inner, mode=mode)  # noqa: SLF001  what it stands for
        self._portal = store._portal  # noqa: SLF001  one loop for all of them

    def connect(
        self, *, timeout_s: float = client_module.TIMEOUT_S, name: str = ""
    ) -> StreamingClient:
        """A client of this service; close it before the service."""

        async def make() -> client_module.StreamingClient:
            return self._inner.connect(timeout_s=timeout_s, name=name)

        return StreamingClient(self._portal.call(make()), self._portal, owns_portal=False)

    def __enter__(self) -> Self:
        self._portal.call(self._inner.__aenter__())
        return self

    def close(self) -> None:
        """Stop the service. Called by ``with``."""
        self._portal.call(self._inner.__aexit__(None, None, None))


class StreamingClient(Handle):
    """A connection to a service, see ``woodpecker.streaming.StreamingClient``. Safe from many threads."""

    def __init__(
        self, inner: client_module.StreamingClient, portal: Portal, *, owns_portal: bool
    ) -> None:
        self._inner = inner
        self._portal = portal
        self._owns_portal = owns_portal
        self._lock = threading.Lock()

    def open(self) -> Self:
        """Begin to follow who serves what; called by ``with``. Idempotent."""
        self._portal.call(self._inner.open())
        return self

    def __enter__(self) -> Self:
        return self.open()

    def close(self) -> None:
        """Let go of everything, end its thread. Idempotent. Close producers before."""
        with self._lock, suppress(Closed):
            try:
                self._portal.call(self._inner.close())
            finally:
                if self._owns_portal:
                    self._portal.close()

    @property
    def trouble(self) -> str:
        """What keeps a call from its answer, in words, while it is tried again; "": nothing now."""
        return self._inner.trouble

    def create_channel(
        self,
        name: str,
        *,
        exist_ok: bool = False,
        retention_age_s: int | None = None,
        attributes: dict[str, str] | None = None,
    ) -> Channel:
        """Create a channel, see ``woodpecker.streaming.StreamingClient.create_channel``."""
        work = self._inner.create_channel(
            name,
            exist_ok=exist_ok,
            retention_age_s=retention_age_s,
            attributes=attributes,
        )
        return Channel(self._portal.call(work), self._portal)

    def create_channels(
        self,
        names: Iterable[str],
        *,
        exist_ok: bool = False,
        retention_age_s: int | None = None,
        attributes: dict[str, str] | None = None,
    ) -> list[Channel]:
        """Create many channels, see ``woodpecker.streaming.StreamingClient.create_channels``."""
        work = self._inner.create_channels(
            names,
            exist_ok=exist_ok,
            retention_age_s=retention_age_s,
            attributes=attributes,
        )
        return [Channel(made, self._portal) for made in self._portal.call(work)]

    def open_channel(self, name: str) -> Channel:
        """Open an existing channel. Raises: NotFound, Unavailable."""
        return Channel(self._portal.call(self._inner.open_channel(name)), self._portal)

    list_channels = mirror(client_module.StreamingClient.list_channels)
    delete_channel = mirror(client_module.StreamingClient.delete_channel)
    broadcast = mirror(client_module.StreamingClient.broadcast)


class Channel:
    """One named channel, see ``woodpecker.streaming.Channel``."""

    def __init__(self, inner: channel_module.Channel, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def name(self) -> str:
        """Its name."""
        return self._inner.name

    @property
    def attributes(self) -> dict[str, str]:
        """Free-form text kept with it."""
        return self._inner.attributes

    def producer(self, name: str | None = None) -> Producer:
        """A producer, for ``with``; see ``woodpecker.streaming.Channel.producer``."""
        return Producer(self._inner.producer(name), self._portal)

    def consume(
        self,
        start: StartInput = "earliest",
        *,
        end: StopInput = None,
        where: Where = ANYTHING,
        ticks: bool = False,
        credit_bytes: int | None = None,
    ) -> Walk[Message | TickSignal]:
        """Messages one by one, see ``woodpecker.streaming.Channel.consume``."""
        inner = self._inner.consume(
            start, end=end, where=where, ticks=ticks, credit_bytes=credit_bytes
        )
        return Walk(inner, self._portal)

    def consume_batches(
        self,
        start: StartInput = "earliest",
        *,
        end: StopInput = None,
        where: Where = ANYTHING,
        credit_bytes: int | None = None,
    ) -> Walk[list[Message]]:
        """Messages in lists, see ``woodpecker.streaming.Channel.consume_batches``."""
        inner = self._inner.consume_batches(start, end=end, where=where, credit_bytes=credit_bytes)
        return Walk(inner, self._portal)

    def subscribe(
        self, cursor: str, *, start: StartInput = "earliest", where: Where | None = None
    ) -> Subscription:
        """Consume under a durable cursor, for ``with``; see ``woodpecker.streaming.Channel.subscribe``."""
        return Subscription(self._inner.subscribe(cursor, start=start, where=where), self._portal)

    read_point = mirror(channel_module.Channel.read_point)


class Producer(Handle):
    """A producer of one channel, see ``woodpecker.streaming.Producer``. Safe from many threads."""

    def __init__(self, inner: producer_module.Producer, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal
        self._inbox = Inbox(portal)

    def open(self) -> Self:
        """Get a session; called by ``with``. Idempotent."""
        self._portal.call(self._inner.open())
        return self

    def __enter__(self) -> Self:
        return self.open()

    send = mirror(producer_module.Producer.send)
    send_many = mirror(producer_module.Producer.send_many)
    flush = mirror(producer_module.Producer.flush)
    ready = mirror(producer_module.Producer.ready)

    def submit(
        self,
        payload: Payload | Message,
        *,
        key: Text | None = None,
        properties: PropertyInput | None = None,
        type: str | None = None,
    ) -> Future[Position]:
        """Put one message in the queue; the future gives its position once it is durable.

        What ``woodpecker.streaming.Producer.submit`` would raise, the future raises here: Overloaded for a
        full queue too (``ready()`` waits for room).
        """
        submit = functools.partial(
            self._inner.submit, payload, key=key, properties=properties, type=type
        )
        return self._inbox.put(submit)

    def transaction(self, *, keep_alive_s: float = 10.0) -> Transaction:
        """A transaction, for ``with``; see ``woodpecker.streaming.Producer.transaction``."""
        return Transaction(self._inner.transaction(keep_alive_s=keep_alive_s), self._portal)

    def close(self) -> None:
        """Wait for all that was put in, and let go. Idempotent."""
        self._portal.call(self._inner.close())


class Transaction:
    """Messages that stand or fall together, see ``woodpecker.streaming.Transaction``."""

    def __init__(self, inner: transaction_module.Transaction, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    @property
    def position(self) -> Position | None:
        """Of its first message, once committed."""
        return self._inner.position

    send = mirror(transaction_module.Transaction.send)
    send_many = mirror(transaction_module.Transaction.send_many)

    def __enter__(self) -> Self:
        self._portal.call(self._inner.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.call(self._inner.__aexit__(kind, error, trace))


class Subscription(Handle, Iterator[Message]):
    """Consuming under a durable cursor, see ``woodpecker.streaming.Subscription``.

    One thread iterates, any number acknowledge. After a ``KeyboardInterrupt`` it may be gone on with.
    """

    def __init__(self, inner: subscription_module.Subscription, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    def open(self) -> Self:
        """Take the cursor over; called by ``with``. Idempotent."""
        self._portal.call(self._inner.open())
        return self

    def __enter__(self) -> Self:
        return self.open()

    def __next__(self) -> Message:
        try:
            return self._portal.call(next_of(self._inner))
        except Over:
            raise StopIteration from None

    @property
    def name(self) -> str:
        """Of the cursor."""
        return self._inner.name

    @property
    def position(self) -> Position:
        """All below it is acknowledged; the next attach begins there."""

        async def look() -> Position:
            return self._inner.position

        return self._portal.call(look())

    @property
    def lag(self) -> int:
        """Entries of the log between ``position`` and the newest end known."""

        async def look() -> int:
            return self._inner.lag

        return self._portal.call(look())

    ack = mirror(subscription_module.Subscription.ack)
    ack_through = mirror(subscription_module.Subscription.ack_through)
    wait_until = mirror(subscription_module.Subscription.wait_until)

    def close(self) -> None:
        """Store what was acknowledged, and let go. Idempotent."""
        self._portal.call(self._inner.close())
