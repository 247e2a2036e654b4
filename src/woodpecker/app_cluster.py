"""Composition of what one client needs to talk to LogStore nodes; each part is made when first used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from woodpecker.access import Access
from woodpecker.errors import Unavailable
from woodpecker.metadata.base import MetadataStore
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.base import ObjectStore

if TYPE_CHECKING:  # a client of a bucket or directory needs none of these
    from woodpecker.codec.messages import Welcome
    from woodpecker.metadata.nodes import NodeDirectory
    from woodpecker.rpc.any_node import AnyNode
    from woodpecker.rpc.base import Transport
    from woodpecker.segments.quorum import QuorumSegments


class Cluster:
    """Transport, directory of nodes and quorum segments of one client. One event loop."""

    def __init__(self, access: Access, runtime: Runtime, seeds: Sequence[str] = ()) -> None:
        self._access = access
        self._runtime = runtime
        self._seeds = seeds
        self.metadata: MetadataStore | None = None  # where nodes are registered, once it is known
        self._transport: Transport | None = None
        self._any_node: AnyNode | None = None
        self._directory: NodeDirectory | None = None
        self._segments: QuorumSegments | None = None

    async def greet(self) -> Welcome:
        """The hello of any of the nodes that were named.

        Raises: Unavailable: none answers. InvalidRequest: they refuse us, or are no LogStore nodes.
        """
        nodes = self._nodes()
        welcome = (await nodes.link()).welcome
        await nodes.close()  # most clients need no more of it; the next request connects again
        return welcome

    @property
    def directory(self) -> NodeDirectory:
        """The nodes registered in the store's metadata."""
        from woodpecker.metadata.nodes import NodeDirectory

        if self._directory is None:
            assert self.metadata is not None, "the client is open"
            self._directory = NodeDirectory(self.metadata, self._runtime)
        return self._directory

    @property
    def segments(self) -> QuorumSegments:
        """The one store of segments of kind quorum, whatever storage they are sealed to."""
        from woodpecker.segments.quorum import QuorumSegments

        if self._segments is None:
            self._segments = QuorumSegments(
                self.directory, self.transport, self._runtime, zone=self._access.zone
            )
        return self._segments

    def objects(self, url: str, storage: str) -> ObjectStore:
        """A bucket read through nodes."""
        from woodpecker.storage.through_nodes import ThroughNodes

        return ThroughNodes(url, storage, self._nodes())

    @property
    def transport(self) -> Transport:
        """Makes links to nodes."""
        from woodpecker.rpc.tcp import TcpTransport

        if self._transport is None:
            self._transport = TcpTransport(self._runtime, self._access)
        return self._transport

    async def close(self) -> None:
        """Close what was made."""
        for part in (self._segments, self._directory, self._any_node, self._transport):
            if part is not None:
                await part.close()

    def _nodes(self) -> AnyNode:
        from woodpecker.rpc.any_node import AnyNode

        if self._any_node is None:
            self._any_node = AnyNode(self.transport, self._addresses, self._runtime)
        return self._any_node

    async def _addresses(self) -> Sequence[str]:
        """Those that are up, and those that were named."""
        if self.metadata is None:
            return self._seeds
        try:
            found = await self.directory.addresses()
        except Unavailable:  # the metadata store is away
            return self._seeds
        return list(dict.fromkeys((*found, *self._seeds)))
