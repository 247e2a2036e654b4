"""Where pchannels go: the lightest fit node for those without one, and a few moves now and then."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.coordinator.membership import Membership
from woodpecker.streaming.core import balance
from woodpecker.streaming.core.assignment import NodeLife
from woodpecker.streaming.core.balance import Load, Move
from woodpecker.streaming.core.fleet import Standing
from woodpecker.streaming.core.records import Assignment, PchannelRecord, Policy
from woodpecker.streaming.frames import PchannelStatus

MOVES_AT_ONCE = 3
LAG_LIMIT_MS = 10_000
FIRST_WAIT_MS = 15_000.0  # of the first start, for the nodes that are expected
GATHER_MS = 3_000.0  # of the first start, after the first node, if no number is expected
LINK_WAIT_MS = 2_000.0  # of a new coordinator, for its links to nodes that are up

_log = logging.getLogger("woodpecker.streaming")


class Balancer:
    """Decides by what nodes report; counts what it has just given away. One event loop."""

    def __init__(self, means: Means, membership: Membership) -> None:
        self._runtime = means.runtime
        self._membership = membership
        self._settings = means.settings
        self._began_ms = self._runtime.monotonic_ms()
        self._first_node_ms: float | None = None
        self.is_settled = False
        self._totals: dict[str, Load] = {}
        self._loads: dict[str, Load] = {}  # by pchannel, as last served
        self._moved_ms = self._began_ms
        self.policy = Policy()
        self.level = 1  # of features

    def measure(self, records: Mapping[str, PchannelRecord]) -> None:
        """Count anew what each node has; before a round of choices."""
        held = self._held(records)
        self._totals = {node: balance.total(loads) for node, loads in held.items()}
        self.is_settled = self.is_settled or self._settles(records)

    def choose(self, avoid: Collection[str]) -> NodeLife | None:
        """The fit node that has least, but none of ``avoid``; None: there is none (yet)."""
        if not self.is_settled:
            return None
        fit = {life.node: life for life in self._membership.fit(self.level)}
        node = balance.lightest(self._totals, [name for name in fit if name not in avoid])
        return None if node is None else fit[node]

    def life(self, node: str) -> NodeLife | None:
        """That node, if it is fit."""
        return next((x for x in self._membership.fit(self.level) if x.node == node), None)

    def gave(self, node: str, pchannel: str) -> None:
        """The pchannel was given to the node."""
        self._totals[node] = self._totals.get(node, balance.NOTHING) + self._load(pchannel)

    def round(self, records: Mapping[str, PchannelRecord]) -> list[Move]:
        """Moves that are worth it now; none before the interval is over, or while anything is under way."""
        now_ms = self._runtime.monotonic_ms()
        is_early = now_ms - self._moved_ms < self._settings.balance_interval_ms
        if is_early or not self.policy.balance or not self.is_settled:
            return []
        if any(record.state is not Assignment.ASSIGNED for record in records.values()):
            return []
        if any(self._is_busy(record) for record in records.values()):
            return []
        fit = [life.node for life in self._membership.fit(self.level)]
        moves = balance.moves(self._held(records), list(records), fit, MOVES_AT_ONCE)
        if moves:
            self._moved_ms = now_ms
        for move in moves:
            _log.info("pchannel %s: %s has more than %s", move.pchannel, move.source, move.target)
        return moves

    def _settles(self, records: Mapping[str, PchannelRecord]) -> bool:
        """Whether enough nodes are there to begin; a first start waits for more of them than a restart."""
        now_ms = self._runtime.monotonic_ms()
        heard = len(self._membership.fit(self.level))
        if heard and self._first_node_ms is None:
            self._first_node_ms = now_ms
        nodes = self._membership.fleet.nodes.values()
        if any(record.term for record in records.values()):
            up = [node for node in nodes if node.record.is_up]
            all_heard = all(node.is_heard(now_ms) for node in up)
            return (heard > 0 and all_heard) or now_ms - self._began_ms >= LINK_WAIT_MS
        expected = self.policy.expected_nodes or self._settings.expected_nodes
        if expected:
            return heard >= expected or now_ms - self._began_ms >= FIRST_WAIT_MS
        return self._first_node_ms is not None and now_ms - self._first_node_ms >= GATHER_MS

    def _status(self, record: PchannelRecord) -> PchannelStatus | None:
        if record.owner is None:
            return None
        return self._membership.sight(record.owner, record.name).status

    def _is_busy(self, record: PchannelRecord) -> bool:
        status = self._status(record)
        return status is None or status.state != "serving" or status.lag_ms > LAG_LIMIT_MS

    def _held(self, records: Mapping[str, PchannelRecord]) -> dict[str, dict[str, Load]]:
        """Loads by living node and pchannel."""
        held: dict[str, dict[str, Load]] = {}
        for name, node in self._membership.fleet.nodes.items():
            if self._membership.standing(name, node.record.incarnation) is Standing.LIVE:
                held[name] = {}
        for name, record in records.items():
            if record.owner is None or record.owner.node not in held:
                continue
            status = self._status(record)
            if status is not None and status.state == "serving":
                self._loads[name] = Load(bytes_s=status.bytes_s, memory_bytes=status.memory_bytes)
            held[record.owner.node][name] = self._load(name)
        return held

    def _load(self, pchannel: str) -> Load:
        """What it was worth when it was last served: while it moves it is worth no less."""
        return self._loads.get(pchannel, Load())
