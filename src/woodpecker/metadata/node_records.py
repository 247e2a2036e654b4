"""The typed view of node records: one per LogStore node, changed by compare-and-swap only.

What administrators do with nodes is here as well: they write a record, and the node reads it with its
next beat.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from woodpecker.codec import keys, records
from woodpecker.core import membership
from woodpecker.core.backoff import delay_ms
from woodpecker.core.membership import DEAD_AFTER_MS, NodeRecord, NodeState
from woodpecker.errors import (
    Conflict,
    Corrupt,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.metadata.base import MetadataStore
from woodpecker.runtime.runtime import Runtime

CHANGE_TIMEOUT_MS = 30_000
WATCH_MS = 500.0  # between looks at a node that may be alive

_log = logging.getLogger("woodpecker.logstore")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNode:
    """A node's record as read, and its version."""

    record: NodeRecord
    version: str


class NodeRecords:
    """Records of all nodes of one store. Any number of tasks."""

    def __init__(self, store: MetadataStore, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._unreadable: set[str] = set()

    async def load(self, node: str) -> StoredNode | None:
        """Linearizable read. Raises: Unavailable, Corrupt; InvalidRequest: newer format, bad name."""
        record = await self._store.get(keys.node(node))
        if record is None:
            return None
        where = f"{self._store.url}#{record.key}"
        return StoredNode(
            record=records.decode_node(record.value, where=where), version=record.version
        )

    async def all(self) -> Sequence[StoredNode]:
        """Every node that ever registered, by name; those forgotten too. Raises: Unavailable.

        A record that cannot be read (a newer format, damage) is left out, with a line in the log.
        """
        found: list[StoredNode] = []
        start_after = ""
        while page := await self._store.list(keys.NODES, start_after=start_after):
            for record in page:
                where = f"{self._store.url}#{record.key}"
                try:
                    node = records.decode_node(record.value, where=where)
                except (Corrupt, InvalidRequest) as error:
                    self._cannot_read(where, error)
                    continue
                found.append(StoredNode(record=node, version=record.version))
            start_after = page[-1].key
        return found

    async def put(self, record: NodeRecord, *, expect: str | None) -> str:
        """Write under a condition, once; returns the new version.

        Raises: Conflict, OutcomeUnknown, Unavailable: as ``MetadataStore.put``.
        """
        data = records.encode_node(record)
        return await self._store.put(keys.node(record.node), data, expect=expect)

    # --- what administrators do ---

    async def drain(self, node: str) -> NodeRecord:
        """Ask a node to hand over what it holds: no new segments, those it has are sealed.

        ``drained`` in its record says that it may be ended for good. Idempotent.
        Raises: NotFound; InvalidRequest: forgotten; Unavailable, OutcomeUnknown: call it again.
        """
        return await self._change(node, membership.draining, NodeState.DRAINING, NodeState.DRAINED)

    async def cancel_drain(self, node: str) -> NodeRecord:
        """Let a draining or drained node take part again. Idempotent. Raises: as ``drain``."""
        return await self._change(node, membership.active, NodeState.ACTIVE)

    async def forget(self, node: str) -> NodeRecord:
        """Take note that a node is gone for ever: nobody looks for it any more.

        Un-sealed segments that it was a member of live on in the other members.
        Raises: InvalidRequest: it lives. Others as ``drain``.
        """
        seen = await self._known(node)
        if seen.record.is_up and await self._moves(seen):
            raise InvalidRequest(
                f"node {node} lives at {seen.record.address}: drain it, then stop it, then forget it"
            )
        return await self._change(node, membership.forgotten, NodeState.FORGOTTEN)

    def _cannot_read(self, where: str, error: WoodpeckerError) -> None:
        if where not in self._unreadable:
            self._unreadable.add(where)
            _log.error("a LogStore node is left out: %s", error)

    async def _moves(self, seen: StoredNode) -> bool:
        """Watch for as long as a living node can be silent."""
        until_ms = self._runtime.monotonic_ms() + DEAD_AFTER_MS
        while self._runtime.monotonic_ms() < until_ms:
            await self._runtime.sleep_ms(WATCH_MS)
            if (await self._known(seen.record.node)).version != seen.version:
                return True
        return False

    async def _known(self, node: str) -> StoredNode:
        seen = await self.load(node)
        if seen is None:
            raise NotFound(f"no LogStore node {node!r} has ever registered in {self._store.url}")
        return seen

    async def _change(
        self, node: str, make: Callable[[NodeRecord], NodeRecord], *wanted: NodeState
    ) -> NodeRecord:
        """Until the record read shows one of the states wanted, whoever brought that about."""
        deadline_ms = self._runtime.monotonic_ms() + CHANGE_TIMEOUT_MS
        attempt = 0
        while True:
            try:
                seen = await self._known(node)
                if seen.record.state in wanted:
                    return seen.record
                changed = make(seen.record)
                if changed.state not in wanted:
                    raise InvalidRequest(
                        f"node {node} is {seen.record.state}: start it again first"
                    )
                await self.put(changed, expect=seen.version)
                return changed
            except Conflict:  # its next beat was faster
                attempt = 0
            except (OutcomeUnknown, Unavailable):
                attempt += 1
                if self._runtime.monotonic_ms() >= deadline_ms:
                    raise
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))
