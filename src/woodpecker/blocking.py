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

import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Self

from woodpecker import app
from woodpecker.client import client as client_module
from woodpecker.client import cursor as cursor_module
from woodpecker.client import log as log_module
from woodpecker.client import objects as objects_module
from woodpecker.client import writer as writer_module
from woodpecker.client.batch import Batch
from woodpecker.client.entry import Entry, HeaderInput
from woodpecker.errors import Closed, WoodpeckerError
from woodpecker.facade import Handle, Inbox, Walk, mirror
from woodpecker.observability.base import SILENT, Observer
from woodpecker.runtime.portal import Portal
from woodpecker.storage.url import OptionValue

if TYPE_CHECKING:
    from woodpecker import blocking_streaming as streaming

__all__ = ["Batches", "Client", "Cursor", "Entries", "Log", "LogWriter", "connect", "streaming"]


def __getattr__(name: str) -> object:
    if name == "streaming":  # loaded when it is used, as in woodpecker itself
        return import_module("woodpecker.blocking_streaming")
    raise AttributeError(f"module 'woodpecker.blocking' has no attribute {name!r}")


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

    log_exists = mirror(client_module.Client.log_exists)
    list_logs = mirror(client_module.Client.list_logs)
    delete_log = mirror(client_module.Client.delete_log)
    import_log = mirror(client_module.Client.import_log)
    run_background = mirror(client_module.Client.run_background)

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

    commit = mirror(cursor_module.Cursor.commit)
    attach = mirror(cursor_module.Cursor.attach)
    refresh = mirror(cursor_module.Cursor.refresh)
    delete = mirror(cursor_module.Cursor.delete)


class LogObjects:
    """Objects of a layer above, see ``woodpecker.Log.objects``."""

    def __init__(self, inner: objects_module.LogObjects, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    put = mirror(objects_module.LogObjects.put)
    get = mirror(objects_module.LogObjects.get)
    list = mirror(objects_module.LogObjects.list)
    delete = mirror(objects_module.LogObjects.delete)


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

    end = mirror(log_module.Log.end)
    earliest = mirror(log_module.Log.earliest)
    tail = mirror(log_module.Log.tail)
    trim = mirror(log_module.Log.trim)
    describe = mirror(log_module.Log.describe)
    verify = mirror(log_module.Log.verify)
    recover = mirror(log_module.Log.recover)
    export = mirror(log_module.Log.export)


class Batches(Walk[Batch]):
    """Batches of a log. Leaving the loop and dropping it, ``close`` or ``with`` release everything.

    For one thread at a time. After a ``KeyboardInterrupt`` read on with a new one, from where you were.
    """


class Entries(Handle, Iterator[Entry]):
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


class LogWriter(Handle):
    """The one writer of a log, see ``woodpecker.LogWriter``. Safe from many threads."""

    def __init__(self, inner: writer_module.LogWriter, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal
        self._inbox = Inbox(portal)

    append = mirror(writer_module.LogWriter.append)
    append_many = mirror(writer_module.LogWriter.append_many)
    flush = mirror(writer_module.LogWriter.flush)
    ready = mirror(writer_module.LogWriter.ready)
    resolve = mirror(writer_module.LogWriter.resolve)
    still_owner = mirror(writer_module.LogWriter.still_owner)
    grant_producer = mirror(writer_module.LogWriter.grant_producer)
    drop_producer = mirror(writer_module.LogWriter.drop_producer)
    end_log = mirror(writer_module.LogWriter.end_log)

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
        submit = functools.partial(
            self._inner.submit,
            payload,
            headers=headers,
            timestamp_us=timestamp_us,
            expect_seq=expect_seq,
        )
        return self._inbox.put(submit)

    def close(self) -> None:
        """Drain, close the segment, let go. Idempotent."""
        self._portal.call(self._inner.close())
