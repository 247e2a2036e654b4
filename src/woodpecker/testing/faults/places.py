"""Where a run keeps its log: a local directory, or real servers on loopback."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Self

from woodpecker.app import SQLITE_FILE
from woodpecker.testing.servers.etcd import EtcdCluster, EtcdMember
from woodpecker.testing.servers.fault_proxy import FaultProxy
from woodpecker.testing.servers.seaweed import SeaweedServer


class Place:
    """A store for one run; ``async with``. Its credentials are in the environment meanwhile.

    Args:
        kind: "file" (log of kind file in a directory), "directory" (of kind object there, blocks made
            by exclusive links), "object" (of kind object on SeaweedFS). proxied: a fault proxy stands before the server.
        etcd: metadata are kept in an etcd.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        *,
        proxied: bool = False,
        etcd: bool = False,
        seed: int = 0,
    ) -> None:
        self.kind = kind
        self._directory = directory
        self._proxied = proxied
        self._has_etcd = etcd
        self._seed = seed
        self._environment: dict[str, str | None] = {}
        self._cluster: EtcdCluster | None = None
        self.server: SeaweedServer | None = None
        self.proxy: FaultProxy | None = None
        self.metadata: str | None = None
        self.url = (directory / "store").as_uri()

    @property
    def mode(self) -> str:
        """The kind of segments this place is for; given to ``create_log``."""
        return "file" if self.kind == "file" else "object"

    @property
    def database(self) -> Path | None:
        """The file of SQLite that holds the metadata, if that is where they are."""
        return None if self.kind == "object" else self._directory / "store" / SQLITE_FILE

    @property
    def etcd(self) -> EtcdMember:
        """The one member of the metadata store."""
        assert self._cluster is not None, "this run has no etcd"
        return self._cluster.members[0]

    async def __aenter__(self) -> Self:
        if self.kind == "object":
            self.server = SeaweedServer(self._directory / "seaweed")
            await self.server.start()
            self._export(dict(self.server.credentials))
            self.url = self.server.url(prefix="run")
        if self._proxied:
            assert self.server is not None, "only a server can have a proxy"
            self.proxy = FaultProxy(self.server.endpoint, seed=self._seed)
            await self.proxy.start()
            self.url = f"s3://bucket/run?endpoint={self.proxy.endpoint}"
        if self._has_etcd:
            self._cluster = await asyncio.to_thread(EtcdCluster, self._directory / "etcd")
            self.metadata = f"etcd://{self.etcd.endpoint}/run"
        return self

    async def __aexit__(self, *exc: object) -> None:
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
