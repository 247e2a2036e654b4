"""Unary requests, to a pchannel's owner or to the coordinator, until they are answered or time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from woodpecker.errors import Closed, OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.failures import HANDLED, as_error
from woodpecker.streaming.client.routing import Route, pause_ms
from woodpecker.streaming.core.assignment_map import EMPTY_MAP
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.requests import Request

# For who has reached nobody of the service yet.
ADVICE = (
    "; does `woodpecker up` or a coordinator run at that address? One with TLS needs WOODPECKER_TLS_CA "
    "(tls_ca=), one without TLS takes none"
)

Reply = TypeVar("Reply")


async def ask_owner(
    env: Environment, pchannel: str, request: Request[Reply], what: str, *, changes: bool = False
) -> Reply:
    """Ask whoever owns ``pchannel``. ``changes``: doing it twice is no harm, but it does something.

    Raises: what ``failures.as_error`` makes of refusals; Unavailable, OutcomeUnknown: no answer in time.
    """
    route = Route(env.routing, env.runtime, pchannel)
    question = _Question(env, request, what, changes=changes)

    async def once() -> Reply:
        entry = await route.next()
        try:
            return await question.put(entry.address)
        except Refused as error:
            route.failed(entry, error.refusal)
            raise

    return await question.until_answered(once)


async def ask_coordinator(
    env: Environment, request: Request[Reply], what: str, *, changes: bool = False
) -> Reply:
    """Ask the coordinator, through any address. Else as ``ask_owner``."""
    routing = env.routing
    question = _Question(env, request, what, changes=changes)
    attempt = 0

    async def once() -> Reply:
        nonlocal attempt
        met = Refusal(kind=Class.UNAVAILABLE, message="no address is known")
        refused: dict[str, Refusal] = {}
        leader = ""
        for address in list(routing.candidates()):
            try:
                reply = await question.put(address)
            except Refused as error:
                met = refused[address] = error.refusal
                if met.kind not in HANDLED:
                    raise
                leader = met.address
                met = refused.get(leader, met)  # who leads was asked: what it said tells more
                routing.trouble = met.message
                if leader:
                    break
            else:
                routing.trouble = ""
                routing.lead(address)
                return reply
        routing.lead(leader)
        attempt += 1
        await env.runtime.sleep_ms(max(pause_ms(attempt, env.runtime.random()), met.after_ms))
        raise Refused(met)

    return await question.until_answered(once)


class _Question(Generic[Reply]):
    """One request on its way to an answer, and whether it may have been done."""

    def __init__(
        self, env: Environment, request: Request[Reply], what: str, *, changes: bool
    ) -> None:
        self._env = env
        self._request = request
        self._what = what
        self._changes = changes
        self._is_unknown = False
        self._is_out = False

    async def put(self, address: str) -> Reply:
        """Ask there. Raises: Refused. Closed: the client is."""
        if self._env.routing.is_closed:
            raise Closed(f"{self._what}: this client is closed; connect again")
        self._is_out = True
        try:
            return await self._env.dialer.endpoint(address).call(self._request)
        except Refused as error:
            self._is_out = False
            self._is_unknown = self._is_unknown or error.refusal.kind is Class.UNKNOWN
            raise

    async def until_answered(self, once: Callable[[], Awaitable[Reply]]) -> Reply:
        """Call ``once`` until it gives the reply. Raises: as ``ask_owner``."""
        met: Refusal | None = None
        try:
            async with asyncio.timeout(self._env.timeout_ms / 1000):
                while True:
                    try:
                        return await once()
                    except Refused as error:
                        met = error.refusal
                        if met.kind not in HANDLED:
                            raise as_error(met, self._what) from None
        except TimeoutError:
            raise self._late(met) from None

    def _late(self, met: Refusal | None) -> WoodpeckerError:
        because = (self._env.routing.trouble or "nobody answered") if met is None else met.message
        seconds = self._env.timeout_ms / 1000
        text = f"{self._what}: not done within {seconds:g} s: {because}"
        is_away = met is None or met.kind is Class.UNAVAILABLE
        if is_away and self._env.routing.map is EMPTY_MAP:
            text += ADVICE
        if self._changes and (self._is_unknown or self._is_out):
            return OutcomeUnknown(text)
        return Unavailable(text)
