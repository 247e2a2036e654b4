"""Cursors: named places in a log, kept with it, that hold its retention (log protocol, section 8).

A cursor that is created, or moved back, is written first; then the manifest tells whether retention
meant to trim above it. Retention publishes its intention first, then reads the cursors. So one of the
two always sees the other. Who goes back also looks before he writes: nobody should build upon a place
that will be taken back.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.client.environment import Environment
from woodpecker.client.reader_start import tail
from woodpecker.codec import records
from woodpecker.core.ids import check_name
from woodpecker.core.manifest import Manifest
from woodpecker.errors import Conflict, Fenced, InvalidRequest, NotFound, OutOfRange
from woodpecker.metadata.cursors import Cursors, StoredCursor

CREATE_TRIES = 8


class Cursor:
    """One cursor of one log. ``position``: all below it is done; it is the next seq to read.

    Concurrency: many tasks and processes may commit; the last commit counts. ``attach`` gives one of
    them the cursor for itself: commits by handles opened before are then refused.
    """

    def __init__(self, env: Environment, log: str, log_id: str, stored: StoredCursor) -> None:
        assert stored.cursor is not None
        self._env = env
        self._log = log
        self._log_id = log_id
        self._cursors = cursors_of(env)
        self._known_tail = stored.cursor.position
        self._generation = stored.cursor.generation
        self._cursor = stored.cursor
        self.name = stored.name

    @property
    def position(self) -> int:
        """The first seq that is not done, as last seen or committed by this handle."""
        return self._cursor.position

    @property
    def data(self) -> bytes:
        """Opaque bytes committed with the position."""
        return self._cursor.data

    @property
    def generation(self) -> int:
        """How often the cursor was attached, as this handle knows it."""
        return self._generation

    def __repr__(self) -> str:
        return f"<Cursor {self.name!r} of log {self._log!r} at {self.position}>"

    async def commit(
        self, position: int, *, data: bytes | None = None, expect: bytes | None = None
    ) -> None:
        """Set the position durably: all entries below it are done.

        Args:
            position: may also go back, to read again.
            data: up to 64 KiB to keep with it; None: as it is.
            expect: refuse unless these bytes are with it now.
        Raises:
            Conflict: other data is with it than ``expect``; ``refresh`` shows it.
            InvalidRequest: beyond the tail, or data too large. NotFound: the cursor or log is gone.
            Fenced: somebody attached to the cursor after this handle was opened.
            OutOfRange(earliest=): moved back to what is trimmed, or about to be; nothing has changed.
            OutcomeUnknown, Unavailable: it may be called again.
        Cancellation: the position may still be set, also back to a place that was trimmed meanwhile.
        """
        await self._check_position(position)
        before, may_go_back = self._cursor, False

        def decide(found: records.Cursor | None) -> records.Cursor:
            nonlocal before
            before = self._mine(found)
            if expect is not None and before.data != expect:
                raise Conflict(
                    f"cursor {self.name!r} of log {self._log!r} was committed with other data meanwhile; "
                    "refresh it"
                )
            if position < before.position and not may_go_back:
                raise _GoesBackError
            kept = before.data if data is None else data
            return replace(before, position=position, data=kept)

        try:
            written = await self._cursors.change(self._log_id, self.name, decide)
        except _GoesBackError:
            await _check_kept(self._env, self._log, self._log_id, self.name, position)
            may_go_back = True
            written = await self._cursors.change(self._log_id, self.name, decide)
        if position < before.position:
            await self._check_kept(written, before)
        assert written.cursor is not None
        self._cursor = written.cursor

    async def attach(self, *, data: bytes | None = None) -> None:
        """Take the cursor for this handle alone: commits by handles opened before raise Fenced."""

        def decide(found: records.Cursor | None) -> records.Cursor:
            if found is None:
                raise self._gone()
            kept = found.data if data is None else data
            return replace(found, generation=found.generation + 1, data=kept)

        written = await self._cursors.change(self._log_id, self.name, decide)
        assert written.cursor is not None
        self._cursor, self._generation = written.cursor, written.cursor.generation

    async def refresh(self) -> None:
        """Read position and data anew. Raises: NotFound, Fenced, Unavailable."""
        stored = await self._cursors.load(self._log_id, self.name)
        self._cursor = self._mine(stored.cursor)

    async def delete(self) -> None:
        """Delete the cursor; it holds retention no longer. No error if it is gone already."""
        await self._cursors.delete(self._log_id, self.name)

    def _mine(self, found: records.Cursor | None) -> records.Cursor:
        if found is None:
            raise self._gone()
        if found.generation != self._generation:
            raise Fenced(
                f"cursor {self.name!r} of log {self._log!r} was attached by another consumer "
                f"(generation {found.generation}, this handle has {self._generation})",
                outcome="not_written",
            )
        return found

    def _gone(self) -> NotFound:
        return NotFound(f"log {self._log!r} has no cursor {self.name!r} any more: create it anew")

    async def _check_position(self, position: int) -> None:
        if isinstance(position, bool) or not isinstance(position, int) or position < 0:
            raise InvalidRequest(f"a cursor's position is a seq from 0 on, not {position!r}")
        if position > self._known_tail:
            self._known_tail = await tail(self._env, self._log, self._log_id)
        if position > self._known_tail:
            raise InvalidRequest(
                f"cursor {self.name!r}: seq {position} is beyond the tail ({self._known_tail}) of log "
                f"{self._log!r}: only what was read can be done"
            )

    async def _check_kept(self, written: StoredCursor, before: records.Cursor) -> None:
        assert written.cursor is not None
        position = written.cursor.position
        try:
            await _check_kept(self._env, self._log, self._log_id, self.name, position)
        except OutOfRange as error:
            await self._cursors.restore(self._log_id, written, before, earliest=error.earliest or 0)
            raise
        except NotFound:
            await self._cursors.restore(self._log_id, written, before)
            raise


class _GoesBackError(Exception):
    """The commit is below the position on record."""


def cursors_of(env: Environment) -> Cursors:
    """The cursor records of this client's store."""
    return Cursors(env.catalog.store, env.runtime, read_only=env.read_only)


async def open_cursor(
    env: Environment, log: str, log_id: str, name: str, *, start: int | str = "earliest"
) -> Cursor:
    """The cursor ``name``, created at ``start`` if there is none.

    Args:
        start: a seq, "earliest" or "latest"; without meaning if the cursor exists.
    Raises:
        InvalidRequest: bad name or start. OutOfRange: below what is kept, or beyond the tail.
        NotFound: the log is gone. OutcomeUnknown, Unavailable.
    """
    check_name(name, "cursor")
    cursors = cursors_of(env)
    stored = await cursors.load(log_id, name)
    for attempt in range(1, CREATE_TRIES + 1):
        if stored.cursor is not None:
            break
        fresh = records.Cursor(position=await _start_position(env, log, log_id, start))
        stored = await cursors.change(log_id, name, partial(_unless_there, fresh))
        if not stored.is_written:
            break  # somebody else was faster and sees to the rest
        try:
            await _check_kept(env, log, log_id, name, fresh.position)
        except NotFound:
            await cursors.restore(log_id, stored, None)
            raise
        except OutOfRange:
            await cursors.restore(log_id, stored, None)
            if start != "earliest" or attempt == CREATE_TRIES:
                raise
            stored = await cursors.load(log_id, name)  # trimmed meanwhile: from the new beginning
        else:
            break
    return Cursor(env, log, log_id, stored)


async def find_cursor(env: Environment, log: str, log_id: str, name: str) -> Cursor:
    """An existing cursor. Raises: NotFound, InvalidRequest, Unavailable."""
    stored = await cursors_of(env).load(log_id, name)
    if stored.cursor is None:
        raise NotFound(f"log {log!r} has no cursor {name!r}")
    return Cursor(env, log, log_id, stored)


async def list_cursors(env: Environment, log: str, log_id: str) -> list[Cursor]:
    """All cursors of a log, by name. Raises: Unavailable."""
    return [Cursor(env, log, log_id, stored) async for stored in cursors_of(env).all(log_id)]


def _unless_there(fresh: records.Cursor, found: records.Cursor | None) -> records.Cursor | None:
    return fresh if found is None else None


async def _start_position(env: Environment, log: str, log_id: str, start: int | str) -> int:
    if start == "latest":
        return await tail(env, log, log_id)
    manifest = await env.catalog.read(log, log_id=log_id)
    if start == "earliest":
        return _earliest(manifest)
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise InvalidRequest(f'a cursor starts at a seq, "earliest" or "latest", not {start!r}')
    if start > manifest.next_seq:
        end = await tail(env, log, log_id)
        if start > end:
            raise OutOfRange(f"log {log!r}: seq {start} is beyond the tail ({end})", tail=end)
    return start


async def _check_kept(env: Environment, log: str, log_id: str, name: str, position: int) -> None:
    """After a write: would retention have seen the cursor there? Raises: OutOfRange, NotFound."""
    manifest = await env.catalog.read(log, log_id=log_id)
    earliest = _earliest(manifest)
    if position < earliest:
        raise OutOfRange(
            f"log {log!r}: seq {position} is trimmed, or about to be: the earliest "
            f"place for cursor {name!r} is {earliest}",
            earliest=earliest,
        )


def _earliest(manifest: Manifest) -> int:
    return max(manifest.trim_point, manifest.trim_pending or 0)
