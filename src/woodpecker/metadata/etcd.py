"""Metadata in etcd, for clusters. Importing this without the extra ``etcd`` raises InvalidRequest.

A version is the revision of the key's last change. Revisions count all changes of the cluster, so
none ever repeats, also not after a removal. Reads are linearizable, writes are transactions that
compare the revision; neither is repeated once its outcome is unclear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from woodpecker.errors import Closed, Conflict, InvalidRequest, WoodpeckerError
from woodpecker.metadata.base import Lease, Record
from woodpecker.metadata.checks import check_key, check_value
from woodpecker.runtime.runtime import Runtime

try:
    from woodpecker.metadata import etcd_pb2 as pb
    from woodpecker.metadata.etcd_lease import EtcdLeases
    from woodpecker.metadata.etcd_rpc import RANGE, TXN, EtcdConnection, EtcdLogin, EtcdTls
    from woodpecker.metadata.etcd_watch import EtcdWatches
except ImportError as missing:
    raise InvalidRequest(
        f"metadata in etcd needs an extra ({missing}): pip install 'woodpecker-wal[etcd]'"
    ) from missing

__all__ = ["EtcdLogin", "EtcdMetadata", "EtcdTls"]

TIMEOUT_MS = 5000
PAGE_RECORDS = 256


class EtcdMetadata:
    """Metadata records in an etcd cluster (3.4 or later) under ``prefix``.

    Args:
        endpoints: ``host`` or ``host:port`` of one or more members.
        prefix: before every key, with a ``/`` between; "" for none.
        runtime: clock and tasks.
        tls: certificates; None for plain text.
        login: user and password; None for a cluster without authentication.
        timeout_ms: for one call with all its tries.
    Errors: besides the port's, InvalidRequest for refused credentials or rights.
    Concurrency: many tasks of one event loop.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str,
        runtime: Runtime,
        *,
        tls: EtcdTls | None = None,
        login: EtcdLogin | None = None,
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        self._connection = EtcdConnection(
            endpoints, runtime, tls=tls, login=login, timeout_ms=timeout_ms
        )
        self._root = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._leases = EtcdLeases(self._connection, runtime, self)
        self._watches = EtcdWatches(self._connection, runtime, self._look)
        self._closed = False

    @property
    def url(self) -> str:
        return f"etcd://{','.join(self._connection.endpoints)}/{self._root.rstrip('/')}"

    async def get(self, key: str) -> Record | None:
        reply = await self._range(pb.RangeRequest(key=self._key(key)))
        return self._record(reply.kvs[0]) if reply.kvs else None

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        check_value(key, value)
        put = pb.PutRequest(key=self._key(key), value=value)
        return await self._commit(key, expect, pb.RequestOp(request_put=put))

    async def remove(self, key: str, *, expect: str) -> bool:
        delete = pb.DeleteRangeRequest(key=self._key(key))
        await self._commit(key, expect, pb.RequestOp(request_delete_range=delete))
        return True

    async def create_leased(self, key: str, value: bytes, lease_id: int) -> None:
        """Create ``key``, to go when the etcd lease ends. Raises: as ``put``."""
        put = pb.PutRequest(key=self._key(key), value=value, lease=lease_id)
        await self._commit(key, None, pb.RequestOp(request_put=put))

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        first = (self._root + prefix).encode()
        end = _after_prefix(first)
        start = max(first, (self._root + start_after).encode() + b"\0") if start_after else first
        found: list[Record] = []
        while len(found) < limit:
            page = min(limit - len(found), PAGE_RECORDS)
            reply = await self._range(
                pb.RangeRequest(key=start or b"\0", range_end=end, limit=page)
            )
            found += [self._record(kv) for kv in reply.kvs]
            if not reply.more:
                break
            start = reply.kvs[-1].key + b"\0"
        return found

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        self._check_open()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._watches.changed(key, self._key(key), version)
        except (TimeoutError, WoodpeckerError):
            return

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        return await self._leases.acquire(key, holder, ttl_ms)

    async def close(self) -> None:
        self._closed = True
        await self._leases.close()
        await self._watches.close()
        await self._connection.close()

    async def _look(self, key: str) -> tuple[str | None, int]:
        reply = await self._range(pb.RangeRequest(key=self._key(key)))
        version = str(reply.kvs[0].mod_revision) if reply.kvs else None
        return version, reply.header.revision

    async def _range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        self._check_open()
        return await self._connection.call(RANGE, request)

    async def _commit(self, key: str, expect: str | None, change: pb.RequestOp) -> str:
        self._check_open()
        condition = pb.Compare(key=self._key(key), result=pb.Compare.EQUAL)
        if expect is None:
            condition.target, condition.create_revision = pb.Compare.CREATE, 0
        else:
            condition.target, condition.mod_revision = pb.Compare.MOD, _revision(expect)
        reply = await self._connection.call(
            TXN, pb.TxnRequest(compare=[condition], success=[change])
        )
        if not reply.succeeded:
            raise Conflict(f"{self.url}: {key} is not at version {expect}; read it again")
        return str(reply.header.revision)

    def _key(self, key: str) -> bytes:
        return (self._root + check_key(key)).encode()

    def _record(self, kv: pb.KeyValue) -> Record:
        key = kv.key.decode()[len(self._root) :]
        return Record(key=key, value=kv.value, version=str(kv.mod_revision))

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"metadata store {self.url} is closed; open a new one")


def _revision(version: str) -> int:
    """The revision of a version; one that no key has (0 is that of an absent one) for any other."""
    known = version.isdecimal() and len(version) < 19 and int(version) > 0
    return int(version) if known else -1


def _after_prefix(prefix: bytes) -> bytes:
    """The end of the range of keys that start with ``prefix`` (ASCII, so below 0xff)."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b"\0"
