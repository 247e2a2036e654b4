"""The session of a streaming node: its record, and the beats that tell coordinators that it lives.

A process that starts under a node's name takes the record over at once, with an incarnation of its own;
the process before it, should it still live, finds that out with its next beat and stops. Safety never
rests on this: the fences of the logs do that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.codec.records import NODES
from woodpecker.streaming.core.records import NodeRecord
from woodpecker.streaming.metadata.hold import Hold
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.settings import StreamSettings


class NodeSession:
    """See the module. One event loop.

    Args:
        on_change: a coordinator has changed the record (``draining``, ``frozen``).
        on_lost: the record is another process's: stop at once. Called once, with the reason.
    """

    def __init__(
        self,
        records: StreamRecords,
        runtime: Runtime,
        node: str,
        *,
        settings: StreamSettings,
        on_change: Callable[[NodeRecord], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.node = node
        self.incarnation = runtime.token()
        self._hold = Hold(
            records,
            runtime,
            NODES.key(node),
            what=f"streaming node {node}",
            is_mine=lambda record: record.incarnation == self.incarnation,
            beaten=lambda record: replace(record, beat=record.beat + 1),
            on_change=on_change,
            on_lost=on_lost,
            beat_ms=settings.beat_ms,
        )

    @property
    def record(self) -> NodeRecord:
        """As last written or read."""
        return self._hold.record

    @property
    def beat_age_ms(self) -> float:
        """Time since the last beat that was surely written; grows while the metadata store is away."""
        return self._hold.proof_age_ms

    async def register(
        self,
        *,
        address: str,
        zone: str = "",
        version: str = "",
        features_min: int = 1,
        features_max: int = 1,
    ) -> NodeRecord:
        """Make the record this process's and begin to beat. Serve ManagerService at ``address`` before.

        A drain outlives a crash of the node, and ends with a stop in good order.
        Raises: Unavailable, OutcomeUnknown: not within 30 s. InvalidRequest, Corrupt: the name, the record.
        """

        def decide(before: NodeRecord | None) -> NodeRecord:
            if before is not None and before.incarnation == self.incarnation:
                return before
            return NodeRecord(
                node=self.node,
                incarnation=self.incarnation,
                address=address,
                zone=zone,
                version=version,
                features_min=features_min,
                features_max=features_max,
                draining=before is not None and before.draining and before.is_up,
                frozen=before is not None and before.frozen,
                beat=0 if before is None else before.beat + 1,
            )

        return await self._hold.take(decide)

    async def stop(self) -> None:
        """Say goodbye, when nothing is served any more: nobody waits for this node then."""
        await self._hold.stop(lambda record: replace(record, is_up=False, beat=record.beat + 1))

    async def abandon(self) -> None:
        """End the beats without a word, as a crash would."""
        await self._hold.stop()
