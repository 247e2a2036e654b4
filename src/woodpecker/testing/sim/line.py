"""The way of requests from one process to one server, and everything that can befall them on it.

A request takes time there and back. Its effect is the world's doing: it happens (or not) whether or not
the caller still waits, lives or runs. ``Server`` is what several lines lead to.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from woodpecker.errors import AlreadyExists, OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.testing.sim.loop import Process, SimLoop
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.weather import Fault, Weather

T = TypeVar("T")
SLOW_MS = (500.0, 15_000.0)


class Ambush(Protocol):
    """Waits for a request and strikes; see ``nemesis.py``."""

    def before(self, process: Process, what: str) -> None:
        """The process is about to send."""

    def after(self, process: Process, what: str) -> None:
        """The request has been carried out, the answer is not yet on its way."""


@dataclass(slots=True, kw_only=True)
class Server:
    """A store, seen from the network.

    Attributes:
        trouble: what befalls every request now: REFUSING, SILENT or MUTE. cut_off: processes that
            cannot reach it, by name, and in which of these ways. under_way: effects still to come.
        seen: requests carried out, by what they were.
    """

    name: str
    loop: SimLoop
    injected: Counter[Fault]
    trace: Trace | None = None
    ambush: Ambush | None = None
    trouble: Fault | None = None
    cut_off: dict[str, Fault] = field(default_factory=dict)
    under_way: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def heal(self) -> None:
        """Reachable for everybody, and nothing lies in wait any more."""
        self.trouble, self.ambush = None, None
        self.cut_off.clear()


@dataclass(slots=True, kw_only=True)
class Request:
    """One request on its way. ``what`` it is goes into counts ("create mark"), ``text`` into traces."""

    what: str
    text: str
    effect: Callable[[], Any]
    is_write: bool
    answer: asyncio.Future[Any]
    fault: Fault | None = None

    def unclear(self) -> WoodpeckerError:
        """What to tell when nothing is known of its outcome."""
        if self.is_write:
            return OutcomeUnknown(f"{self.text}: no answer ({self.fault})")
        return Unavailable(f"{self.text}: no answer ({self.fault})")


class Line:
    """One process's connection to ``server``."""

    def __init__(
        self, server: Server, process: Process, weather: Weather, rng: random.Random
    ) -> None:
        self.server = server
        self.process = process
        self.weather = weather
        self._loop = server.loop
        self.rng = rng
        self._out = f"{process.name} -> {server.name}"
        self._back = f"{server.name} -> {process.name}"

    async def ask(
        self,
        what: str,
        text: str,
        effect: Callable[[], T],
        *,
        possible: Sequence[Fault],
        is_write: bool,
    ) -> T:
        """Send a request; ``effect`` carries it out at the server.

        Raises: what ``effect`` raises; Unavailable, OutcomeUnknown.
        Cancellation: the request goes on its way all the same.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        request = Request(what=what, text=text, effect=effect, is_write=is_write, answer=answer)
        ambush = self.server.ambush
        if ambush is not None:
            ambush.before(self.process, what)
            if self.process.is_stopped:
                await asyncio.sleep(0)  # until it is woken
        if not self.process.is_dead:
            request.fault = self._fault(possible)
            if request.fault is not None:
                self.server.injected[request.fault] += 1
            if self.server.trace is not None:
                fate = "" if request.fault is None else f"   ({request.fault})"
                self.server.trace.say(self._out, f"{text}{fate}")
            self._send(request)
        return await answer

    def _fault(self, possible: Sequence[Fault]) -> Fault | None:
        server = self.server
        if server.cut_off:
            cut = server.cut_off.get(self.process.name)
            if cut is not None:
                return cut
        return server.trouble or self.weather.draw(self.rng, possible)

    def _send(self, request: Request) -> None:
        """Plan what happens when."""
        weather, rng = self.weather, self.rng
        there, back = weather.delay_ms(rng), weather.delay_ms(rng)
        match request.fault:
            case None:
                self._arrive_in(there, request, back)
            case Fault.SLOW:
                slow = rng.uniform(*SLOW_MS)
                self._arrive_in(there + slow * rng.choice((0, 1)), request, back + slow)
            case Fault.REFUSED | Fault.REFUSING | Fault.READ_FAILED:
                self._loop.at_ms(
                    there, self._fail, request, Unavailable(f"{request.text}: refused")
                )
            case Fault.REQUEST_LOST | Fault.SILENT:
                self._loop.at_ms(weather.timeout_ms, self._fail, request, request.unclear())
            case Fault.ERROR_BEFORE:
                self._loop.at_ms(there + back, self._fail, request, request.unclear())
            case Fault.REPLY_LOST | Fault.MUTE:
                self._arrive_in(there, request, None)
                self._loop.at_ms(weather.timeout_ms, self._fail, request, request.unclear())
            case Fault.ERROR_AFTER:
                self._arrive_in(there, request, None)
                self._loop.at_ms(there + back, self._fail, request, request.unclear())
            case Fault.LATE:
                self._loop.at_ms(weather.timeout_ms, self._fail, request, request.unclear())
                late = weather.timeout_ms + rng.random() * weather.late_ms
                self._arrive_in(late, request, None)
            case Fault.REPEATED:
                self._arrive_in(there, request, back)
            case _:
                raise AssertionError(f"{request.fault} is no fault of a request")

    def _arrive_in(self, delay_ms: float, request: Request, back_ms: float | None) -> None:
        self.server.under_way += 1
        self._loop.at_ms(delay_ms, self._arrive, request, back_ms)

    def _arrive(self, request: Request, back_ms: float | None) -> None:
        """At the server. ``back_ms`` None: nobody hears of it."""
        server = self.server
        server.under_way -= 1
        outcome: tuple[Any, Exception | None]
        try:
            outcome = request.effect(), None
            server.seen[request.what] += 1
        except WoodpeckerError as error:
            outcome = None, error
            server.seen[f"{request.what}: {error.code}"] += 1
        if request.fault is Fault.REPEATED and outcome[1] is None:
            outcome = None, AlreadyExists(f"{request.text}: there already")
        if server.trace is not None and (request.fault is not None or outcome[1] is not None):
            told = "done" if outcome[1] is None else outcome[1].code
            server.trace.say(server.name, f"{request.text}: {told}")
        if server.ambush is not None:
            server.ambush.after(self.process, request.what)
        if back_ms is not None:
            self._loop.at_ms(back_ms, self._deliver, request, *outcome)

    def _deliver(self, request: Request, value: Any, error: Exception | None) -> None:
        if error is not None:
            self._fail(request, error)
        elif not request.answer.done() and not self.process.is_dead:
            if self.server.trace is not None:
                self.server.trace.say(self._back, f"{request.text}: ok")
            request.answer.set_result(value)

    def _fail(self, request: Request, error: Exception) -> None:
        if request.answer.done() or self.process.is_dead:
            return
        if self.server.trace is not None:
            self.server.trace.say(self._back, f"{request.text}: {type(error).__name__}")
        request.answer.set_exception(error)


def now(work: Awaitable[T]) -> T:
    """The result of a coroutine that never waits: stores in memory answer at once."""
    steps = work.__await__()
    try:
        next(steps)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits")
