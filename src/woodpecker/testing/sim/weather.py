"""What can go wrong, and how often: every fault has a name under which runs count it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Fault(StrEnum):
    """One kind of fault. Requests, servers, processes, users."""

    # what befalls one request
    REFUSED = "request refused"  # certainly not sent
    REQUEST_LOST = "request lost"  # no effect, no answer
    REPLY_LOST = "reply lost"  # effect, no answer
    ERROR_BEFORE = "error 5xx, nothing done"
    ERROR_AFTER = "error 5xx, yet done"
    LATE = "done after the caller gave up"
    REPEATED = "own write answered: exists"  # an SDK sent it twice
    SLOW = "slow request"
    READ_FAILED = "read failed"
    PARTIAL = "half of a deletion"
    WATCH_LATE = "watch slow"
    WATCH_EARLY = "watch fires for nothing"
    # what befalls a server, or the way of one process to it
    REFUSING = "server refuses"
    SILENT = "server takes nothing"
    MUTE = "server works, answers get lost"
    CUT_OFF = "one process cut off"
    # what befalls a process
    KILLED = "process killed"
    KILLED_AT_REQUEST = "process killed at a request"
    STOPPED = "process stopped and woken"
    STOPPED_AT_REQUEST = "process stopped at a request"
    STOPPED_LONG = "process stopped for minutes"
    CLOCK_WRONG = "wall clock wrong"
    CLOCK_JUMP = "wall clock jumps"
    # what befalls nodes, their disks and the network
    NODE_KILLED = "node killed"
    NODE_POWER = "node without power"
    NODE_AT_MESSAGE = "node down at a message"
    NODE_STOPPED = "node stopped and woken"
    NODE_LOST = "node lost its disk"
    NODE_FLIPPED = "bit flipped in a journal"
    NODE_SET_BACK = "old disk put back"
    NODES_ALL_DOWN = "all nodes without power"
    DISK_ERROR = "disk fails a write"
    DISK_SLOW = "disk slow"
    DRAINED = "node drained"
    NET_CUT = "network cut"
    NET_ONE_WAY = "network cut in one direction"
    NET_RESET = "connections reset"
    NET_SLOW = "network slow"
    NET_LOSSY = "network loses messages"
    # what users do
    GAVE_UP = "call cancelled"


WRITE_FAULTS = (
    Fault.REFUSED,
    Fault.REQUEST_LOST,
    Fault.REPLY_LOST,
    Fault.ERROR_BEFORE,
    Fault.ERROR_AFTER,
    Fault.LATE,
    Fault.SLOW,
)
TEARING = (Fault.NODE_POWER, Fault.NODES_ALL_DOWN, Fault.DISK_ERROR)  # may tear a journal's end
DESTROYING = (Fault.NODE_LOST, Fault.NODE_FLIPPED, Fault.NODE_SET_BACK)  # lose what was synced
READ_FAULTS = (Fault.READ_FAILED, Fault.SLOW)
OBJECT_FAULTS = (*WRITE_FAULTS, Fault.REPEATED, Fault.READ_FAILED, Fault.PARTIAL)
RECORD_FAULTS = (*WRITE_FAULTS, Fault.READ_FAILED, Fault.WATCH_LATE, Fault.WATCH_EARLY)


@dataclass(slots=True, kw_only=True)
class Weather:
    """How requests of one process to one server fare.

    Attributes:
        rates: chance per request; a fault that a request cannot meet does not count for it.
        latency_ms: of one way, on average. late_ms: an effect comes up to this much too late.
        timeout_ms: how long a client waits for an answer that does not come.
    """

    rates: Mapping[Fault, float] = field(default_factory=dict)
    latency_ms: float = 1.0
    late_ms: float = 5_000.0
    timeout_ms: float = 2_000.0
    _tables: dict[Sequence[Fault], list[tuple[float, Fault]]] = field(default_factory=dict)

    def copy(self) -> Weather:
        """The same weather, which can change by itself."""
        return replace(self, rates=dict(self.rates), _tables={})

    def draw(self, rng: random.Random, possible: Sequence[Fault]) -> Fault | None:
        """What befalls a request that can meet the faults ``possible``."""
        if not self.rates:
            return None
        table = self._tables.get(possible)
        if table is None:
            table = self._tables[possible] = self._table(possible)
        if not table:
            return None
        chance = rng.random()
        if chance >= table[-1][0]:
            return None
        return next(fault for limit, fault in table if chance < limit)

    def _table(self, possible: Sequence[Fault]) -> list[tuple[float, Fault]]:
        total, table = 0.0, []
        for fault in possible:
            if self.rates.get(fault, 0.0) > 0:
                total += self.rates[fault]
                table.append((total, fault))
        return table

    def delay_ms(self, rng: random.Random) -> float:
        """One way of a request; now and then much longer than usual."""
        draw = rng.random()
        return self.latency_ms * (draw if draw < 0.97 else 20 * draw)

    def calm(self) -> None:
        """No more faults."""
        self.rates = {}
        self._tables.clear()
        self.latency_ms = min(self.latency_ms, 5.0)
