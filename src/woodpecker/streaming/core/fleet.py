"""Which streaming nodes live, as one coordinator sees it (pure).

A node lives while its record changes or its Status stream speaks. A session that has lapsed says little: the
node is asked directly, and only one that cannot be reached either is GONE. A process that was replaced by
another of its name, or has said goodbye, is GONE at once. When more than half of the nodes are unheard it is
more likely we who hear nothing: a ttl passes, and each is asked again, before anybody is believed dead.
After an outage of the metadata store all sessions begin anew.

All times are of the coordinator's own monotonic clock, milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from woodpecker.core.membership import Sighting, looked
from woodpecker.streaming.core.records import NodeRecord

HEARD_MS = 3_000.0  # a Status stream beats each second
LONG_UNHEARD_MS = 5_000.0  # who is lost together with others is unheard together with them by then
CLOCK_LIMIT_US = 5 * 60_000_000


class Standing(StrEnum):
    """Of one life of a node."""

    LIVE = "live"
    UNSURE = "unsure"  # silent, and not yet asked, or too many are
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is known of one node. Times None: never.

    ``heard_ms``: of the newest Status frame of this incarnation. ``unreached_ms``: when the newest attempt
    began that has failed. ``lapsed_ms``: since when the session counts as lapsed. ``buried``: it was judged
    GONE and has not been seen to live since.
    """

    record: NodeRecord
    sighting: Sighting
    heard_ms: float | None = None
    unreached_ms: float | None = None
    lapsed_ms: float | None = None
    buried: bool = False
    clock_off_us: int = 0

    def is_heard(self, now_ms: float) -> bool:
        """Whether its Status stream speaks."""
        return self.heard_ms is not None and now_ms - self.heard_ms < HEARD_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All nodes, and since when too many of them are silent (None: they are not).

    ``is_read``: their records were read once. Before, a node that is not here is not gone: nobody has looked.
    """

    nodes: Mapping[str, Node] = field(default_factory=dict)
    mass_ms: float | None = None
    is_read: bool = False

    def standing(self, node: str, incarnation: str, now_ms: float, ttl_ms: float) -> Standing:
        """Of one life of a node."""
        if not self.is_read:
            return Standing.UNSURE
        seen = self.nodes.get(node)
        if seen is None or seen.record.incarnation != incarnation or not seen.record.is_up:
            return Standing.GONE
        if seen.is_heard(now_ms) or seen.lapsed_ms is None:
            return Standing.LIVE
        if seen.buried:
            return Standing.GONE
        if seen.heard_ms is not None and now_ms - seen.heard_ms < LONG_UNHEARD_MS:
            return Standing.UNSURE
        ask_from_ms = seen.lapsed_ms
        if self.mass_ms is not None:
            ask_from_ms = max(ask_from_ms, self.mass_ms + ttl_ms)
        is_asked = seen.unreached_ms is not None and seen.unreached_ms >= ask_from_ms
        return Standing.GONE if is_asked else Standing.UNSURE

    def is_fit(self, node: str, now_ms: float, level: int) -> bool:
        """Whether the node may be given something new; ``level``: of the features in force."""
        seen = self.nodes.get(node)
        if seen is None or not seen.is_heard(now_ms):
            return False
        record = seen.record
        return (
            record.is_up
            and not (record.draining or record.frozen)
            and record.features_min <= level <= record.features_max
            and abs(seen.clock_off_us - self._usual_clock_off_us(now_ms)) <= CLOCK_LIMIT_US
        )

    def _usual_clock_off_us(self, now_ms: float) -> int:
        """Of the clock that most agree on: this coordinator's own may be the wrong one.

        Ours counts while few are heard; later not, for on a node's machine it would count twice.
        """
        heard = [seen.clock_off_us for seen in self.nodes.values() if seen.is_heard(now_ms)]
        found = sorted(heard if len(heard) > 2 else [0, *heard])
        middle = found[(len(found) - 1) // 2], found[len(found) // 2]
        return min(middle, key=abs)  # of two the one nearer to ours


def looked_at(
    before: Fleet, records: Mapping[str, tuple[NodeRecord, str]], now_ms: float, ttl_ms: float
) -> Fleet:
    """The fleet after all records (with their versions, by name) were read.

    One that is missing says no more than a session that has lapsed: its node is asked.
    """
    nodes = {
        name: replace(node, lapsed_ms=now_ms if node.lapsed_ms is None else node.lapsed_ms)
        for name, node in before.nodes.items()
        if name not in records and node.record.is_up and not node.buried
    }
    for name, (record, version) in records.items():
        nodes[name] = _looked(before.nodes.get(name), record, version, now_ms, ttl_ms)
    nodes = {name: nodes[name] for name in sorted(nodes)}
    return _judged(Fleet(nodes=nodes, mass_ms=before.mass_ms, is_read=True), now_ms, ttl_ms)


def heard(
    before: Fleet, node: str, incarnation: str, now_ms: float, *, clock_off_us: int = 0
) -> Fleet:
    """The fleet after a Status frame of that life of the node."""
    seen = before.nodes.get(node)
    if seen is None or seen.record.incarnation != incarnation:
        return before
    seen = replace(seen, heard_ms=now_ms, buried=False, clock_off_us=clock_off_us)
    return replace(before, nodes={**before.nodes, node: seen})


def unreached(
    before: Fleet, node: str, incarnation: str, began_ms: float, now_ms: float, ttl_ms: float
) -> Fleet:
    """The fleet after an attempt to reach that life of the node, begun at ``began_ms``, has failed."""
    seen = before.nodes.get(node)
    if seen is None or seen.record.incarnation != incarnation:
        return before
    seen = replace(seen, unreached_ms=began_ms)
    return _judged(replace(before, nodes={**before.nodes, node: seen}), now_ms, ttl_ms)


def _looked(
    before: Node | None, record: NodeRecord, version: str, now_ms: float, ttl_ms: float
) -> Node:
    if before is None or before.record.incarnation != record.incarnation:
        return Node(record=record, sighting=looked(None, version, now_ms))
    was_blind = (
        now_ms - before.sighting.seen_ms > ttl_ms / 2
    )  # perhaps nobody could write meanwhile
    sighting = looked(None if was_blind else before.sighting, version, now_ms)
    if sighting.silent_ms < ttl_ms:
        return replace(before, record=record, sighting=sighting, lapsed_ms=None, buried=False)
    lapsed_ms = now_ms if before.lapsed_ms is None else before.lapsed_ms
    return replace(before, record=record, sighting=sighting, lapsed_ms=lapsed_ms)


def _judged(fleet: Fleet, now_ms: float, ttl_ms: float) -> Fleet:
    """Look for mass loss among those not yet buried, then bury who is gone."""
    up = [node for node in fleet.nodes.values() if node.record.is_up and not node.buried]
    silent = [node for node in up if not node.is_heard(now_ms)]
    is_mass = 2 * len(silent) > len(up) and len(silent) > 1
    since_ms = now_ms if fleet.mass_ms is None else fleet.mass_ms
    fleet = replace(fleet, mass_ms=since_ms if is_mass else None)
    buried = {
        node.record.node: replace(node, buried=True)
        for node in silent
        if node.lapsed_ms is not None
        and fleet.standing(node.record.node, node.record.incarnation, now_ms, ttl_ms)
        is Standing.GONE
    }
    return replace(fleet, nodes={**fleet.nodes, **buried}) if buried else fleet
