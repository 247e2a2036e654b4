"""A whole streaming service in this process, over one store: no server, no port, no further package.

    async with wp.connect("file:///dir") as store, Standalone(store) as service:
        async with service.connect() as client:
            channel = await client.create_channel("orders", exist_ok=True)

One process at a time has the service of a store; who starts next goes on where it stopped. A cluster on the same
store can follow later, and the other way round.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self

from woodpecker.client.client import Client
from woodpecker.streaming.client.client import TIMEOUT_S, StreamingClient
from woodpecker.streaming.member import Member, Roles
from woodpecker.streaming.settings import DEFAULTS, StreamSettings
from woodpecker.streaming.transport.memory import MemoryNetwork, MemoryServer

NAME = "standalone"
PCHANNELS = 4
# It is alone, so nobody needs to be patient with it: after a crash it leads again within three seconds.
SETTINGS = replace(
    DEFAULTS, pchannels=PCHANNELS, expected_nodes=1, beat_ms=1_000, session_ttl_ms=3_000
)
# Where each sign of life is a request that costs money.
BUCKET_SETTINGS = replace(SETTINGS, beat_ms=10_000, session_ttl_ms=30_000)


def settings_for(store: Client) -> StreamSettings:
    """Settings of a service of one process on this store."""
    in_bucket = store.environment.catalog.store.url.startswith(("s3://", "gs://", "az://"))
    return BUCKET_SETTINGS if in_bucket else SETTINGS


class Standalone:
    """See the module; use it in ``async with``.

    Args:
        store: an open client, which stays the caller's.
        mode: of the logs of new pchannels; None: the store's default.
    """

    def __init__(self, store: Client, *, mode: str | None = None) -> None:
        self._store = store
        self._mode = mode
        self._network: MemoryNetwork | None = None
        self._server: MemoryServer | None = None
        self._member: Member | None = None

    def connect(self, *, timeout_s: float = TIMEOUT_S, name: str = "") -> StreamingClient:
        """A client of this service, not open yet; close it before the service."""
        assert self._network is not None, "use it in 'async with'"
        return StreamingClient(
            self._network.dialer(name or "client"),
            [NAME],
            timeout_s=timeout_s,
            name=name,
            runtime=self._network.runtime,
        )

    async def __aenter__(self) -> Self:
        env = self._store.environment
        self._network = network = MemoryNetwork(env.runtime)
        settings = settings_for(self._store)
        roles = Roles(coordinator=True, node=NAME, mode=self._mode)
        self._member = member = Member(
            self._store, network.dialer(NAME), roles, address=NAME, settings=settings
        )
        self._server = network.serve(NAME, member.services)
        await member.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._member is not None
        assert self._server is not None
        await self._member.stop()
        await self._server.close()
