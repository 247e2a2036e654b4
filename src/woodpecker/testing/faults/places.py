"""Where a run keeps its log: a local directory, or real servers on loopback or on hosts of a network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from woodpecker.app import SQLITE_FILE
from woodpecker.testing.servers.etcd import EtcdCluster, EtcdMember
from woodpecker.testing.servers.fault_proxy import FaultProxy
from woodpecker.testing.servers.logstore import WOODPECKER, LogStoreNode
from woodpecker.testing.servers.process import Host
from woodpecker.testing.servers.seaweed import SeaweedServer

STORES = "stores"  # the host of etcd and SeaweedFS
TIED = Host(is_tied=True)
MODES = {"file": "file", "directory": "object", "object": "object", "quorum": "quorum"}
ON_SERVERS = ("object", "quorum")  # kinds of places with a SeaweedFS

Door = tuple[str, str | None]
"""Arguments ``url`` and ``metadata`` of ``connect``."""


class Place:
    """A store for one run; ``async with``. Its credentials are in the environment meanwhile.

    Args:
        kind: "file" (log of kind file in a directory), "directory" (of kind object there, blocks made
            by exclusive links), "object" (of kind object on SeaweedFS), "quorum" (LogStore nodes, sealed
            segments on SeaweedFS, metadata in etcd).
        proxied: a fault proxy stands before SeaweedFS, for clients and nodes.
        etcd: metadata are kept in an etcd.
        nodes: how many LogStore nodes; kind "quorum" only. program: what they run.
        host_of: where ``STORES`` and each node run.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        *,
        proxied: bool = False,
        etcd: bool = False,
        seed: int = 0,
        nodes: int = 3,
        program: Sequence[str] = WOODPECKER,
        host_of: Callable[[str], Host] = lambda _: TIED,
    ) -> None:
        self.kind = kind
        self._directory = directory
        self._proxied = proxied
        self._has_etcd = etcd or kind == "quorum"
        self._seed = seed
        self._node_count = nodes if kind == "quorum" else 0
        self._program = program
        self._host_of = host_of
        self._environment: dict[str, str | None] = {}
        self._cluster: EtcdCluster | None = None
        self.server: SeaweedServer | None = None
        self.proxy: FaultProxy | None = None
        self.nodes: list[LogStoreNode] = []
        self.metadata: str | None = None
        self.url = (directory / "store").as_uri()

    @property
    def mode(self) -> str:
        """The kind of segments this place is for; given to ``create_log``."""
        return MODES[self.kind]

    @property
    def doors(self) -> list[Door]:
        """Ways in for clients."""
        found: list[Door] = [(self.url, self.metadata)]
        if self.nodes:
            found.append(("wp://" + ",".join(node.address for node in self.nodes), None))
        return found

    @property
    def database(self) -> Path | None:
        """The file of SQLite that holds the metadata, if that is where they are."""
        return None if self.kind in ON_SERVERS else self._directory / "store" / SQLITE_FILE

    @property
    def etcd(self) -> EtcdMember:
        """The one member of the metadata store."""
        assert self._cluster is not None, "this run has no etcd"
        return self._cluster.members[0]

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _start(self) -> None:
        host = self._host_of(STORES)
        if self.kind in ON_SERVERS:
            self.server = SeaweedServer(self._directory / "seaweed", host=host)
            self._export(dict(self.server.credentials))
            await self.server.start()
            self.url = self.server.url(prefix="run")
        if self._proxied:
            assert self.server is not None, "only a server can have a proxy"
            self.proxy = FaultProxy(self.server.endpoint, seed=self._seed)
            await self.proxy.start()
            self.url = f"s3://bucket/run?endpoint={self.proxy.endpoint}"
        if self._has_etcd:
            self._cluster = await asyncio.to_thread(
                EtcdCluster, self._directory / "etcd", host=host
            )
            self.metadata = f"etcd://{self.etcd.endpoint}/run"
        for number in range(1, self._node_count + 1):
            self.nodes.append(await self.make_node(f"node-{number}"))
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            await node.wait_ready()

    async def make_node(self, name: str) -> LogStoreNode:
        """A node, not started yet."""
        return LogStoreNode(
            name,
            self._directory,
            store=self.url,
            metadata=self.metadata,
            program=self._program,
            host=self._host_of(name),
        )

    async def __aexit__(self, *exc: object) -> None:
        for node in self.nodes:
            await node.kill()
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close)
        if self.proxy is not None:
            await self.proxy.stop()
        if self.server is not None:
            await self.server.kill()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _export(self, variables: dict[str, str]) -> None:
        for name, value in variables.items():
            self._environment[name] = os.environ.get(name)
            os.environ[name] = value
