"""Metadata as objects in a bucket: no other service is needed.

Each record is one object, its version the object's etag. Etags repeat where a body repeats (they
are digests in most stores), so **bodies must be unique**: manifests, cursors, leases and stream records carry a
nonce. Nothing is removed: object stores have no removal under a condition.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from woodpecker.errors import AlreadyExists, Closed, Conflict, NotFound
from woodpecker.metadata.base import Lease, Record
from woodpecker.metadata.checks import check_key, check_value
from woodpecker.metadata.lease import RecordLeases
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.base import ObjectInfo, ObjectStore

LISTED_BYTES = 32 << 20  # records kept from listings
PARALLEL_GETS = 16
POLL_MIN_MS = 50
POLL_MAX_MS = 1000
REMEMBERED_POLLS = 1024


@dataclass(slots=True)
class _Poll:
    version: str | None
    pause_ms: int


class ObjectMetadata:
    """Metadata records in an object store with create-if-absent and compare-and-swap.

    Args:
        store: where the records go, at the keys given. Stays open when this is closed.
        runtime: clock, chance and tasks.
    Errors: besides the port's, those of the store for a missing bucket or refused credentials
        (NotFound, InvalidRequest).
    """

    def __init__(self, store: ObjectStore, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._leases = RecordLeases(self, runtime)
        self._polls: dict[str, _Poll] = {}
        self._listed: OrderedDict[str, Record] = OrderedDict()  # what listings got, by key
        self._listed_bytes = 0
        self._closed = False

    @property
    def url(self) -> str:
        return self._store.url

    async def get(self, key: str) -> Record | None:
        self._check(key)
        try:
            data, info = await self._store.get(key)
        except NotFound:
            return None
        return Record(key=key, value=bytes(data), version=info.etag)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        self._check(key)
        check_value(key, value)
        if expect is not None:
            return await self._store.replace(key, value, etag=expect)
        try:
            return await self._store.create(key, value)
        except AlreadyExists as error:
            raise Conflict(f"{self.url}: {key} is there already; read it again") from error

    async def remove(self, key: str, *, expect: str) -> bool:
        self._check(key)
        return False

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        self._check_open()
        found: list[Record] = []
        async for page in self._store.list(prefix, start_after=start_after):
            for first in range(0, len(page), PARALLEL_GETS):
                wanted = page[first : first + PARALLEL_GETS][: limit - len(found)]
                if not wanted:
                    return found
                found += await self._get_some(wanted)
        return found

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        """Sleep, longer each time the same version is waited on; the caller's read is the poll."""
        self._check(key)
        poll = self._polls.pop(key, None)
        if poll is None or poll.version != version:
            poll = _Poll(version, POLL_MIN_MS)
        while len(self._polls) >= REMEMBERED_POLLS:
            del self._polls[next(iter(self._polls))]
        self._polls[key] = _Poll(version, min(2 * poll.pause_ms, POLL_MAX_MS))
        pause_ms = poll.pause_ms * (0.75 + self._runtime.random() / 2)
        await self._runtime.sleep_ms(min(pause_ms, timeout_ms))

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        return await self._leases.acquire(key, holder, ttl_ms)

    async def close(self) -> None:
        self._closed = True
        await self._leases.close()

    async def _get_some(self, infos: Sequence[ObjectInfo]) -> Sequence[Record]:
        records = await asyncio.gather(*(self._get_listed(info) for info in infos))
        return [record for record in records if record is not None]

    async def _get_listed(self, info: ObjectInfo) -> Record | None:
        """A listing tells the version: what has not changed since the last one costs no request."""
        known = self._listed.get(info.key)
        if known is not None and known.version == info.etag:
            self._listed.move_to_end(info.key)
            return known
        record = await self.get(info.key)
        if record is not None:
            self._keep(record)
        return record

    def _keep(self, record: Record) -> None:
        old = self._listed.pop(record.key, None)
        self._listed[record.key] = record
        self._listed_bytes += len(record.value) - (len(old.value) if old is not None else 0)
        while self._listed_bytes > LISTED_BYTES:
            _, oldest = self._listed.popitem(last=False)
            self._listed_bytes -= len(oldest.value)

    def _check(self, key: str) -> None:
        self._check_open()
        check_key(key)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"metadata store {self.url} is closed; open a new one")
