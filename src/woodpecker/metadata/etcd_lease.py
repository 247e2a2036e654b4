"""Leases of etcd: the server ends them by its own clock, and the key goes with the lease."""

from __future__ import annotations

import contextlib
from typing import Protocol

from woodpecker.errors import Conflict, InvalidRequest, NotFound, OutcomeUnknown, WoodpeckerError
from woodpecker.metadata import etcd_pb2 as pb
from woodpecker.metadata.base import Record
from woodpecker.metadata.etcd_rpc import GRANT, KEEP_ALIVE, REVOKE, EtcdConnection
from woodpecker.metadata.lease import LeaseBody
from woodpecker.metadata.renewal import Renewal
from woodpecker.runtime.runtime import Runtime


class LeasedRecords(Protocol):
    """What is needed of the store."""

    async def get(self, key: str) -> Record | None: ...

    async def create_leased(self, key: str, value: bytes, lease_id: int) -> None: ...


class EtcdLeases:
    """The leases one store holds."""

    def __init__(
        self, connection: EtcdConnection, runtime: Runtime, records: LeasedRecords
    ) -> None:
        self._connection = connection
        self._runtime = runtime
        self._records = records
        self._held: dict[EtcdLease, None] = {}

    async def acquire(self, key: str, holder: str, ttl_ms: int) -> EtcdLease | None:
        """Try once; see ``MetadataStore.acquire_lease``. The server rounds ``ttl_ms`` up."""
        if ttl_ms <= 0 or not holder:
            raise InvalidRequest(f"lease {key}: ttl_ms must be positive and holder not empty")
        if await self._records.get(key) is not None:
            return None
        sent_ms = self._runtime.monotonic_ms()
        granted = await self._connection.call(GRANT, pb.LeaseGrantRequest(TTL=-(-ttl_ms // 1000)))
        body = LeaseBody(holder=holder, nonce=self._runtime.token(), ttl_ms=granted.TTL * 1000)
        if not await self._take(key, body, granted.ID):
            await self.revoke(granted.ID)
            return None
        lease = EtcdLease(self, self._runtime, key, body, lease_id=granted.ID, sent_ms=sent_ms)
        self._held = {held: None for held in self._held if not held.lost} | {lease: None}
        return lease

    async def revoke(self, lease_id: int) -> None:
        """End a lease now, with its key; if that cannot be said, it runs out by itself."""
        with contextlib.suppress(WoodpeckerError):
            await self._connection.call(REVOKE, pb.LeaseRevokeRequest(ID=lease_id))

    async def keep_alive(self, lease_id: int) -> None:
        """Renew once. Raises: Conflict: it is gone. Unavailable."""
        reply = await self._connection.call(KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=lease_id))
        if reply.TTL <= 0:
            raise Conflict(f"lease {lease_id:x} has ended in etcd; acquire it again")

    async def close(self) -> None:
        """Stop all renewals; what is held runs out by itself."""
        for lease in list(self._held):
            await lease.stop()
        self._held.clear()

    async def _take(self, key: str, body: LeaseBody, lease_id: int) -> bool:
        try:
            await self._records.create_leased(key, body.encode(), lease_id)
        except (Conflict, NotFound):  # somebody has the key, or our lease ran out meanwhile
            return False
        except OutcomeUnknown:
            # If it takes effect later than this read, the revocation takes the key away again.
            found = await self._records.get(key)
            return found is not None and LeaseBody.decode(found).nonce == body.nonce
        return True


class EtcdLease:
    """One held lease."""

    def __init__(
        self,
        leases: EtcdLeases,
        runtime: Runtime,
        key: str,
        body: LeaseBody,
        *,
        lease_id: int,
        sent_ms: float,
    ) -> None:
        self._leases = leases
        self._runtime = runtime
        self._lease_id = lease_id
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
        await self._renewal.stop()
        self._renewal.give_up()
        await self._leases.revoke(self._lease_id)

    async def _renew_once(self) -> float:
        sent_ms = self._runtime.monotonic_ms()
        await self._leases.keep_alive(self._lease_id)
        return sent_ms
