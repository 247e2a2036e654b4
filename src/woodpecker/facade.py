"""What blocking facades are made of: methods, iterators and queues that wait for a loop in another thread."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from woodpecker.errors import Closed
from woodpecker.runtime.portal import Portal

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


class Facade(Protocol[A_co]):
    """What a mirrored method needs: the asynchronous object and the way to its loop."""

    @property
    def _inner(self) -> A_co: ...

    @property
    def _portal(self) -> Portal: ...


def mirror(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]:
    """The blocking form of a method whose result needs no wrapping."""

    def call(self: Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method(self._inner, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class Handle:
    """A handle that is left by ``with``."""

    def close(self) -> None:
        """Let go of what is held; every handle has its own."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Walk(Handle, Iterator[T]):
    """An asynchronous iterator, walked through by one thread at a time.

    Leaving the loop and dropping it, ``close`` or ``with`` release everything.
    """

    def __init__(self, inner: AsyncIterator[T], portal: Portal) -> None:
        self._inner = inner
        self._portal = portal
        self._is_closed = False
        self._close = weakref.finalize(self, _drop, inner, portal)
        self._close.atexit = False

    def __next__(self) -> T:
        if self._is_closed:
            raise Closed("this reader is closed: open a new one")
        try:
            return self._portal.call(next_of(self._inner))
        except Over:
            raise StopIteration from None
        except (KeyboardInterrupt, SystemExit):
            self._is_closed = True  # cancelled in the middle: it must not look like an end
            raise

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._is_closed = True
        if self._close.detach():
            with suppress(Closed):
                self._portal.call(_aclose(self._inner))


class Over(Exception):
    """The iterator is at its end."""


async def next_of(items: AsyncIterator[T]) -> T:
    """The next item. Raises: Over."""
    try:
        return await anext(items)
    except StopAsyncIteration:
        raise Over from None


async def _aclose(items: AsyncIterator[Any]) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(items, "aclose", None)
    if close is not None:
        await close()


def _drop(items: AsyncIterator[Any], portal: Portal) -> None:
    """A reader nobody holds any more: close it without waiting, whatever thread this is."""
    with suppress(Closed):
        portal.post(lambda: asyncio.ensure_future(_aclose(items)))  # noqa: TID251  nobody waits for it


class Inbox:
    """Calls of ``submit`` on their way into the loop; one wake-up serves many."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._calls: deque[Callable[[], None]] = deque()
        self._is_awake = False

    def put(self, submit: Callable[[], asyncio.Future[T]]) -> Future[T]:
        """Have ``submit`` called in the loop, first in, first out. The future gets its result or error."""
        result: Future[T] = Future()

        def start() -> None:
            try:
                inner = submit()
            except Exception as error:  # noqa: BLE001  it belongs to whoever waits for the future
                result.set_exception(error)
                return
            inner.add_done_callback(functools.partial(_pass_on, result))

        result.set_running_or_notify_cancel()  # it cannot be taken back
        self._calls.append(start)
        if not self._is_awake:
            self._is_awake = True  # before posting: the loop may be done with it at once
            try:
                self._portal.post(self._take_in)
            except BaseException:
                self._is_awake = False
                raise
        return result

    def _take_in(self) -> None:
        self._is_awake = False  # before looking: what comes now wakes again
        while self._calls:
            self._calls.popleft()()


def _pass_on(result: Future[T], inner: asyncio.Future[T]) -> None:
    if inner.cancelled():
        result.set_exception(Closed("the client was closed while this was on its way"))
    elif error := inner.exception():
        result.set_exception(error)
    else:
        result.set_result(inner.result())
