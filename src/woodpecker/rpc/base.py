"""Port: how clients and LogStore nodes talk. Adapters: ``tcp.py`` (network), ``memory.py`` (one process).

Many requests are under way on one link; replies come in any order, each to its request. Requests of one
link arrive in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from woodpecker.codec.compression import Buffer
from woodpecker.codec.messages import Reply, Request, Welcome
from woodpecker.errors import WoodpeckerError


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply and the bytes that came with it; the bytes are the receiver's own."""

    message: Reply
    payload: Buffer = b""


Told = Callable[[Answer | WoodpeckerError], None]
"""Told what became of a request: the answer, or why there is none. Must not raise."""


class Link(Protocol):
    """A connection to one node, past the hello. All calls from the loop's thread."""

    welcome: Welcome

    def send(
        self, request: Request, payload: Buffer = b"", *, timeout_ms: int
    ) -> asyncio.Future[Answer]:
        """Send a request at once, without a copy of ``payload`` where the socket takes it.

        ``payload`` must not change until the future is done. The future fails with Unavailable when the
        link breaks or ``timeout_ms`` pass; the request may have taken effect. Cancelling the future only
        stops waiting. ``Refused`` is an answer like any other.
        """

    def call(self, request: Request, payload: Buffer = b"", *, timeout_ms: int, told: Told) -> None:
        """As ``send``, without a future: ``told`` hears of it once, and not before this call returns.

        It is called where the answer is received, so that no turn of the loop lies between.
        """

    def post(self, request: Request) -> None:
        """Send a request that has no reply (Advance). Never raises: a broken link loses it."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes handed over that the network has not taken yet."""

    @property
    def is_open(self) -> bool:
        """False once the link is broken or closed."""

    async def wait_closed(self) -> None:
        """Return when the link is broken or closed."""

    async def close(self) -> None:
        """Close; requests under way fail with Unavailable."""


class Transport(Protocol):
    """Makes links."""

    async def connect(self, address: str, *, timeout_ms: int) -> Link:
        """Connect to ``host:port`` and shake hands.

        Raises: Unavailable: nobody there, or not in time. InvalidRequest: not a LogStore node, no common
        version, credentials refused.
        """

    async def close(self) -> None:
        """Close all links made."""


class Responder(Protocol):
    """What a served node gets to answer one request."""

    def reply(self, message: Reply, payload: Buffer | list[Buffer] = b"") -> None:
        """Answer, from the loop's thread, once. Replies of one turn of the loop leave together."""


class Handler(Protocol):
    """What serves requests: the node."""

    def welcome(self) -> Welcome:
        """Who it is, for the hello (proof and limits are the transport's)."""

    def handle(self, request: Request, payload: memoryview, responder: Responder) -> None:
        """Begin to serve one request; must not block. ``payload`` is the handler's own to keep.

        For ``Append`` and ``Repair`` the payload lies in a buffer from ``allocate``.
        """

    def allocate(self, size_bytes: int) -> memoryview | None:
        """A buffer to receive the payload of an Append or Repair into; None: the transport's own."""


class Server(Protocol):
    """A served handler."""

    @property
    def address(self) -> str:
        """``host:port`` it really listens on."""

    async def close(self) -> None:
        """Stop listening, close all connections."""
