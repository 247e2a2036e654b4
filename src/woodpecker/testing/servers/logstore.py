"""LogStore nodes as real processes: started, killed, paused, robbed of their disk."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from woodpecker.testing.servers.process import LOOPBACK, Host, ServerProcess, free_port

ASK_TIMEOUT_S = 2.0
WOODPECKER = (sys.executable, "-m", "woodpecker")


class LogStoreNode(ServerProcess):
    """``woodpecker logstore serve``; its disk is ``data_dir``/disk, its log ``data_dir``/server.log.

    Args:
        name: of the node, and of its directory in ``directory``.
        store, metadata: URLs, as for a client.
        host: where it listens. advertise_port: what others are told instead of its own port (a relay).
        program: the command line of Woodpecker, or of one with a planted bug.
        env: added to the environment (credentials).
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        store: str,
        metadata: str | None = None,
        zone: str = "",
        host: Host = LOOPBACK,
        advertise_port: int | None = None,
        program: Sequence[str] = WOODPECKER,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.address = f"{host.address}:{advertise_port or self.port}"
        self.http = f"{host.address}:{free_port()}"
        self.disk = directory / name / "disk"
        flags = {
            "node": name,
            "dir": str(self.disk),
            "listen": f"{host.address}:{self.port}",
            "advertise": self.address,
            "http": self.http,
            "store": store,
            "metadata": metadata,
            "zone": zone,
        }
        given = [word for flag, value in flags.items() if value for word in (f"--{flag}", value)]
        super().__init__(
            [*program, "logstore", "serve", *given],
            ready_url=f"http://{self.http}/readyz",
            data_dir=directory / name,
            env=env,
            host=host,
        )

    def lose_disk(self) -> None:
        """The disk is replaced by an empty one; only while it does not run."""
        assert not self.is_running, f"{self.name} still uses its disk"
        shutil.rmtree(self.disk, ignore_errors=True)

    async def status(self) -> dict[str, Any]:
        """What it says of itself by HTTP. Raises: aiohttp.ClientError, TimeoutError: it does not answer."""
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{self.http}/status") as reply,
        ):
            found: dict[str, Any] = json.loads(await reply.read())
            return found
