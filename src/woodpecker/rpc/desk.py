"""The served side of one connection: requests go to the handler, its replies back, errors as ``Refused``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import get_args

from woodpecker.codec.compression import Buffer
from woodpecker.codec.frames import Frame, encode
from woodpecker.codec.messages import (
    AnyMessage,
    Append,
    Done,
    Hello,
    Ping,
    Refused,
    Repair,
    Reply,
    Request,
)
from woodpecker.errors import Corrupt, InvalidRequest, WoodpeckerError
from woodpecker.rpc.base import Handler

REQUEST_COST_BYTES = 256  # what a request without payload weighs in flow control
_REQUESTS = frozenset(get_args(Request)) - {Hello}

Send = Callable[[bytes, Sequence[Buffer]], None]


class Load:
    """What several connections together have unanswered."""

    __slots__ = ("bytes",)

    def __init__(self) -> None:
        self.bytes = 0


class Desk:
    """Requests of one connection that the handler has and has not answered.

    Args:
        send: takes the frame of a reply and the parts of its payload.
        relieved: told that ``unanswered_bytes`` has become less.
        load: to which this connection adds its part.
    Attributes:
        unanswered_bytes: weight of what was taken and not answered, for flow control.
    """

    def __init__(
        self, handler: Handler, send: Send, relieved: Callable[[], None], load: Load
    ) -> None:
        self._handler = handler
        self._send = send
        self._relieved = relieved
        self._load = load
        self._is_closed = False
        self.unanswered_bytes = 0

    def allocate(self, message: AnyMessage, size_bytes: int) -> memoryview:
        """The place for a payload. Raises: Corrupt: this message carries none."""
        if not isinstance(message, Append | Repair):
            raise Corrupt(f"a {type(message).__name__} with a payload", where="wire")
        place = self._handler.allocate(size_bytes)
        return memoryview(bytearray(size_bytes)) if place is None else place

    def take(self, frame: Frame) -> None:
        """Hand one request to the handler. Raises: Corrupt: a client does not send this."""
        message, number, payload = frame
        if type(message) not in _REQUESTS:
            raise Corrupt(f"a {type(message).__name__} from a client", where="wire")
        if type(message) is Ping:
            self.send(Done(), number)
            return
        weight = REQUEST_COST_BYTES + len(payload) if number else 0
        self.unanswered_bytes += weight
        self._load.bytes += weight
        answer = DeskResponder(self, number, weight)
        try:
            self._handler.handle(message, payload, answer)  # type: ignore[arg-type]  # seen above
        except Exception as error:  # noqa: BLE001  whatever it is: this connection goes on
            self._failed(message, error, answer)

    def send(self, message: Reply, number: int, parts: Sequence[Buffer] = ()) -> None:
        """Send a reply to request ``number``; to 0 nobody listens."""
        if self._is_closed or not number:
            return
        try:
            head = encode(message, number, sum(map(len, parts)))
        except InvalidRequest as error:
            head, parts = encode(_refusal(error), number), ()
        self._send(head, parts)

    def answered(self, weight_bytes: int) -> None:
        """A request that weighed so much is answered."""
        if not self._is_closed:
            self.unanswered_bytes -= weight_bytes
            self._load.bytes -= weight_bytes
            self._relieved()

    def close(self) -> None:
        """The connection is gone: replies are dropped, and weigh nothing."""
        self._load.bytes -= self.unanswered_bytes
        self.unanswered_bytes = 0
        self._is_closed = True

    def _failed(self, message: AnyMessage, error: Exception, answer: DeskResponder) -> None:
        if not isinstance(error, WoodpeckerError):
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"a node could not serve {type(message).__name__}", "exception": error}
            )
        if not answer.is_done:
            answer.reply(_refusal(error))


class DeskResponder:
    """``Responder`` of one request."""

    __slots__ = ("_desk", "_number", "_weight", "is_done")

    def __init__(self, desk: Desk, number: int, weight: int) -> None:
        self._desk = desk
        self._number = number
        self._weight = weight
        self.is_done = False

    def reply(self, message: Reply, payload: Buffer | list[Buffer] = b"") -> None:
        """See ``Responder``."""
        assert not self.is_done, "a request is answered once"
        self.is_done = True
        if isinstance(payload, list):
            parts: Sequence[Buffer] = payload
        else:
            parts = (payload,) if len(payload) else ()
        self._desk.send(message, self._number, parts)
        self._desk.answered(self._weight)


def _refusal(error: Exception) -> Refused:
    if isinstance(error, WoodpeckerError):
        return Refused(code=error.code, text=str(error))
    return Refused(code="error", text=f"the node failed: {type(error).__name__}: {error}")
