"""The typed view of cursor records: one per cursor, changed by compare-and-swap only.

A cursor is removed under a condition, or becomes a record marked deleted where the store has no
conditional removal: an unconditional or late removal could hit a cursor created anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from woodpecker.codec import keys, records
from woodpecker.codec.records import Cursor
from woodpecker.core.backoff import delay_ms
from woodpecker.errors import Conflict, InvalidRequest, OutcomeUnknown, Unavailable
from woodpecker.metadata.base import MetadataStore, Record
from woodpecker.runtime.runtime import Runtime

CHANGE_TIMEOUT_MS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCursor:
    """A cursor as read. ``cursor`` None: there is none; ``version`` may still be of a deleted one.

    ``is_written``: this very call wrote it.
    """

    name: str
    cursor: Cursor | None
    version: str | None
    is_written: bool = False


Decide = Callable[[Cursor | None], Cursor | None]
"""(the cursor as it is) -> the cursor wanted, or None for: leave it. Called again after a conflict."""


class Cursors:
    """Cursors of all logs. Any number of tasks."""

    def __init__(self, store: MetadataStore, runtime: Runtime, *, read_only: bool = False) -> None:
        self._store = store
        self._runtime = runtime
        self._read_only = read_only

    async def load(self, log_id: str, name: str) -> StoredCursor:
        """Linearizable read. Raises: Unavailable, Corrupt; InvalidRequest: newer format, bad name."""
        record = await self._store.get(keys.cursor(log_id, name))
        if record is None:
            return StoredCursor(name=name, cursor=None, version=None)
        return self._stored(record)

    async def all(self, log_id: str) -> AsyncIterator[StoredCursor]:
        """All living cursors of a log, by name, in pages of the store. Raises: as ``load``."""
        async for stored in self._records(log_id):
            if stored.cursor is not None:
                yield stored

    async def lowest(self, log_id: str) -> int | None:
        """The lowest position of all cursors; None: there are none."""
        positions = [stored.cursor.position async for stored in self.all(log_id) if stored.cursor]
        return min(positions, default=None)

    async def change(self, log_id: str, name: str, decide: Decide) -> StoredCursor:
        """Write what ``decide`` makes of the present cursor; return the cursor as it then stands.

        After an unclear answer the very same write is repeated, and the nonce read back decides.
        Raises: OutcomeUnknown, Unavailable: no definite answer for 30 s. What ``decide`` raises.
        """
        self._check_writable()
        deadline_ms = self._runtime.monotonic_ms() + CHANGE_TIMEOUT_MS
        seen = await self.load(log_id, name)
        wanted, attempt = decide(seen.cursor), 0
        while wanted is not None:
            wanted = self._stamped(wanted) if attempt == 0 else wanted
            try:
                version = await self._put(log_id, name, wanted, seen.version)
                return replace(_as_stored(name, wanted, version), is_written=True)
            except Conflict:
                seen = await self.load(log_id, name)
                if seen.cursor is not None and seen.cursor.nonce == wanted.nonce:
                    return replace(seen, is_written=True)
                wanted, attempt = decide(seen.cursor), 0
            except (OutcomeUnknown, Unavailable):
                attempt += 1
                if self._runtime.monotonic_ms() >= deadline_ms:
                    raise
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))
        return seen

    async def restore(
        self, log_id: str, written: StoredCursor, before: Cursor | None, *, earliest: int = 0
    ) -> None:
        """Take a write back, unless somebody else has written since.

        Who wrote since below ``earliest``, the first seq that is kept, has built upon what is taken back,
        and is refused as well: then ``before`` is put in place all the same.
        """
        nonce = written.cursor.nonce if written.cursor else None

        def decide(found: Cursor | None) -> Cursor | None:
            if found is None or before is None:
                return None
            is_refused = (
                found.position < earliest <= before.position
                and found.generation == before.generation
            )
            return before if found.nonce == nonce or is_refused else None

        if before is None:
            await self.delete(log_id, written.name, nonce=nonce)
        else:
            await self.change(log_id, written.name, decide)

    async def delete(self, log_id: str, name: str, *, nonce: str | None = None) -> bool:
        """Delete the cursor (with ``nonce``: only if it still is that write); False: there is none.

        Raises: OutcomeUnknown, Unavailable: it can be called again.
        """
        self._check_writable()
        while True:
            seen = await self.load(log_id, name)
            if seen.cursor is None or nonce not in (None, seen.cursor.nonce):
                return False
            assert seen.version is not None
            try:
                key = keys.cursor(log_id, name)
                if not await self._store.remove(key, expect=seen.version):
                    gone = self._stamped(Cursor(position=seen.cursor.position, deleted=True))
                    await self._put(log_id, name, gone, seen.version)
            except Conflict:
                continue
            return True

    async def purge(self, log_id: str) -> int:
        """Remove all records of a log that is deleted for good; returns how many are left.

        Nobody creates a cursor there any more: who did meanwhile takes it back.
        """
        self._check_writable()
        left = 0
        async for stored in self._records(log_id):
            assert stored.version is not None
            key = keys.cursor(log_id, stored.name)
            try:
                removed = await self._store.remove(key, expect=stored.version)
                if not removed and stored.cursor is not None:
                    await self.delete(log_id, stored.name)
            except Conflict:
                removed = False
            left += not removed
        return left

    async def _records(self, log_id: str) -> AsyncIterator[StoredCursor]:
        prefix, start_after = keys.cursors(log_id), ""
        while page := await self._store.list(prefix, start_after=start_after):
            for record in page:
                yield self._stored(record)
            start_after = page[-1].key

    async def _put(self, log_id: str, name: str, cursor: Cursor, expect: str | None) -> str:
        data = records.encode_cursor(cursor)
        return await self._store.put(keys.cursor(log_id, name), data, expect=expect)

    def _stored(self, record: Record) -> StoredCursor:
        cursor = records.decode_cursor(record.value, where=f"{self._store.url}#{record.key}")
        return _as_stored(keys.parse_cursor(record.key)[1], cursor, record.version)

    def _stamped(self, cursor: Cursor) -> Cursor:
        now_ms = self._runtime.now_us() // 1000
        return replace(cursor, nonce=self._runtime.token(), updated_at_ms=now_ms)

    def _check_writable(self) -> None:
        if self._read_only:
            raise InvalidRequest("this client was opened read_only=True: no cursor can be changed")


def _as_stored(name: str, cursor: Cursor, version: str) -> StoredCursor:
    return StoredCursor(name=name, cursor=None if cursor.deleted else cursor, version=version)
