"""The typed view of the service's records, and the one loop that changes them.

Every change is a compare-and-swap, decided by effect: ``decide`` is shown the record as it is and gives it
as it should be. When the answer to a CAS is lost, the identical bytes are sent again under the same
condition; once the version has moved, ``decide`` is shown the new state, and must recognise in it what it
wanted (log protocol, section 1, ambiguous CAS).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from woodpecker.core.backoff import delay_ms
from woodpecker.errors import (
    Conflict,
    Corrupt,
    InvalidRequest,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.metadata.base import MetadataStore
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.codec import records
from woodpecker.streaming.codec.records import Key, Table

CHANGE_TIMEOUT_MS = 30_000
PAGE_COUNT = 1000

_log = logging.getLogger("woodpecker.streaming")

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Generic[R]):
    """A record as read (None: the key is absent), and the version it was read at."""

    record: R | None
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Generic[R]):
    """A record that is there."""

    record: R
    version: str


class StreamRecords:
    """Records of the streaming service in one metadata store. Any number of tasks."""

    def __init__(self, store: MetadataStore, runtime: Runtime) -> None:
        self.store = store
        self._runtime = runtime
        self._unreadable: set[str] = set()

    async def load(self, key: Key[R]) -> Seen[R]:
        """Linearizable read.

        Raises: Unavailable; Corrupt or InvalidRequest (newer format): the record cannot be read.
        """
        found = await self.store.get(key.path)
        if found is None:
            return Seen(record=None, version=None)
        record = records.decode(found.value, key.type, where=self._where(key.path))
        return Seen(record=record, version=found.version)

    async def put(
        self, key: Key[R], record: R, *, expect: str | None, nonce: str | None = None
    ) -> str:
        """Write under a condition, once; the new version. ``nonce``: of the write that this repeats.

        Raises: Conflict, OutcomeUnknown, Unavailable: as ``MetadataStore.put``.
        """
        data = records.encode(record, nonce=nonce or self._runtime.token())
        return await self.store.put(key.path, data, expect=expect)

    async def remove(self, key: Key[R], *, expect: str) -> bool:
        """Remove under a condition. False: the store cannot. Raises: as ``MetadataStore.remove``."""
        return await self.store.remove(key.path, expect=expect)

    async def change(
        self,
        key: Key[R],
        decide: Callable[[R | None], R],
        *,
        seen: Seen[R] | None = None,
        timeout_ms: int = CHANGE_TIMEOUT_MS,
    ) -> Stored[R]:
        """Bring the record where ``decide`` wants it; the state that shows it.

        Args:
            decide: gives the record wanted from the one that is there (None: absent); the same one: nothing
                is to be done. Called again when somebody else has written, so it must know its own effect.
                What it raises ends the change.
            seen: the record as the caller has just read or written it: saves a read.
        Raises:
            Unavailable: not applied. OutcomeUnknown: sent, and no word about it in time. Corrupt,
            InvalidRequest: as ``load``.
        Cancellation: the change may still take effect.
        """
        return await _Change(self, key, decide, seen, self._runtime, timeout_ms).run()

    async def page(
        self, table: Table[R], *, prefix: str = "", start_after: str = "", limit: int = PAGE_COUNT
    ) -> Sequence[Stored[R]]:
        """Records whose names begin with ``prefix``, above the name ``start_after``, by name.

        Raises: Unavailable, Corrupt, InvalidRequest.
        """
        after = table.prefix + start_after if start_after else ""
        found = await self.store.list(table.prefix + prefix, start_after=after, limit=limit)
        return [
            Stored(
                record=records.decode(item.value, table.type, where=self._where(item.key)),
                version=item.version,
            )
            for item in found
        ]

    async def all(self, table: Table[R]) -> dict[str, Stored[R]]:
        """Every record of the table, by name, sorted. For tables of thousands, not of millions.

        A record that cannot be read (a newer format, damage) is left out, with a line in the log.
        Raises: Unavailable.
        """
        found: dict[str, Stored[R]] = {}
        start_after = ""
        while page := await self.store.list(table.prefix, start_after=start_after):
            for item in page:
                where = self._where(item.key)
                try:
                    record = records.decode(item.value, table.type, where=where)
                except (Corrupt, InvalidRequest) as error:
                    self._cannot_read(table, where, error)
                    continue
                name = records.name_of(item.key, table)
                found[name] = Stored(record=record, version=item.version)
            start_after = page[-1].key
        return found

    def _where(self, path: str) -> str:
        return f"{self.store.url}#{path}"

    def _cannot_read(self, table: Table[R], where: str, error: WoodpeckerError) -> None:
        if where not in self._unreadable:
            self._unreadable.add(where)
            _log.error("a %s is left out: %s", table.what, error)


class _Change(Generic[R]):
    """One change on its way into its record."""

    def __init__(
        self,
        records_: StreamRecords,
        key: Key[R],
        decide: Callable[[R | None], R],
        seen: Seen[R] | None,
        runtime: Runtime,
        timeout_ms: int,
    ) -> None:
        self._records = records_
        self._key = key
        self._decide = decide
        self._seen = seen  # for the first attempt
        self._runtime = runtime
        self._deadline_ms = runtime.monotonic_ms() + timeout_ms
        # sent, no answer: what, under which version, the nonce of the write
        self._doubt: tuple[R, str | None, str] | None = None
        self._is_unknown = False  # what was sent last may have taken effect, or may still

    async def run(self) -> Stored[R]:
        attempt = 0
        while True:
            try:
                done = await self._attempt()
            except (Unavailable, OutcomeUnknown) as error:
                attempt += 1
                await self._pause(attempt, error)
                continue
            if done is not None:
                return done

    async def _attempt(self) -> Stored[R] | None:
        """Read, decide, write; None: the version moved, read again."""
        seen, self._seen = self._seen or await self._records.load(self._key), None
        if self._doubt is None or self._doubt[1] != seen.version:
            self._is_unknown = False  # decided by what is there now
            wanted = self._decide(seen.record)
            if wanted == seen.record and seen.version is not None:
                return Stored(record=wanted, version=seen.version)
            self._doubt = (wanted, seen.version, self._runtime.token())
        wanted, expect, nonce = self._doubt
        try:
            version = await self._records.put(self._key, wanted, expect=expect, nonce=nonce)
        except Conflict:
            return None
        except OutcomeUnknown:
            self._is_unknown = True
            raise
        except Unavailable:
            if not self._is_unknown:
                self._doubt = None  # nothing was sent that could still land: decide anew
            raise
        return Stored(record=wanted, version=version)

    async def _pause(self, attempt: int, error: WoodpeckerError) -> None:
        if self._runtime.monotonic_ms() >= self._deadline_ms:
            if self._is_unknown:
                raise OutcomeUnknown(
                    f"{self._key.path}: a change was sent to {self._records.store.url} and not "
                    f"answered: {error}"
                ) from error
            raise error
        await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))
