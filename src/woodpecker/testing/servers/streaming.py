"""Coordinators and streaming nodes as real processes."""

from __future__ import annotations

import sys
from pathlib import Path

from woodpecker.testing.servers.process import LOOPBACK, Host, ServerProcess, free_port

WOODPECKER = (sys.executable, "-m", "woodpecker")


class StreamingMember(ServerProcess):
    """``woodpecker node serve`` (with a name) or ``woodpecker coordinator serve`` (``node`` "").

    Args:
        name: of its directory in ``directory``.
        store, metadata: URLs, as for a client.
        ttl_ms: how long it may be silent before it is gone.
        advertise_port: what others are told instead of its own port (a relay).
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        node: str = "",
        store: str,
        metadata: str | None = None,
        mode: str | None = None,
        ttl_ms: int = 6_000,
        advertise_port: int | None = None,
        host: Host = LOOPBACK,
    ) -> None:
        self.name = name
        self.node = node
        self.port = free_port()
        self.address = f"{host.address}:{advertise_port or self.port}"
        self.http = f"{host.address}:{free_port()}"
        flags = {
            "node": node,
            "listen": f"{host.address}:{self.port}",
            "advertise": self.address,
            "http": self.http,
            "store": store,
            "metadata": metadata,
            "session-ttl-ms": str(ttl_ms),
            "beat-ms": str(ttl_ms // 4),
            "mode": None if node else mode,
        }
        given = [word for flag, value in flags.items() if value for word in (f"--{flag}", value)]
        super().__init__(
            [*WOODPECKER, "node" if node else "coordinator", "serve", *given],
            ready_url=f"http://{self.http}/readyz",
            data_dir=directory / name,
            host=host,
        )
