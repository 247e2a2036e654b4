"""Brings every pchannel to an owner: asks the pure machine, does what it says, asks again.

Each pchannel goes its own way; no round waits for all of them. Durable is only the record; the rest is what
nodes say and what this coordinator remembers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.streaming.codec.records import PCHANNELS
from woodpecker.streaming.coordinator.balancing import Balancer
from woodpecker.streaming.coordinator.discovering import Publisher
from woodpecker.streaming.coordinator.jobs import Jobs
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.coordinator.membership import Membership
from woodpecker.streaming.core import assignment
from woodpecker.streaming.core.assignment import (
    Ask,
    Memory,
    NodeLife,
    Release,
    Reread,
    Timing,
    View,
    Wait,
    Write,
)
from woodpecker.streaming.core.records import Assignment, Owner, PchannelRecord
from woodpecker.streaming.frames import Report
from woodpecker.streaming.metadata.store import Seen, Stored
from woodpecker.streaming.requests import Assign
from woodpecker.streaming.requests import Release as ReleaseRequest

SWEEP_MS = 1_000.0  # all are looked at so often, or sooner while one waits for a time
BUSY_SWEEP_MS = 200.0
LEAVE_AT_ONCE = 8  # of a node that drains
CALL_TIMEOUT_MS = 3_000
DECISION_MS = 2_000.0  # a decision that could not be written for so long is made anew
JOBS_AT_ONCE = 64

_log = logging.getLogger("woodpecker.streaming")


class Assigner:
    """See the module. One event loop."""

    def __init__(
        self,
        means: Means,
        membership: Membership,
        balancer: Balancer,
        publisher: Publisher,
    ) -> None:
        settings = means.settings
        self._records = means.records
        self._runtime = means.runtime
        self._dialer = means.dialer
        self._epoch = means.epoch
        self._may_decide = means.may_decide
        self._on_deposed = means.on_deposed
        self._membership = membership
        self._balancer = balancer
        self._publisher = publisher
        self._timing = Timing(
            session_ttl_ms=settings.session_ttl_ms,
            release_timeout_ms=settings.release_timeout_ms,
            open_stall_ms=settings.open_stall_ms,
        )
        self._stored: dict[str, Stored[PchannelRecord]] = {}
        self._shown: dict[str, PchannelRecord] = {}  # the same, without versions
        self._measured_ms = -SWEEP_MS
        self._memories: dict[str, Memory] = {}
        self._waits: dict[str, Wait] = {}
        self._wishes: dict[str, str] = {}  # pchannel -> node, by a person or the balancer
        self._reports: dict[str, int] = {}  # pchannel -> term
        self._leaving: dict[str, str] = {}  # pchannel -> node that is to be left
        self._holders: Mapping[str, tuple[Owner, ...]] = {}  # by pchannel, as nodes say
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._jobs = Jobs(means.runtime, at_once=JOBS_AT_ONCE)

    # --- what others tell and ask ---

    def adopt(self, stored: Stored[PchannelRecord]) -> None:
        """There is such a pchannel."""
        name = stored.record.name
        self._stored[name] = stored
        self._shown[name] = stored.record
        if stored.record.epoch > self._epoch:
            self._on_deposed(f"pchannel {name} was written by coordinator {stored.record.epoch}")
        self.look_at(name)

    def look_at(self, pchannel: str | None) -> None:
        """Something that bears on this pchannel (None: on any) has changed."""
        if pchannel is None:
            self._dirty.update(self._stored)
        elif pchannel in self._stored:
            self._dirty.add(pchannel)
        self._wake.set()

    def report(self, report: Report) -> None:
        """A client could not use an owner; counts at the record's term only."""
        stored = self._stored.get(report.pchannel)
        if stored is not None and stored.record.term == report.term:
            self._reports[report.pchannel] = report.term
            self.look_at(report.pchannel)

    def wish(self, pchannel: str, node: str) -> None:
        """Somebody wants the pchannel on that node."""
        self._wishes[pchannel] = node
        memory = self._memories.get(pchannel)
        if memory is not None:
            self._memories[pchannel] = replace(memory, retry_ms=0.0)
        self.look_at(pchannel)

    def record(self, pchannel: str) -> PchannelRecord | None:
        """As last written or read."""
        stored = self._stored.get(pchannel)
        return None if stored is None else stored.record

    def records(self) -> Mapping[str, PchannelRecord]:
        """All of them, by name; not to be changed."""
        return self._shown

    def states(self) -> Counter[str]:
        """How many are in which state."""
        return Counter(record.state for record in self._shown.values())

    def reason(self, pchannel: str) -> str:
        """Of the newest failure, while it counts."""
        memory = self._memories.get(pchannel)
        return "" if memory is None else memory.reason

    def waits_for(self, pchannel: str) -> str:
        """Whom or what the pchannel waits for; "": nobody."""
        wait = self._waits.get(pchannel)
        return "" if wait is None else wait.whom

    # --- the loop ---

    async def run(self) -> None:
        """Assign until cancelled."""
        try:
            while True:
                await self._until_due()
                if not self._may_decide():
                    await self._runtime.sleep_ms(BUSY_SWEEP_MS)
                    continue
                self._round()
        finally:
            await self._jobs.stop()

    async def _until_due(self) -> None:
        """Until something has changed, or it is time to look at all."""
        is_busy = not self._balancer.is_settled or any(
            wait.until_ms is not None for wait in self._waits.values()
        )
        sweep_ms = BUSY_SWEEP_MS if is_busy else SWEEP_MS
        try:
            async with asyncio.timeout(sweep_ms / 1000):
                await self._wake.wait()
        except TimeoutError:
            self._dirty.update(self._stored)
        self._wake.clear()

    def _round(self) -> None:
        now_ms = self._runtime.monotonic_ms()
        if now_ms - self._measured_ms >= BUSY_SWEEP_MS / 2:  # not with every word of every node
            self._measured_ms = now_ms
            self._measure(self.records())
        due, self._dirty = sorted(self._dirty), set()
        for name in due:
            if f"write {name}" in self._jobs:
                self._dirty.add(name)  # its end wakes the loop
            else:
                self._step(name)

    def _measure(self, records: Mapping[str, PchannelRecord]) -> None:
        """What concerns all of them."""
        self._balancer.measure(records)
        for move in self._balancer.round(records):
            self.wish(move.pchannel, move.target)
        self._leaving = self._who_leaves(records)
        self._holders = self._membership.holders()

    def _who_leaves(self, records: Mapping[str, PchannelRecord]) -> dict[str, str]:
        """Pchannels of draining nodes, so many of each node that not too many are on their way at once."""
        nodes = self._membership.fleet.nodes
        draining = {name for name, node in nodes.items() if node.record.draining}
        if not draining:
            return {}
        room = dict.fromkeys(draining, LEAVE_AT_ONCE)
        for record in records.values():
            if record.state is Assignment.ASSIGNING and record.former:
                source = record.former[0].node
                if source in room:
                    room[source] -= 1
        leaving = {}
        for name, record in sorted(records.items()):
            if record.owner is not None and room.get(record.owner.node, 0) > 0:
                room[record.owner.node] -= 1
                leaving[name] = record.owner.node
        return leaving

    def _step(self, name: str) -> None:
        """Ask the machine about one pchannel, and begin what it says."""
        record, view = self._stored[name].record, self._view(name)
        memory, act = assignment.step(
            record, self._memories.get(name, Memory()), view, self._timing
        )
        self._alarm(name, self._memories.get(name), memory)
        self._memories[name] = memory
        self._publisher.show(assignment.shown(record, memory, view))
        self._waits.pop(name, None)
        match act:
            case Wait():
                self._waits[name] = act
            case Write(record=wanted):
                if wanted.owner is not None and wanted.term > record.term:
                    self._balancer.gave(wanted.owner.node, name)
                self._jobs.start(f"write {name}", self._write(name, wanted))
            case Reread():
                self._jobs.start(f"write {name}", self._reread(name))
            case Ask():
                self._jobs.start(f"ask {name}", self._ask(record))
            case Release(owners=owners):
                for owner in owners:
                    job = f"release {name} {owner.node} {owner.term}"
                    self._jobs.start(job, self._release(name, owner))

    def _view(self, name: str) -> View:
        record = self._stored[name].record
        sight = self._membership.sight
        return View(
            now_ms=self._runtime.monotonic_ms(),
            epoch=self._epoch,
            owner=None if record.owner is None else sight(record.owner, name),
            formers=tuple(sight(owner, name) for owner in record.former),
            choose=self._balancer.choose,
            others=self._holders.get(name, ()),
            leave=record.owner is not None and self._leaving.get(name) == record.owner.node,
            move_to=self._wished(record),
            is_reported=self._reports.get(name) == record.term,
        )

    def _wished(self, record: PchannelRecord) -> NodeLife | None:
        """Where somebody wants it, if it is not there and can be."""
        node = self._wishes.get(record.name)
        if node is None:
            return None
        life = self._balancer.life(node)
        is_there = record.owner is not None and record.owner.node == node
        if is_there or life is None:
            del self._wishes[record.name]
            if not is_there:
                _log.warning("pchannel %s stays: node %s may be given nothing", record.name, node)
            return None
        return life

    def _alarm(self, name: str, before: Memory | None, after: Memory) -> None:
        failures = 0 if before is None else before.failures
        if after.failures > failures:
            level = logging.ERROR if after.failures > assignment.FREE_FAILURES else logging.WARNING
            _log.log(
                level,
                "pchannel %s: opening failed %d times in a row: %s",
                name,
                after.failures,
                after.reason,
            )

    # --- what is done ---

    async def _write(self, name: str, wanted: PchannelRecord) -> None:
        """Compare-and-swap. While it is not known whether it has landed, or still may, nothing else is decided."""
        before, until_ms = self._stored[name], self._runtime.monotonic_ms() + DECISION_MS
        is_in_doubt = False

        def decide(now: PchannelRecord | None) -> PchannelRecord:
            if now is not None and now != before.record:
                return now
            is_old = self._runtime.monotonic_ms() >= until_ms or not self._may_decide()
            if is_old and not is_in_doubt:
                raise _Outdated
            return wanted

        seen = Seen(record=before.record, version=before.version)
        stored: Stored[PchannelRecord] | None = None
        while stored is None:
            try:
                stored = await self._records.change(PCHANNELS.key(name), decide, seen=seen)
            except OutcomeUnknown as error:
                is_in_doubt = True
                _log.warning("pchannel %s: nothing is decided: %s", name, error)
            except (Unavailable, _Outdated) as error:
                _log.info("pchannel %s: nothing was decided: %s", name, error)
                self.look_at(name)
                return
        self.adopt(stored)
        if stored.record == wanted and wanted.term != before.record.term:
            self._reports.pop(name, None)
            node = "nobody" if wanted.owner is None else wanted.owner.node
            _log.info("pchannel %s: term %d goes to %s", name, wanted.term, node)

    async def _reread(self, name: str) -> None:
        try:
            seen = await self._records.load(PCHANNELS.key(name))
        except Unavailable:
            await self._runtime.sleep_ms(BUSY_SWEEP_MS)
            raise
        finally:
            self.look_at(name)
        if seen.record is not None and seen.version is not None:
            self.adopt(Stored(record=seen.record, version=seen.version))

    async def _ask(self, record: PchannelRecord) -> None:
        owner = record.owner
        assert owner is not None
        request = Assign(
            pchannel=record.name,
            log=record.log,
            log_id=record.log_id,
            term=owner.term,
            incarnation=owner.incarnation,
            epoch=self._epoch,
        )
        endpoint = self._dialer.endpoint(owner.address)
        status = await endpoint.call(request, timeout_ms=CALL_TIMEOUT_MS)
        self._membership.told(owner.node, owner.incarnation, status)

    async def _release(self, name: str, owner: Owner) -> None:
        request = ReleaseRequest(
            pchannel=name, term=owner.term, incarnation=owner.incarnation, epoch=self._epoch
        )
        endpoint = self._dialer.endpoint(owner.address)
        status = await endpoint.call(request, timeout_ms=CALL_TIMEOUT_MS)
        self._membership.told(owner.node, owner.incarnation, status)


class _Outdated(Exception):
    """What was decided could not be written in time: it is to be decided anew, if it still may be."""
