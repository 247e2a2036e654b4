"""A client's connection to one node: the hello, then requests and their answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import get_args

from woodpecker.codec.compression import Buffer
from woodpecker.codec.frames import (
    MAX_META_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    encode,
    own_bytes,
)
from woodpecker.codec.messages import Challenge, Hello, Ping, Refused, Reply, Request, Welcome
from woodpecker.errors import Corrupt, InvalidRequest, Unavailable, WoodpeckerError
from woodpecker.rpc import hello
from woodpecker.rpc.base import Answer, Told
from woodpecker.rpc.calls import Calls, waiting
from woodpecker.rpc.settings import WireSettings
from woodpecker.rpc.tcp_stream import Stream

_REPLIES = frozenset(get_args(Reply)) - {Challenge, Welcome}
_HELLO_ID = 1


class TcpLink:
    """``Link`` over TCP.

    Args:
        greet: makes the answer to the node's challenge; raises InvalidRequest.
        ended: called once, when it is broken or closed.
    Attributes:
        greeted: done when the hello is; fails with Unavailable or InvalidRequest.
    """

    welcome: Welcome

    def __init__(
        self,
        address: str,
        settings: WireSettings,
        scratch: memoryview,
        greet: Callable[[Challenge], Hello],
        check: Callable[[Welcome, Hello, Challenge], None],
        ended: Callable[[TcpLink], None],
    ) -> None:
        self.stream = Stream(self, settings, own_bytes, scratch)
        self.stream.parser.max_meta_bytes = hello.MAX_HELLO_BYTES
        self.stream.parser.max_payload_bytes = 0
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._address = address
        self._peer = f"node at {address}"
        self._greet = greet
        self._check = check
        self._ended = ended
        self._calls = Calls(self._peer)
        self.is_open = True  # not part of the hello: nobody has the link before its end
        self._closed = asyncio.Event()
        self._asked: Challenge | None = None
        self._said: Hello | None = None
        self._why_closed = "the link is closed"
        self._is_greeted = False
        self._max_payload_bytes = MAX_PAYLOAD_BYTES

    # --- Link ---

    def send(
        self, request: Request, payload: Buffer = b"", *, timeout_ms: int
    ) -> asyncio.Future[Answer]:
        future, told = waiting()
        self.call(request, payload, timeout_ms=timeout_ms, told=told)
        return future

    def call(self, request: Request, payload: Buffer = b"", *, timeout_ms: int, told: Told) -> None:
        if not self.is_open:
            self._calls.refuse(told, Unavailable(f"{self._peer}: {self._why_closed}"))
            return
        size = len(payload)
        try:
            if size > self._max_payload_bytes:
                most = self._max_payload_bytes
                raise InvalidRequest(
                    f"{self._peer} takes blocks of at most {most} bytes, not {size}"
                )
            head = encode(request, self._calls.next_number, size)
        except InvalidRequest as error:
            self._calls.refuse(told, error)
            return
        self._calls.begin(request, timeout_ms, told)
        self.stream.send(head, (payload,) if size else ())

    def post(self, request: Request) -> None:
        if self.is_open:
            self.stream.send(encode(request))

    @property
    def unsent_bytes(self) -> int:
        return self.stream.unsent_bytes

    async def wait_closed(self) -> None:
        await self._closed.wait()

    async def close(self) -> None:
        self.stream.close("the link was closed")
        await self._closed.wait()

    def give_up(self) -> None:
        """The hello did not come to its end: nobody waits for it any more."""
        self.greeted.cancel()
        self.stream.abort("given up")

    # --- Owner of the stream ---

    def connected(self) -> None:
        """The node speaks first."""

    def took(self, frame: Frame) -> None:
        """A reply, or a part of the hello."""
        message = frame.message
        if type(message) is Ping:
            return
        if not self._is_greeted:
            self._took_greeting(frame)
        elif type(message) in _REPLIES:
            self._calls.answered(frame.request_id, Answer(message, frame.payload))  # type: ignore[arg-type]
        else:
            raise Corrupt(f"a {type(message).__name__} from a node", where="wire")

    def drained(self) -> None:
        """Nobody waits for it: ``unsent_bytes`` tells."""

    def broken(self, why: str, error: Exception | None) -> None:
        """All that was under way fails."""
        self._why_closed = why
        self.is_open = False
        self._closed.set()
        self._calls.fail(f"{self._peer}: {why}; what was under way may have been done")
        if not self.greeted.done():
            self.greeted.set_exception(_refusal(self._peer, why, error))
        self._ended(self)

    # --- the hello ---

    def _took_greeting(self, frame: Frame) -> None:
        match frame.message:
            case Challenge() if self._asked is None:
                self._answer_challenge(frame.message)
            case Welcome() if self._asked is not None and self._said is not None:
                self._welcomed(frame.message)
            case Refused(code=code, text=text):
                kind = InvalidRequest if code == InvalidRequest.code else Unavailable
                self._refuse(kind(f"{self._peer} refuses this client: {text}"))
            case other:
                raise Corrupt(f"a {type(other).__name__} in the hello", where="wire")

    def _answer_challenge(self, asked: Challenge) -> None:
        try:
            self._asked, self._said = asked, self._greet(asked)
        except InvalidRequest as error:
            self._refuse(InvalidRequest(f"{self._peer}: {error}"))
        else:
            self.stream.send(encode(self._said, _HELLO_ID))

    def _welcomed(self, told: Welcome) -> None:
        assert self._asked is not None and self._said is not None
        try:
            self._check(told, self._said, self._asked)
        except InvalidRequest as error:
            self._refuse(InvalidRequest(f"{self._peer}: {error}"))
            return
        self.welcome = told
        self._max_payload_bytes = told.max_payload_bytes or MAX_PAYLOAD_BYTES
        self._peer = self._calls.peer = f"node {told.node} at {self._address}"
        self.stream.parser.max_meta_bytes = MAX_META_BYTES
        self.stream.parser.max_payload_bytes = MAX_PAYLOAD_BYTES
        self._is_greeted = True
        if not self.greeted.done():
            self.greeted.set_result(None)

    def _refuse(self, error: WoodpeckerError) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(error)
        self.stream.abort(str(error))


def _refusal(peer: str, why: str, error: Exception | None) -> WoodpeckerError:
    """Why there was no hello."""
    if isinstance(error, Corrupt | InvalidRequest):
        return InvalidRequest(f"{peer} is no LogStore node: {why}")
    if isinstance(error, ssl.SSLError):
        return InvalidRequest(f"{peer}: TLS failed: {error}")
    return Unavailable(f"{peer}: {why}, in the hello")
