"""Requests under way on one link: their numbers, their futures, and one timer for all their time-outs."""

from __future__ import annotations

import asyncio
import heapq
from typing import NamedTuple

from woodpecker.codec.messages import Request
from woodpecker.errors import Unavailable
from woodpecker.rpc.base import Answer

COARSE_MS, FINE_MS = 100, 5  # time-outs are rounded up to these, so that many share one moment
FINE_BELOW_MS = 1_000


class _Call(NamedTuple):
    future: asyncio.Future[Answer]
    request: type[Request]
    timeout_ms: int
    ending: dict[int, None]  # the numbers of all calls that end at the same moment


class Calls:
    """See the module. One event loop.

    Attributes:
        peer: whom the requests go to, for people.
    """

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Call] = {}
        self._last = 0
        self._moments: dict[int, dict[int, None]] = {}  # in ms of the loop's clock
        self._order: list[int] = []  # a heap of these moments
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, request: Request, timeout_ms: int) -> tuple[int, asyncio.Future[Answer]]:
        """A number for the request, and a future that fails with Unavailable after ``timeout_ms``."""
        self._last += 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        ending = self._ending(timeout_ms)
        ending[self._last] = None
        self._waiting[self._last] = _Call(future, type(request), timeout_ms, ending)
        return self._last, future

    def answered(self, number: int, answer: Answer) -> None:
        """The reply to request ``number`` is there; too late is as good as never."""
        call = self._waiting.pop(number, None)
        if call is None:
            return
        del call.ending[number]
        if not call.future.done():
            call.future.set_result(answer)

    def fail(self, why: str) -> None:
        """Nothing will be answered any more. ``why`` says what happened to the link."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        self._moments.clear()
        self._order.clear()
        for call in waiting.values():
            _fail(call.future, why)

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
            _fail(
                call.future,
                f"{self.peer} did not answer within {call.timeout_ms} ms ({what}); whether it was "
                "done is not known",
            )
        self._set_timer()


def _fail(future: asyncio.Future[Answer], why: str) -> None:
    if not future.done():
        future.set_exception(Unavailable(why))
        future.exception()  # whoever does not wait for it any more need not complain
