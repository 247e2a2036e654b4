"""The LogStore nodes of a store, as one client sees them: where they are, and which to choose.

The view is refreshed when somebody asks and it is too old: nobody who waits or writes along costs a request.
Liveness is judged by ``core/membership.py``, the choice is ``core/placement.py``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from woodpecker.core import membership
from woodpecker.core.manifest import Ensemble, Manifest, Member
from woodpecker.core.membership import DEAD_AFTER_MS, NodeRecord, NodeState, Sighting
from woodpecker.core.placement import Candidate, Rule, Standing, choose, is_better_known, rule_of
from woodpecker.core.quorum import ack_quorum
from woodpecker.errors import Closed, Unavailable, WoodpeckerError
from woodpecker.metadata.base import MetadataStore
from woodpecker.metadata.node_records import NodeRecords, StoredNode
from woodpecker.runtime.runtime import Runtime

CHOOSE_AGE_MS = 1_000.0  # how old the view may be for a choice
RECHECK_AGE_MS = 500.0  # ... where a node is not found as it was expected
WANTED_AGE_MS = 5_000.0  # ... for the question whether a better ensemble is there
FAILING_MS = 10_000.0  # a node that failed for so long is no blip

_log = logging.getLogger("woodpecker.logstore")


class NodeDirectory:
    """See the module; the port is ``segments/quorum_base.Nodes``. One event loop."""

    def __init__(self, store: MetadataStore, runtime: Runtime) -> None:
        self._records = NodeRecords(store, runtime)
        self._runtime = runtime
        self._nodes: dict[str, NodeRecord] = {}
        self._sightings: dict[str, Sighting] = {}
        self._pressure: dict[str, int] = {}  # as told with an answer, newer than the record's
        self._read_ms: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._judged: dict[tuple[Rule, tuple[Member, ...]], bool] = {}
        self._judged_ms = 0.0
        self._is_closed = False

    async def choose(
        self, manifest: Manifest, *, avoid: AbstractSet[str] = frozenset()
    ) -> Ensemble:
        """Nodes for the next segment of a log; see the port."""
        await self._refresh(CHOOSE_AGE_MS)
        candidates = self._candidates(avoid=avoid)
        chances = [self._runtime.random() for _ in candidates]
        chosen = choose(candidates, rule_of(manifest.options), chances)
        if isinstance(chosen, str):
            raise Unavailable(f"log {manifest.name!r}: {chosen}")
        members = tuple(Member(node=c.node, incarnation=c.incarnation) for c in chosen)
        return Ensemble(members=members, acks=ack_quorum(len(members)))

    async def address(self, member: Member) -> str:
        """Where the member is now; see the port. A past incarnation is found as well."""
        if not self._is_found(member):
            await self._refresh(RECHECK_AGE_MS)
        record = self._nodes.get(member.node)
        if record is None:
            raise Unavailable(f"node {member.node} is not registered in this store")
        if record.state is NodeState.FORGOTTEN:
            raise _gone(f"node {member.node} was declared gone for ever")
        if not record.speaks_for(member.incarnation):
            raise _gone(
                f"node {member.node} came back without what it held: incarnation "
                f"{member.incarnation} is gone, it is {record.incarnation} now"
            )
        if not record.is_up:
            raise Unavailable(f"node {member.node} ({record.address}) was stopped")
        return record.address

    async def addresses(self) -> Sequence[str]:
        """``host:port`` of all nodes that should be up. Raises: Unavailable: none was ever seen."""
        await self._refresh(CHOOSE_AGE_MS)
        return [
            record.address
            for node, record in self._nodes.items()
            if record.is_up and not self._sightings[node].is_silent
        ]

    def zone_of(self, node: str) -> str:
        """The zone of a node as last read; "" if unknown."""
        record = self._nodes.get(node)
        return "" if record is None else record.zone

    def wanted(self, ensemble: Ensemble, manifest: Manifest) -> bool:
        """Whether a better ensemble could be chosen now; see the port. Cheap: asked by every writer."""
        self._refresh_soon(WANTED_AGE_MS)
        now_ms = self._runtime.monotonic_ms()
        if now_ms - self._judged_ms > CHOOSE_AGE_MS:
            self._judged.clear()
            self._judged_ms = now_ms
        rule = rule_of(manifest.options)
        key = rule, ensemble.members
        if key not in self._judged:
            members = [(member.node, member.incarnation) for member in ensemble.members]
            # a blip is no reason to leave a node, and nobody leaves for a node that ``choose`` avoids
            self._judged[key] = all(
                is_better_known(self._candidates(failing_ms=failing_ms), rule, members)
                for failing_ms in (FAILING_MS, 0.0)
            )
        return self._judged[key]

    def failed(self, node: str) -> None:
        """The node did not answer: placement avoids it for a while."""
        sighting = self._sightings.get(node)
        if sighting is not None:
            self._sightings[node] = membership.failed(sighting, self._runtime.monotonic_ms())

    def answered(self, node: str, *, pressure: int = 0) -> None:
        """The node answered; ``pressure`` as in ``Appended``. Called for every block."""
        sighting = self._sightings.get(node)
        if sighting is not None:
            self._sightings[node] = membership.answered(sighting)
            self._pressure[node] = pressure

    async def close(self) -> None:
        """Stop a refresh under way."""
        self._is_closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    # --- the view ---

    def _is_found(self, member: Member) -> bool:
        """Whether the view shows the member where it can be asked, and asking it did not just fail."""
        record = self._nodes.get(member.node)
        return (
            record is not None
            and record.is_up
            and record.speaks_for(member.incarnation)
            and self._sightings[member.node].failures == 0
        )

    def _age_ms(self) -> float:
        if self._read_ms is None:
            return float("inf")
        return self._runtime.monotonic_ms() - self._read_ms

    async def _refresh(self, max_age_ms: float) -> None:
        """Make sure that the view is no older; while the store is away an old one must do.

        Raises: Unavailable: there has never been one.
        """
        if self._age_ms() <= max_age_ms:
            return
        self._refresh_soon(max_age_ms)
        if self._refreshing is None or self._is_closed:
            raise Closed("this client is closed; connect again")
        task = asyncio.shield(self._refreshing)
        (failure,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(failure, asyncio.CancelledError):
            raise Closed("this client was closed")
        if isinstance(failure, WoodpeckerError):
            if self._read_ms is None:
                raise Unavailable(f"the LogStore nodes are not known yet: {failure}") from failure
            _log.debug("the view of the nodes stays %.0f ms old: %s", self._age_ms(), failure)
        elif failure is not None:
            raise failure

    def _refresh_soon(self, max_age_ms: float) -> None:
        """Read the records in the background; one read serves all who wait."""
        is_running = self._refreshing is not None and not self._refreshing.done()
        if self._age_ms() <= max_age_ms or is_running or self._is_closed:
            return
        self._refreshing = self._runtime.spawn(self._read(), "LogStore nodes")
        self._refreshing.add_done_callback(_look_at_error)

    async def _read(self) -> None:
        began_ms = self._runtime.monotonic_ms()
        stored = await self._records.all()
        self._show(stored, began_ms)

    def _show(self, stored: Sequence[StoredNode], now_ms: float) -> None:
        for node in stored:
            name, before = node.record.node, self._sightings.get(node.record.node)
            if before is None or before.version != node.version:
                self._pressure.pop(name, None)
            if before is not None and self._nodes[name].boot != node.record.boot:
                before = membership.answered(before)  # started again: what failed was before that
            self._nodes[name] = node.record
            self._sightings[name] = membership.looked(before, node.version, now_ms)
        self._read_ms = now_ms
        self._judged.clear()

    # --- what placement sees ---

    def _candidates(
        self, *, avoid: AbstractSet[str] = frozenset(), failing_ms: float = 0.0
    ) -> list[Candidate]:
        """All nodes but the forgotten; one counts as failing once it has failed for ``failing_ms``."""
        now_ms = self._runtime.monotonic_ms()
        return [
            self._candidate(record, now_ms, avoid=node in avoid, failing_ms=failing_ms)
            for node, record in sorted(self._nodes.items())
            if record.state is not NodeState.FORGOTTEN
        ]

    def _candidate(
        self, record: NodeRecord, now_ms: float, *, avoid: bool, failing_ms: float
    ) -> Candidate:
        sighting, load = self._sightings[record.node], record.load
        pressure = self._pressure.get(record.node, load.pressure)
        standing, why = Standing.FINE, ""
        if avoid or _is_avoided(sighting, now_ms, failing_ms):
            standing, why = Standing.AVOIDED, "failed lately"
        if record.state is NodeState.DRAINING:
            standing, why = Standing.DRAINING, "is draining"
        if pressure > 1:
            standing, why = Standing.FULL, "has no room"
        if record.state is NodeState.DRAINED:
            standing, why = Standing.OUT, "is drained"
        if sighting.is_silent:
            standing, why = (
                Standing.OUT,
                f"has been silent for {DEAD_AFTER_MS / 1000:.0f} s or more",
            )
        if not record.is_up:
            standing, why = Standing.OUT, "was stopped"
        return Candidate(
            node=record.node,
            incarnation=record.incarnation,
            zone=record.zone,
            group=record.group,
            standing=standing,
            pressure=pressure,
            unsealed_bytes=load.unsealed_bytes,
            unsealed_segments=load.unsealed_segments,
            why=why,
        )


def _is_avoided(sighting: Sighting, now_ms: float, failing_ms: float) -> bool:
    since_ms = sighting.failing_since_ms
    is_failing = since_ms is not None and now_ms - since_ms >= failing_ms
    return is_failing and now_ms < sighting.avoided_until_ms


def _gone(text: str) -> Unavailable:
    """Waiting does not help."""
    error = Unavailable(text)
    error.retryable = False
    return error


def _look_at_error(task: asyncio.Task[None]) -> None:
    """A read nobody waits for any more may fail without a word: the next one tells."""
    if not task.cancelled():
        task.exception()
