"""Leases as records, for every store that has compare-and-swap and no leases of its own.

A lease is one record {holder, nonce, ttl_ms}. Its holder writes a new nonce every third of the ttl,
so the version moves while it lives. Nobody compares wall clocks: a contender that has seen the
*same version* for ttl_ms of its own monotonic clock takes over by compare-and-swap. The holder
counts its time from before it sent a renewal, the contender from after it has seen that one, so
their times do not overlap while both clocks run at the same rate. A released lease is removed, or
marked free (no holder) where the store cannot remove under a condition.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import Protocol

from woodpecker.errors import Conflict, InvalidRequest, OutcomeUnknown, WoodpeckerError
from woodpecker.metadata.base import Record
from woodpecker.metadata.renewal import Renewal
from woodpecker.runtime.runtime import Runtime


class Records(Protocol):
    """What leases need of a metadata store."""

    async def get(self, key: str) -> Record | None: ...

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str: ...

    async def remove(self, key: str, *, expect: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseBody:
    """The value of a lease record; ``holder`` is empty once it was released."""

    holder: str
    nonce: str
    ttl_ms: int

    def encode(self) -> bytes:
        """As JSON, readable in any tool."""
        fields = {"holder": self.holder, "nonce": self.nonce, "ttl_ms": self.ttl_ms}
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, record: Record) -> LeaseBody:
        """Read a lease record. Raises: InvalidRequest: the key holds something else."""
        try:
            fields = json.loads(record.value)
            return cls(
                holder=str(fields["holder"]),
                nonce=str(fields["nonce"]),
                ttl_ms=int(fields["ttl_ms"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"the record {record.key} is not a lease; use another key for the lease"
            ) from error


class RecordLeases:
    """The leases of one store object: takes them, remembers what others hold since when."""

    def __init__(self, records: Records, runtime: Runtime) -> None:
        self._records = records
        self._runtime = runtime
        self._seen: dict[str, tuple[str, float]] = {}  # key -> version, first seen (ms)
        self._held: dict[RecordLease, None] = {}

    async def acquire(self, key: str, holder: str, ttl_ms: int) -> RecordLease | None:
        """Try once; see ``MetadataStore.acquire_lease``. Raises: InvalidRequest, Unavailable."""
        if ttl_ms <= 0 or not holder:
            raise InvalidRequest(f"lease {key}: ttl_ms must be positive and holder not empty")
        record = await self._records.get(key)
        if record is not None and not self._is_free(record):
            return None
        self._seen.pop(key, None)
        body = LeaseBody(holder=holder, nonce=self._runtime.token(), ttl_ms=ttl_ms)
        sent_ms = self._runtime.monotonic_ms()
        version = await self._take(key, body, record.version if record else None)
        if version is None:
            return None
        lease = RecordLease(
            self,
            self._records,
            self._runtime,
            key=key,
            body=body,
            version=version,
            sent_ms=sent_ms,
        )
        self._held = {held: None for held in self._held if not held.lost} | {lease: None}
        return lease

    async def close(self) -> None:
        """Stop all renewals; what was held runs out by itself."""
        for lease in list(self._held):
            await lease.stop()
        self._held.clear()

    def forget(self, lease: RecordLease) -> None:
        """``lease`` was released."""
        self._held.pop(lease, None)

    def _is_free(self, record: Record) -> bool:
        body = LeaseBody.decode(record)
        if not body.holder:
            return True
        now_ms = self._runtime.monotonic_ms()
        version, since_ms = self._seen.get(record.key, ("", 0.0))
        if version != record.version:
            self._seen[record.key] = (record.version, now_ms)
            return False
        return now_ms - since_ms >= body.ttl_ms

    async def _take(self, key: str, body: LeaseBody, expect: str | None) -> str | None:
        try:
            return await self._records.put(key, body.encode(), expect=expect)
        except Conflict:
            return None
        except OutcomeUnknown:
            # If it takes effect later than this read, nobody renews it and it runs out.
            found = await self._records.get(key)
            mine = found is not None and LeaseBody.decode(found).nonce == body.nonce
            return found.version if found is not None and mine else None


class RecordLease:
    """One held lease."""

    def __init__(
        self,
        leases: RecordLeases,
        records: Records,
        runtime: Runtime,
        *,
        key: str,
        body: LeaseBody,
        version: str,
        sent_ms: float,
    ) -> None:
        self._leases = leases
        self._records = records
        self._runtime = runtime
        self._key = key
        self._body = body
        self._version = version
        self._pending: tuple[LeaseBody, float] | None = None  # sent, outcome unknown; since (ms)
        self._renewal = Renewal(
            runtime, key, ttl_ms=body.ttl_ms, sent_ms=sent_ms, renew=self._renew_once
        )
        self._renewal.start()

    @property
    def lost(self) -> bool:
        """True once it may have passed to somebody else; stays true."""
        return self._renewal.lost

    async def stop(self) -> None:
        """End the renewal; the lease runs out by itself."""
        await self._renewal.stop()

    async def release(self) -> None:
        """Give it up at once; renewal stops. No error if it is lost already."""
        self._leases.forget(self)
        await self._renewal.stop()
        self._renewal.give_up()
        with contextlib.suppress(WoodpeckerError):  # it runs out by itself
            found = await self._records.get(self._key)
            if found is None or not self._is_mine(found):
                return
            if not await self._records.remove(self._key, expect=found.version):
                free = replace(self._body, holder="", nonce=self._runtime.token())
                await self._records.put(self._key, free.encode(), expect=found.version)

    async def _renew_once(self) -> float:
        """Write a new nonce, or the last one again while its outcome is unknown."""
        if self._pending is None:
            renewed = replace(self._body, nonce=self._runtime.token())
            self._pending = (renewed, self._runtime.monotonic_ms())
        body, sent_ms = self._pending
        try:
            version = await self._records.put(self._key, body.encode(), expect=self._version)
        except Conflict:
            found = await self._records.get(self._key)  # an earlier try may have come through
            if found is None or LeaseBody.decode(found).nonce != body.nonce:
                raise
            version = found.version
        self._body, self._version, self._pending = body, version, None
        return sent_ms

    def _is_mine(self, record: Record) -> bool:
        nonce = LeaseBody.decode(record).nonce
        return nonce == self._body.nonce or (
            self._pending is not None and nonce == self._pending[0].nonce
        )
