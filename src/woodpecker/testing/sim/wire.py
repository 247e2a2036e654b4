"""What the simulator does between a client and a node: it listens for the trace, and lies in ambush."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

from woodpecker.codec.compression import Buffer
from woodpecker.codec.messages import Message, Reply, Request, Welcome
from woodpecker.errors import WoodpeckerError
from woodpecker.rpc.base import Answer, Handler, Link, Responder, Told, Transport
from woodpecker.rpc.calls import waiting
from woodpecker.testing.sim.trace import Trace

TOLD = ("number", "first", "seq", "limit", "end", "lac", "epoch", "tip", "complete", "sizes",
        "last", "visible", "is_fenced", "verdict", "code", "text", "key", "name")  # fmt: skip


def as_text(message: Message) -> str:
    """A message in one line."""
    target = getattr(message, "target", None)
    place = "" if target is None else f" {target.log_id[:4]} {target.segment_id}"
    facts = [f"{name}={getattr(message, name)}" for name in TOLD if hasattr(message, name)]
    return f"{type(message).__name__}{place} {' '.join(facts)}"


class WatchedHandler:
    """A node's handler: counts requests, and springs the trap that was laid for one.

    Args:
        strike: told the kind of each request, "before" it is served and "after"; may kill the node.
    """

    def __init__(
        self, node: Handler, seen: Counter[str], strike: Callable[[str, str], None]
    ) -> None:
        self._node = node
        self._seen = seen
        self._strike = strike

    def welcome(self) -> Welcome:
        """As the node says."""
        return self._node.welcome()

    def allocate(self, size_bytes: int) -> memoryview | None:
        """As the node does."""
        return self._node.allocate(size_bytes)

    def handle(self, request: Request, payload: memoryview, responder: Responder) -> None:
        """Perhaps serve it."""
        kind = type(request).__name__
        self._seen[f"message {kind}"] += 1
        self._strike(kind, "before")
        self._node.handle(request, payload, Watched(responder, self._seen))
        self._strike(kind, "after")


class Watched:
    """A responder that counts what is refused, and why."""

    def __init__(self, responder: Responder, seen: Counter[str]) -> None:
        self._responder = responder
        self._seen = seen

    def reply(self, message: Reply, payload: Buffer | list[Buffer] = b"") -> None:
        """Pass it on."""
        verdict = getattr(message, "verdict", None)
        if verdict is not None:
            self._seen[f"answer {verdict}"] += 1
        self._responder.reply(message, payload)


class TracedTransport:
    """A transport whose links tell the trace what goes over them."""

    def __init__(self, inner: Transport, name: str, trace: Trace) -> None:
        self._inner = inner
        self._name = name
        self._trace = trace

    async def connect(self, address: str, *, timeout_ms: int) -> Link:
        """Connect."""
        way = f"{self._name} -> {address}"
        try:
            link = await self._inner.connect(address, timeout_ms=timeout_ms)
        except Exception as error:
            self._trace.say(way, f"connect: {error}")
            raise
        self._trace.say(way, "connect: ok")
        return TracedLink(link, self._name, address, self._trace)

    async def close(self) -> None:
        """Close all links."""
        await self._inner.close()


class TracedLink:
    """See ``TracedTransport``."""

    def __init__(self, link: Link, name: str, address: str, trace: Trace) -> None:
        self._link = link
        self._way, self._back = f"{name} -> {address}", f"{address} -> {name}"
        self._trace = trace
        self.welcome = link.welcome

    def send(
        self, request: Request, payload: Buffer = b"", *, timeout_ms: int
    ) -> asyncio.Future[Answer]:
        """Send, and tell."""
        future, resolve = waiting()
        self.call(request, payload, timeout_ms=timeout_ms, told=resolve)
        return future

    def call(self, request: Request, payload: Buffer = b"", *, timeout_ms: int, told: Told) -> None:
        """Send, and tell."""
        text = as_text(request)
        self._trace.say(self._way, text + (f" ({len(payload)} B)" if len(payload) else ""))
        what = partial(self._answered, text.partition(" ")[0], told)
        self._link.call(request, payload, timeout_ms=timeout_ms, told=what)

    def _answered(self, kind: str, told: Told, outcome: Answer | WoodpeckerError) -> None:
        text = as_text(outcome.message) if isinstance(outcome, Answer) else str(outcome)
        self._trace.say(self._back, f"{kind}: {text}")
        told(outcome)

    def post(self, request: Request) -> None:
        """Send, and tell."""
        self._trace.say(self._way, as_text(request))
        self._link.post(request)

    @property
    def unsent_bytes(self) -> int:
        """As the link says."""
        return self._link.unsent_bytes

    @property
    def is_open(self) -> bool:
        """As the link says."""
        return self._link.is_open

    async def wait_closed(self) -> None:
        """Until it is."""
        await self._link.wait_closed()

    async def close(self) -> None:
        """Close it."""
        await self._link.close()
