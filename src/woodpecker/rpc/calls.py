"""Requests under way on one link: their numbers, who waits, and one timer for all their time-outs."""

from __future__ import annotations

import asyncio
import heapq
from functools import partial
from typing import NamedTuple

from woodpecker.codec.messages import Request
from woodpecker.errors import Unavailable, WoodpeckerError
from woodpecker.rpc.base import Answer, Told

COARSE_MS, FINE_MS = 100, 5  # time-outs are rounded up to these, so that many share one moment
FINE_BELOW_MS = 1_000


class _Call(NamedTuple):
    told: Told
    request: type[Request]
    timeout_ms: int
    ending: dict[int, None]  # the numbers of all calls that end at the same moment


class Calls:
    """See the module. One event loop.

    Attributes:
        peer: whom the requests go to, for people.
        next_number: of the request that is begun next.
    """

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Call] = {}
        self.next_number = 1
        self._moments: dict[int, dict[int, None]] = {}  # in ms of the loop's clock
        self._order: list[int] = []  # a heap of these moments
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, request: Request, timeout_ms: int, told: Told) -> int:
        """A number for the request; ``told`` hears of the answer, or Unavailable after ``timeout_ms``."""
        number = self.next_number
        self.next_number = number + 1
        ending = self._ending(timeout_ms)
        ending[number] = None
        self._waiting[number] = _Call(told, type(request), timeout_ms, ending)
        return number

    def answered(self, number: int, answer: Answer) -> None:
        """The reply to request ``number`` is there; too late is as good as never."""
        call = self._waiting.pop(number, None)
        if call is None:
            return
        del call.ending[number]
        self._tell(call.told, answer)

    def refuse(self, told: Told, error: WoodpeckerError) -> None:
        """The request cannot even be sent: whoever made it is told soon."""
        self._loop.call_soon(told, error)

    def fail(self, why: str) -> None:
        """Nothing will be answered any more. ``why`` says what happened to the link."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        self._moments.clear()
        self._order.clear()
        for call in waiting.values():
            self._tell(call.told, Unavailable(why))

    def _tell(self, told: Told, outcome: Answer | WoodpeckerError) -> None:
        try:
            told(outcome)
        except Exception as bug:  # noqa: BLE001  of one request: the others go on
            self._loop.call_exception_handler(
                {"message": "who was told of an answer raised", "exception": bug}
            )

    def _ending(self, timeout_ms: int) -> dict[int, None]:
        step = FINE_MS if timeout_ms < FINE_BELOW_MS else COARSE_MS
        moment = (int(self._loop.time() * 1000) + timeout_ms) // step * step + step
        ending = self._moments.get(moment)
        if ending is None:
            ending = self._moments[moment] = {}
            heapq.heappush(self._order, moment)
            if self._order[0] == moment:
                self._set_timer()
        return ending

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._order:
            self._timer = self._loop.call_at(self._order[0] / 1000, self._expire)

    def _expire(self) -> None:
        """The first moment has come."""
        for number in self._moments.pop(heapq.heappop(self._order)):
            call = self._waiting.pop(number)
            what = str(call.request.__struct_config__.tag)
            why = (
                f"{self.peer} did not answer within {call.timeout_ms} ms ({what}); whether it was "
                "done is not known"
            )
            self._tell(call.told, Unavailable(why))
        self._set_timer()


def waiting() -> tuple[asyncio.Future[Answer], Told]:
    """A future, and what resolves it when told."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return future, partial(_resolve, future)


def _resolve(future: asyncio.Future[Answer], outcome: Answer | WoodpeckerError) -> None:
    if future.done():
        return  # whoever it was does not wait any more
    if isinstance(outcome, Answer):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
        future.exception()  # whoever does not wait for it any more need not complain
