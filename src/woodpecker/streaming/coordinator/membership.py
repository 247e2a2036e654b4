"""The nodes: their sessions, read every second, and a Status stream to each of them.

The record of a node that has been gone for a day is removed: nothing changes, for a node without a record is gone.
What it all means is ``core/fleet.py``. The stream is the direct question to a node whose session lapses: one
that answers lives, whatever its record says.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from woodpecker.core.backoff import delay_ms
from woodpecker.errors import Conflict, WoodpeckerError
from woodpecker.streaming.codec.records import NODES
from woodpecker.streaming.coordinator.jobs import Jobs
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.core import fleet
from woodpecker.streaming.core.assignment import HOLDING, NodeLife, Sight
from woodpecker.streaming.core.fleet import HEARD_MS, Fleet, Standing
from woodpecker.streaming.core.records import NodeRecord, Owner
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.frames import NodeStatus, PchannelStatus, WatchStatus

LOOK_MS = 1_000.0
FIRST_WORD_S = 2.0  # a node that is asked answers within
RETRY_LIMIT_MS = 1_000.0
MOST_NODES = 4096
FORGET_MS = 24 * 3_600_000.0

_log = logging.getLogger("woodpecker.streaming")


class Membership:
    """See the module. One event loop.

    Args:
        on_change: something is known that was not: of this pchannel, or (None) of nodes.
    """

    def __init__(self, means: Means, on_change: Callable[[str | None], None]) -> None:
        self._records = means.records
        self._runtime = means.runtime
        self._dialer = means.dialer
        self._ttl_ms = float(means.settings.session_ttl_ms)
        self._epoch = means.epoch
        self._on_change = on_change
        self._gone_ms: dict[str, float] = {}  # since when, by name
        self._forgotten: dict[str, str] = {}  # names with the versions of their records
        self._links = Jobs(means.runtime, at_once=MOST_NODES)
        self._statuses: dict[str, dict[str, PchannelStatus]] = {}  # of the life in the fleet
        self.fleet = Fleet()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                    for name in self._long_gone():
                        await self._forget(name)
                except WoodpeckerError as error:
                    _log.debug("nodes cannot be read: %s", error)
                await self._runtime.sleep_ms(LOOK_MS)
        finally:
            await self._links.stop()

    async def look(self) -> None:
        """Read all sessions once, and see to the links. Raises: Unavailable."""
        stored = await self._records.all(NODES)
        seen = {
            name: (item.record, item.version)
            for name, item in stored.items()
            if self._forgotten.get(name) != item.version
        }
        before = self.fleet
        self.fleet = fleet.looked_at(before, seen, self._runtime.monotonic_ms(), self._ttl_ms)
        for name, node in self.fleet.nodes.items():
            old = before.nodes.get(name)
            if old is None or old.record.incarnation != node.record.incarnation:
                self._statuses.pop(name, None)
            if node.record.is_up:
                link = f"link to node {name} {node.record.incarnation}"
                self._links.start(link, self._keep_link(node.record))
        if self.fleet != before:
            self._on_change(None)

    # --- nodes that do not come back ---

    def _long_gone(self) -> list[str]:
        """Those to forget; what a person has frozen is kept."""
        now_ms = self._runtime.monotonic_ms()
        self._gone_ms = {
            name: self._gone_ms.get(name, now_ms)
            for name, node in self.fleet.nodes.items()
            if self.standing(name, node.record.incarnation) is Standing.GONE
            and not node.record.frozen
        }
        return [name for name, since in self._gone_ms.items() if now_ms - since >= FORGET_MS]

    async def _forget(self, name: str) -> None:
        """Remove the record, unless it has just come back. Raises: Unavailable, OutcomeUnknown: later again."""
        node = self.fleet.nodes.get(name)
        if node is None:
            return
        version = node.sighting.version
        with suppress(Conflict):
            if not await self._records.remove(NODES.key(name), expect=version):
                self._forgotten[name] = version  # a bucket removes nothing: no more shown
            _log.info("node %s has been gone for a day: its record is removed", name)

    # --- what others ask ---

    def standing(self, node: str, incarnation: str) -> Standing:
        """Of one life of a node."""
        return self.fleet.standing(node, incarnation, self._runtime.monotonic_ms(), self._ttl_ms)

    def standings(self) -> Counter[str]:
        """How many nodes are in which standing."""
        nodes = self.fleet.nodes.items()
        return Counter(self.standing(name, node.record.incarnation) for name, node in nodes)

    def sight(self, owner: Owner, pchannel: str) -> Sight:
        """Of one owner of a pchannel."""
        node = self.fleet.nodes.get(owner.node)
        standing = self.standing(owner.node, owner.incarnation)
        if node is None or node.record.incarnation != owner.incarnation:
            return Sight(standing=standing, is_heard=False)
        return Sight(
            standing=standing,
            is_heard=node.is_heard(self._runtime.monotonic_ms()),
            status=self._statuses.get(owner.node, {}).get(pchannel),
        )

    def statuses(self, node: str) -> dict[str, PchannelStatus]:
        """What a node last said of its pchannels; not to be changed."""
        return self._statuses.get(node, {})

    def holders(self) -> dict[str, tuple[Owner, ...]]:
        """By pchannel: which nodes that are heard say that they hold it, and at which terms."""
        now_ms = self._runtime.monotonic_ms()
        found: dict[str, tuple[Owner, ...]] = {}
        for name, node in self.fleet.nodes.items():
            if not node.is_heard(now_ms):
                continue
            incarnation, address = node.record.incarnation, node.record.address
            for status in self.statuses(name).values():
                if status.state in HOLDING:
                    holder = Owner(
                        node=name, incarnation=incarnation, address=address, term=status.term
                    )
                    found[status.pchannel] = (*found.get(status.pchannel, ()), holder)
        return found

    def fit(self, level: int) -> Sequence[NodeLife]:
        """Nodes that may be given something new, by name."""
        now_ms = self._runtime.monotonic_ms()
        return [
            NodeLife(node=name, incarnation=node.record.incarnation, address=node.record.address)
            for name, node in self.fleet.nodes.items()
            if self.fleet.is_fit(name, now_ms, level)
        ]

    def told(self, node: str, incarnation: str, status: PchannelStatus) -> None:
        """A node's reply; what its Status stream says of the same term is newer."""
        known = self.fleet.nodes.get(node)
        if known is None or known.record.incarnation != incarnation:
            return
        statuses = self._statuses.setdefault(node, {})
        before = statuses.get(status.pchannel)
        if before is None or before.term < status.term:
            statuses[status.pchannel] = status
            self._on_change(status.pchannel)

    # --- links ---

    async def _keep_link(self, record: NodeRecord) -> None:
        """Hear the node, again and again, while this is the life in its record and that says it is up."""
        failures = 0
        while self._is_current(record):
            began_ms = self._runtime.monotonic_ms()
            if await self._hear(record):
                failures = 0
            failures += 1
            self.fleet = fleet.unreached(
                self.fleet,
                record.node,
                record.incarnation,
                began_ms,
                self._runtime.monotonic_ms(),
                self._ttl_ms,
            )
            self._on_change(None)
            pause_ms = delay_ms(failures, self._runtime.random(), limit_ms=RETRY_LIMIT_MS)
            await self._runtime.sleep_ms(pause_ms)

    def _is_current(self, record: NodeRecord) -> bool:
        node = self.fleet.nodes.get(record.node)
        return (
            node is not None
            and node.record.incarnation == record.incarnation
            and node.record.address == record.address
            and node.record.is_up
        )

    async def _hear(self, record: NodeRecord) -> bool:
        """One Status stream, to its end; whether anything was heard."""
        was_heard = False
        stream = self._dialer.endpoint(record.address).status()
        try:
            async with asyncio.timeout(FIRST_WORD_S):
                await stream.send(WatchStatus(epoch=self._epoch))
                frame = await stream.receive()
            while frame is not None and self._is_current(record):
                if (frame.node, frame.incarnation) != (record.node, record.incarnation):
                    return was_heard  # another process has its address
                self._heard(frame)
                was_heard = True
                async with asyncio.timeout(HEARD_MS / 1000):
                    frame = await stream.receive()
        except (Refused, TimeoutError) as error:
            _log.debug("node %s is not heard: %s", record.node, error)
        finally:
            stream.cut()
        return was_heard

    def _heard(self, frame: NodeStatus) -> None:
        now_ms, off_us = self._runtime.monotonic_ms(), frame.clock_us - self._runtime.now_us()
        node = self.fleet.nodes[frame.node]
        was_heard = node.is_heard(now_ms)
        self.fleet = fleet.heard(
            self.fleet, frame.node, frame.incarnation, now_ms, clock_off_us=off_us
        )
        changed = {status.pchannel: status for status in frame.pchannels}
        if frame.is_full:
            self._statuses[frame.node] = changed
        else:
            self._statuses.setdefault(frame.node, {}).update(changed)
        if frame.is_full or not was_heard:
            self._on_change(None)
        for name in changed:
            self._on_change(name)
