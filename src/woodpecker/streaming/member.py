"""One member of a streaming service: a coordinator, a node, or both, over one client of the log layer.

What it is reached by, and what it reaches others by, is given to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from woodpecker.client.client import Client
from woodpecker.observability.base import SILENT, Observer
from woodpecker.streaming.coordinator.service import Coordinator
from woodpecker.streaming.node.service import StreamingNode
from woodpecker.streaming.ports import AssignmentServer, Dialer
from woodpecker.streaming.settings import StreamSettings
from woodpecker.streaming.transport.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What a member is, and what it needs to know for that.

    Attributes:
        coordinator: whether it stands for coordinator.
        node: its name as a node, for ever; "": it is none.
        zone: of the node.
        mode: of the logs of new pchannels; None: the store's default.
    """

    coordinator: bool = False
    node: str = ""
    zone: str = ""
    mode: str | None = None


class Member:
    """See the module. Serve ``services`` at ``address``, then ``start``. One event loop.

    Args:
        client: open; closed by the caller, after ``stop``.
        address: where others reach it.
    """

    def __init__(
        self,
        client: Client,
        dialer: Dialer,
        roles: Roles,
        *,
        address: str,
        settings: StreamSettings,
        observer: Observer = SILENT,
    ) -> None:
        env = client.environment
        self.coordinator: Coordinator | None = None
        self.node: StreamingNode | None = None
        if roles.coordinator:
            self.coordinator = Coordinator(
                env.catalog.store,
                env.runtime,
                dialer,
                PchannelLogs(client, roles.mode, settings.append_timeout_ms).make,
                address=address,
                settings=settings,
                observer=observer,
            )
        if roles.node:
            self.node = StreamingNode(
                client,
                env.catalog.store,
                env.runtime,
                node=roles.node,
                address=address,
                zone=roles.zone,
                dialer=dialer,
                settings=settings,
                observer=observer,
            )

    @property
    def services(self) -> Services:
        """What it answers."""
        relay = None if self.node is None else self.node.relay
        assignment: AssignmentServer | None = self.coordinator or relay
        return Services(handler=self.node, manager=self.node, assignment=assignment)

    async def start(self) -> None:
        """Take part. Raises: Unavailable, OutcomeUnknown: the metadata store is away; try again."""
        if self.node is not None:
            await self.node.register()
        if self.coordinator is not None:
            self.coordinator.start()

    async def stop(self) -> None:
        """Leave in good order: nobody waits for this member then. Decisions end first."""
        if self.coordinator is not None:
            await self.coordinator.stop()
        if self.node is not None:
            await self.node.stop()


class PchannelLogs:
    """Makes the logs of pchannels."""

    def __init__(self, client: Client, mode: str | None, append_timeout_ms: int) -> None:
        self._client = client
        self._options: dict[str, Any] = {} if mode is None else {"mode": mode}
        self._options |= {"timestamps": "exact", "append_timeout_ms": append_timeout_ms}

    async def make(self, name: str) -> str:
        """The id of the log, which is made if it is not there. Raises: WoodpeckerError."""
        log = await self._client.create_log(name, exist_ok=True, **self._options)
        return log.log_id
