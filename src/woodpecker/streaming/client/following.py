"""Keeping one stream open to whoever owns a pchannel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.routing import Route
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.frames import MapEntry, Moved
from woodpecker.streaming.ports import Endpoint, Stream

HELLO_MS = 10_000

Out = TypeVar("Out")
In = TypeVar("In")


async def follow_owner(
    env: Environment,
    route: Route,
    dial: Callable[[Endpoint], Stream[Out, In]],
    talk: Callable[[Stream[Out, In], MapEntry], Awaitable[None]],
) -> None:
    """Open a stream to the owner, ``talk`` until it ends, and go to the next owner, for ever.

    A stream is cut as soon as the map names a newer owner that serves.
    """
    while True:
        entry = await route.next()
        await _visit(env, route, dial(env.dialer.endpoint(entry.address)), entry, talk)


async def _visit(
    env: Environment,
    route: Route,
    stream: Stream[Out, In],
    entry: MapEntry,
    talk: Callable[[Stream[Out, In], MapEntry], Awaitable[None]],
) -> None:
    def on_map() -> None:
        if route.is_stale(entry):
            stream.cut()

    watching = env.routing.watch(on_map)
    try:
        await talk(stream, entry)
        refusal = moved(entry)
    except Refused as error:
        refusal = error.refusal
    finally:
        env.routing.unwatch(watching)
        stream.cut()
    route.failed(entry, refusal)


async def greet(stream: Stream[Out, In], hello: Out, entry: MapEntry) -> In:
    """Say hello, and get the first answer. Raises: Refused: the owner does not serve it."""
    try:
        async with asyncio.timeout(HELLO_MS / 1000):
            await stream.send(hello)
            answer = await stream.receive()
    except TimeoutError:
        text = f"{entry.address} does not answer for {entry.pchannel}"
        raise Refused(Refusal(kind=Class.UNKNOWN, message=text)) from None
    if answer is None or isinstance(answer, Moved):
        raise Refused(moved(entry))
    return answer


def moved(entry: MapEntry) -> Refusal:
    """The owner has ended a stream in good order."""
    text = f"{entry.address} serves {entry.pchannel} no longer"
    return Refusal(kind=Class.MOVED, message=text)
