"""The adapters of one simulated client, or node: kind ``object`` in the bucket, kind ``quorum`` on nodes."""

from __future__ import annotations

from woodpecker.client.environment import Environment
from woodpecker.core.ids import Kind
from woodpecker.errors import InvalidRequest
from woodpecker.metadata.base import MetadataStore
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.nodes import NodeDirectory
from woodpecker.observability.base import Observer
from woodpecker.rpc.base import Transport
from woodpecker.rpc.memory import MemoryNetwork
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import SegmentStore
from woodpecker.segments.object import ObjectSegments
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.storage.base import ObjectStore
from woodpecker.store_marker import check_store
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.wire import TracedTransport


class Places:
    """What ``app.py`` puts together for a real client. ``name``: by which the network knows it."""

    def __init__(
        self,
        *,
        name: str,
        runtime: Runtime,
        observer: Observer,
        objects: ObjectStore,
        records: MetadataStore,
        network: MemoryNetwork,
        default_kind: Kind,
        trace: Trace | None = None,
    ) -> None:
        self._runtime = runtime
        self._observer = observer
        self._objects = objects
        self._records = records
        self._default_kind = default_kind
        self._transport: Transport = network.transport(name)
        if trace is not None:
            self._transport = TracedTransport(self._transport, name, trace)
        self.directory = NodeDirectory(records, runtime)
        self._in_bucket = ObjectSegments(objects, runtime)
        self._on_nodes = QuorumSegments(self.directory, self._transport, runtime)

    async def open(self) -> Environment:
        """Reach the store; for ``Client``."""
        await check_store(
            self._objects, self._records, new_id=self._runtime.token(), may_create=True
        )
        return Environment(
            url=self._objects.url,
            runtime=self._runtime,
            observer=self._observer,
            catalog=Catalog(self._records, self._runtime),
            places=self,
        )

    async def close(self) -> None:
        """For ``Client``."""
        await self._on_nodes.close()
        await self._in_bucket.close()
        await self.directory.close()
        await self._transport.close()
        await self._records.close()
        await self._objects.close()

    @property
    def default_kind(self) -> Kind:
        return self._default_kind

    def objects(self, storage: str) -> ObjectStore:
        return self._objects

    def segments(self, kind: Kind, storage: str) -> SegmentStore:
        self.check_kind(kind, storage)
        return self._on_nodes if kind is Kind.QUORUM else self._in_bucket

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is Kind.FILE:
            raise InvalidRequest("kind 'file' has threads and files: the simulator cannot have it")

    async def admit(self, storage: str) -> str:
        return storage
