"""Woodpecker without asyncio: the same calls, each waiting for its answer.

    with woodpecker.blocking.connect("file:///var/lib/wal") as client:
        log = client.create_log("orders", exist_ok=True)
        with log.open_writer() as writer:
            writer.append(b"paid")
        for entry in log.read(follow=True): ...

One event loop runs in one background thread per client; all handles of a client share it and may be
used by many threads. A ``KeyboardInterrupt`` while waiting cancels the call, as cancelling does there.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from woodpecker import app
from woodpecker.client import client as client_module
from woodpecker.client import cursor as cursor_module
from woodpecker.client import log as log_module
from woodpecker.client import objects as objects_module
from woodpecker.client import writer as writer_module
from woodpecker.client.batch import Batch
from woodpecker.client.entry import Entry, HeaderInput
from woodpecker.errors import Closed, WoodpeckerError
from woodpecker.observability.base import SILENT, Observer
from woodpecker.runtime.portal import Portal
from woodpecker.storage.url import OptionValue

__all__ = ["Batches", "Client", "Cursor", "Entries", "Log", "LogWriter", "connect"]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


class _Facade(Protocol[A_co]):
    """What a mirrored method needs: the asynchronous object and the way to its loop."""

    @property
    def _inner(self) -> A_co: ...

    @property
    def _portal(self) -> Portal: ...


def _mirror(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Facade[A], P], T]:
    """The blocking form of a method whose result needs no wrapping."""

    def call(self: _Facade[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(method(self._inner, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class _Handle:
    """A handle that is left by ``with``."""

    def close(self) -> None:
        """Let go of what is held; every handle has its own."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def connect(
    url: str | os.PathLike[str],
    *,
    metadata: str | None = None,
    buffer: str | None = None,
    read_only: bool = False,
    background: bool = True,
    observer: Observer = SILENT,
    secret: str | bytes | None = None,
    secret_file: str | os.PathLike[str] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    zone: str | None = None,
    **options: OptionValue,
) -> Client:
    """Connect to a store; use the result in ``with``. Arguments and errors: ``woodpecker.connect``."""
    return Client(
        app.connect(
            url,
            metadata=metadata,
            buffer=buffer,
            read_only=read_only,
            background=background,
            observer=observer,
            runtime=None,
            secret=secret,
            secret_file=secret_file,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            zone=zone,
            **options,
        )
    )


class Client:
    """A connection to one store, see ``woodpecker.Client``. Safe from many threads."""

    def __init__(self, inner: client_module.Client) -> None:
        self._inner = inner
        self._started: Portal | None = None
        self._lock = threading.Lock()

    @property
    def _portal(self) -> Portal:
        if self._started is None:
            raise Closed("this client is not open: use 'with woodpecker.blocking.connect(...)'")
        return self._started

    def open(self) -> Self:
        """Reach the store; called by ``with``. Idempotent."""
        with self._lock:
            if self._started is None:
                self._started = Portal()
        try:
            self._started.call(self._inner.open())
        except BaseException:
            self._started.close()
            raise
        return self

    def create_log(
        self,
        name: str,
        *,
        exist_ok: bool = False,
        attributes: dict[str, str] | None = None,
        **options: object,
    ) -> Log:
        """Create a log, see ``woodpecker.Client.create_log``."""
        work = self._inner.create_log(name, exist_ok=exist_ok, attributes=attributes, **options)
        return Log(self._portal.call(work), self._portal)

    def open_log(self, name: str) -> Log:
        """Open an existing log. Raises: NotFound, Unavailable."""
        return Log(self._portal.call(self._inner.open_log(name)), self._portal)

    log_exists = _mirror(client_module.Client.log_exists)
    list_logs = _mirror(client_module.Client.list_logs)
    delete_log = _mirror(client_module.Client.delete_log)
    import_log = _mirror(client_module.Client.import_log)
    run_background = _mirror(client_module.Client.run_background)

    def close(self) -> None:
        """Close the client, end its thread. Idempotent. Close writers before."""
        with self._lock:
            portal = self._started
        if portal is None:
            return
        try:
            with suppress(Closed):
                portal.call(self._inner.close())
        finally:
            portal.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()


class Cursor:
    """A durable place in a log, see ``woodpecker.Cursor``."""

    def __init__(self, inner: cursor_module.Cursor, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    @property
    def name(self) -> str:
        """Its name in the log."""
        return self._inner.name

    @property
    def position(self) -> int:
        """All below it are done; the next seq to read."""
        return self._inner.position

    @property
    def data(self) -> bytes:
        """Opaque bytes committed with the position."""
        return self._inner.data

    @property
    def generation(self) -> int:
        """How often the cursor was attached, as this handle knows it."""
        return self._inner.generation

    commit = _mirror(cursor_module.Cursor.commit)
    attach = _mirror(cursor_module.Cursor.attach)
    refresh = _mirror(cursor_module.Cursor.refresh)
    delete = _mirror(cursor_module.Cursor.delete)


class LogObjects:
    """Objects of a layer above, see ``woodpecker.Log.objects``."""

    def __init__(self, inner: objects_module.LogObjects, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    put = _mirror(objects_module.LogObjects.put)
    get = _mirror(objects_module.LogObjects.get)
    list = _mirror(objects_module.LogObjects.list)
    delete = _mirror(objects_module.LogObjects.delete)


Start = int | str | datetime | Cursor
End = int | str | datetime | None


class Log:
    """A log of a store, see ``woodpecker.Log``."""

    def __init__(self, inner: log_module.Log, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def name(self) -> str:
        """Its name."""
        return self._inner.name

    @property
    def log_id(self) -> str:
        """Identity of this incarnation of the name."""
        return self._inner.log_id

    @property
    def objects(self) -> LogObjects:
        """Objects of a layer above that live and are deleted with the log."""
        return LogObjects(self._inner.objects, self._portal)

    def open_writer(
        self, *, producer: str | None = None, claim: tuple[int, str] | None = None
    ) -> LogWriter:
        """Take the log over and return its one writer, see ``woodpecker.Log.open_writer``."""
        work = self._inner.open_writer(producer=producer, claim=claim)
        return LogWriter(self._portal.call(work), self._portal)

    def read(self, start: Start = "earliest", end: End = None, *, follow: bool = False) -> Entries:
        """Iterate over entries, see ``woodpecker.Log.read``."""
        return Entries(self.read_batches(start, end, follow=follow))

    def read_batches(
        self, start: Start = "earliest", end: End = None, *, follow: bool = False
    ) -> Batches:
        """Iterate over batches, see ``woodpecker.Log.read_batches``."""
        place = start.position if isinstance(start, Cursor) else start
        return Batches(self._inner.read_batches(place, end, follow=follow), self._portal)

    def cursor(self, name: str, *, start: int | str = "earliest", create: bool = True) -> Cursor:
        """Open the durable cursor ``name``, see ``woodpecker.Log.cursor``."""
        opened = self._portal.call(self._inner.cursor(name, start=start, create=create))
        return Cursor(opened, self._portal)

    def cursors(self) -> list[Cursor]:
        """All cursors of the log, by name."""
        return [Cursor(found, self._portal) for found in self._portal.call(self._inner.cursors())]

    def alter(
        self,
        *,
        storage: str | None = None,
        attributes: dict[str, str] | None = None,
        **options: object,
    ) -> None:
        """Change options from the next segment on, see ``woodpecker.Log.alter``."""
        self._portal.call(self._inner.alter(storage=storage, attributes=attributes, **options))

    end = _mirror(log_module.Log.end)
    earliest = _mirror(log_module.Log.earliest)
    tail = _mirror(log_module.Log.tail)
    trim = _mirror(log_module.Log.trim)
    describe = _mirror(log_module.Log.describe)
    verify = _mirror(log_module.Log.verify)
    recover = _mirror(log_module.Log.recover)
    export = _mirror(log_module.Log.export)


class Batches(_Handle, Iterator[Batch]):
    """Batches of a log. Leaving the loop and dropping it, ``close`` or ``with`` release everything.

    For one thread at a time. After a ``KeyboardInterrupt`` read on with a new one, from where you were.
    """

    def __init__(self, inner: AsyncIterator[Batch], portal: Portal) -> None:
        self._inner = inner
        self._portal = portal
        self._is_closed = False
        self._close = weakref.finalize(self, _drop, inner, portal)
        self._close.atexit = False

    def __next__(self) -> Batch:
        if self._is_closed:
            raise Closed("this reader is closed: open a new one")
        try:
            return self._portal.call(_next(self._inner))
        except _Over:
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


class _Over(Exception):
    """The iterator is at its end."""


async def _next(batches: AsyncIterator[Batch]) -> Batch:
    try:
        return await anext(batches)
    except StopAsyncIteration:
        raise _Over from None


async def _aclose(batches: AsyncIterator[Batch]) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(batches, "aclose", None)
    if close is not None:
        await close()


def _drop(batches: AsyncIterator[Batch], portal: Portal) -> None:
    """A reader nobody holds any more: close it without waiting, whatever thread this is."""
    with suppress(Closed):
        portal.post(lambda: asyncio.ensure_future(_aclose(batches)))  # noqa: TID251  nobody waits for it


class Entries(_Handle, Iterator[Entry]):
    """Entries of a log, one by one. Else as ``Batches``."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._entries: Iterator[Entry] = iter(())

    def __next__(self) -> Entry:
        for entry in self._entries:
            return entry
        self._entries = iter(next(self._batches))
        return next(self._entries)  # a batch is never empty

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._entries = iter(())
        self._batches.close()


class LogWriter(_Handle):
    """The one writer of a log, see ``woodpecker.LogWriter``. Safe from many threads."""

    def __init__(self, inner: writer_module.LogWriter, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal
        self._inbox: deque[Callable[[], None]] = deque()  # of submit; one wake-up serves many
        self._is_awake = False

    append = _mirror(writer_module.LogWriter.append)
    append_many = _mirror(writer_module.LogWriter.append_many)
    flush = _mirror(writer_module.LogWriter.flush)
    ready = _mirror(writer_module.LogWriter.ready)
    resolve = _mirror(writer_module.LogWriter.resolve)
    still_owner = _mirror(writer_module.LogWriter.still_owner)
    grant_producer = _mirror(writer_module.LogWriter.grant_producer)
    drop_producer = _mirror(writer_module.LogWriter.drop_producer)
    end_log = _mirror(writer_module.LogWriter.end_log)

    @property
    def next_seq(self) -> int:
        """The seq that the next entry put in will get."""
        return self._inner.next_seq

    @property
    def next_sequence(self) -> int:
        """The sequence that the next batch of its own producer session must have."""
        return self._inner.next_sequence

    @property
    def visible(self) -> int:
        """The seq after the last entry that every reader is guaranteed to see."""
        return self._inner.visible

    @property
    def epoch(self) -> int:
        """This writer's epoch."""
        return self._inner.epoch

    @property
    def ended_by(self) -> WoodpeckerError | None:
        """What has ended this writer, or None."""
        return self._inner.ended_by

    def submit(
        self,
        payload: bytes | bytearray | memoryview,
        *,
        headers: HeaderInput | None = None,
        timestamp_us: int | None = None,
        expect_seq: int | None = None,
    ) -> Future[int]:
        """Put one entry in the queue; the future gives its seq once durable. First in, first out.

        What ``woodpecker.LogWriter.submit`` would raise, the future raises here: Overloaded for a
        full queue too (``ready()`` waits for room). The payload must not change until then.
        """
        result: Future[int] = Future()

        def start() -> None:
            try:
                inner = self._inner.submit(
                    payload, headers=headers, timestamp_us=timestamp_us, expect_seq=expect_seq
                )
            except Exception as error:  # noqa: BLE001  it belongs to whoever waits for the future
                result.set_exception(error)
                return
            inner.add_done_callback(functools.partial(_pass_on, result))

        result.set_running_or_notify_cancel()  # it cannot be taken back
        self._inbox.append(start)
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
        while self._inbox:
            self._inbox.popleft()()

    def close(self) -> None:
        """Drain, close the segment, let go. Idempotent."""
        self._portal.call(self._inner.close())


def _pass_on(result: Future[int], inner: asyncio.Future[Any]) -> None:
    if inner.cancelled():
        result.set_exception(Closed("the client was closed while the entry was on its way"))
    elif error := inner.exception():
        result.set_exception(error)
    else:
        result.set_result(inner.result())
