"""Broadcasts on their way: begun for callers, finished whoever still waits, found again by the next coordinator."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import check_name
from woodpecker.errors import WoodpeckerError
from woodpecker.streaming.codec import records as keys
from woodpecker.streaming.codec.records import BROADCAST_KEYS, COUNTERS, VCHANNELS
from woodpecker.streaming.coordinator.jobs import Jobs
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.coordinator.owners import Owners
from woodpecker.streaming.core import broadcasts
from woodpecker.streaming.core.broadcasts import Deposed, Locks
from woodpecker.streaming.core.records import (
    BroadcastKey,
    BroadcastRecord,
    BroadcastResult,
    BroadcastState,
    Counters,
    Life,
    VchannelRecord,
)
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import TYPE_MAX_CHARS, Position
from woodpecker.streaming.requests import (
    AppendControl,
    Broadcast,
    BroadcastInfo,
    BroadcastList,
    GetBroadcast,
    ListBroadcasts,
    ResumeBroadcast,
)

AT_ONCE = 256  # broadcasts
APPENDS_AT_ONCE = 64
AGAIN_MS = 1_000.0
HEALS = (Class.LATER, Class.MOVED, Class.UNKNOWN, Class.UNAVAILABLE)
GONE = (Class.GONE, Class.NOT_FOUND)

_log = logging.getLogger("woodpecker.streaming")


class _Task:
    """One broadcast under way."""

    def __init__(self, ticket: int, key: str) -> None:
        self.ticket = ticket
        self.key = key
        self.number = 0  # 0: it has no id yet
        self.record: BroadcastRecord | None = None
        self.error: Exception | None = None
        self.turn = asyncio.Event()  # look at the locks again
        self.settled = asyncio.Event()  # done, parked, or not begun


class BroadcastDesk:
    """See the module. One event loop."""

    def __init__(self, means: Means, owners: Owners) -> None:
        self._records = means.records
        self._runtime = means.runtime
        self._owners = owners
        self._settings = means.settings
        self._epoch = means.epoch
        self._on_deposed = means.on_deposed
        self._counters = Counters()
        self._locks = Locks()
        self._tasks: dict[int, _Task] = {}  # by ticket
        self._by_key: dict[str, _Task] = {}
        self._tickets = 0
        self._is_ready = False
        self._turn = asyncio.Lock()  # of the counters
        self._appends = asyncio.Semaphore(APPENDS_AT_ONCE)
        self._jobs = Jobs(means.runtime, at_once=AT_ONCE)

    @property
    def locks(self) -> Locks:
        """Who holds and awaits what."""
        return self._locks

    def states(self) -> Counter[str]:
        """How many are in which state; waiting: not yet begun."""
        records = [task.record for task in self._tasks.values()]
        return Counter("waiting" if record is None else str(record.state) for record in records)

    # --- what is asked ---

    async def broadcast(self, request: Broadcast) -> BroadcastInfo:
        """Begin it, or find it begun; the result, or that it is parked.

        Raises: Refused: INVALID, NOT_FOUND, LATER: nothing was begun. Cancellation: it goes on.
        """
        self._check(request)
        found = await self._find(request.key)
        if found is not None:
            return found
        targets = await self._targets(request.targets)
        task = self._by_key.get(request.key)
        if task is None:
            record = BroadcastRecord(
                id=0,
                key=request.key,
                targets=targets,
                payload=request.payload,
                type=request.type,
                resources=tuple(sorted(set(request.resources))),
            )
            task = self._add(request.key, record.resources)
            self._start(task, self._begin(task, record))
        return await self._follow(task)

    async def get(self, request: GetBroadcast) -> BroadcastInfo:
        """As it is. Raises: Refused(NOT_FOUND)."""
        record = await self._load(request.key)
        if record is None:
            raise _refused(Class.NOT_FOUND, f"there is no broadcast {request.key!r}")
        return _told(record)

    async def list(self, request: ListBroadcasts) -> BroadcastList:
        """All that are not done, by id."""
        self._check_ready()
        begun = [task.record for task in self._tasks.values() if task.record is not None]
        return BroadcastList(
            broadcasts=[_told(record) for record in sorted(begun, key=lambda record: record.id)]
        )

    async def resume(self, request: ResumeBroadcast) -> BroadcastInfo:
        """A person's decision on a parked one. Raises: Refused: NOT_FOUND, INVALID: it is not parked."""
        self._check_ready()
        task = self._by_key.get(request.key)
        if task is None or task.record is None or task.record.state is not BroadcastState.PARKED:
            info = await self.get(GetBroadcast(key=request.key))
            raise _refused(Class.INVALID, f"broadcast {request.key!r} is {info.state}, not parked")
        decide = partial(_resumed, skip=request.skip)
        stored = await self._records.change(keys.broadcast(task.number), decide)
        task.record = stored.record
        task.settled.clear()
        self._start(task, self._finish(task))
        return await self._follow(task)

    def _check(self, request: Broadcast) -> None:
        self._check_ready()
        check_name(request.key, "broadcast key")
        most = self._settings.broadcast_targets
        if not 1 <= len(request.targets) <= most or len(set(request.targets)) < len(
            request.targets
        ):
            raise _refused(Class.INVALID, f"a broadcast has 1 to {most} targets, each named once")
        if len(request.type) > TYPE_MAX_CHARS:  # owners would refuse it when it has to finish
            raise _refused(
                Class.INVALID,
                f"a type of {len(request.type)} characters; allowed are {TYPE_MAX_CHARS}",
            )
        limit = self._settings.broadcast_payload_bytes
        if len(request.payload) > limit:
            size = len(request.payload)
            raise _refused(
                Class.INVALID,
                f"a payload of {size} bytes: a broadcast may carry {limit}; refer to a larger one",
            )
        if len(self._tasks) >= AT_ONCE:
            raise _refused(Class.LATER, f"{AT_ONCE} broadcasts are under way: ask again")

    def _check_ready(self) -> None:
        if not self._is_ready:
            raise _refused(Class.LATER, "unfinished broadcasts are being looked for: ask again")

    async def _find(self, key: str) -> BroadcastInfo | None:
        """What has become of the key; None: nothing was begun under it."""
        task = self._by_key.get(key)
        if task is not None:
            return await self._follow(task)
        record = await self._load(key)
        if record is not None and record.state is not BroadcastState.DONE:
            raise _refused(Class.LATER, f"broadcast {key!r} is being taken over: ask again")
        return None if record is None else _told(record)

    async def _load(self, key: str) -> BroadcastRecord | None:
        found = (await self._records.load(BROADCAST_KEYS.key(key))).record
        if found is None:
            return None
        record = (await self._records.load(keys.broadcast(found.id))).record
        return None if record is None or broadcasts.is_tombstone(record) else record

    async def _targets(self, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
        found = [await self._channel(name) for name in names]
        missing = [
            name
            for name, record in zip(names, found, strict=True)
            if record is None or record.state is not Life.ACTIVE
        ]
        if missing:
            text = (
                f"there is no channel {', '.join(missing)}; `woodpecker channel create` makes one"
            )
            raise _refused(Class.NOT_FOUND, text)
        return tuple((record.name, record.vcid) for record in found if record is not None)

    async def _channel(self, name: str) -> VchannelRecord | None:
        return (await self._records.load(VCHANNELS.key(name))).record

    async def _follow(self, task: _Task) -> BroadcastInfo:
        await task.settled.wait()
        if task.error is not None:
            raise task.error
        assert task.record is not None
        return _told(task.record)

    # --- the way of one ---

    def _add(self, key: str, resources: Sequence[str]) -> _Task:
        self._tickets += 1
        task = _Task(self._tickets, key)
        self._tasks[task.ticket] = self._by_key[key] = task
        self._locks.join(task.ticket, resources)
        return task

    def _start(self, task: _Task, work: Coroutine[Any, Any, None]) -> None:
        if not self._jobs.start(f"broadcast {task.key}, {task.ticket}", work):
            _abandon(task)  # this coordinator has stepped down meanwhile

    def _drop(self, task: _Task) -> None:
        """It is over; who waited for its resources looks again."""
        self._locks.leave(task.ticket)
        del self._tasks[task.ticket], self._by_key[task.key]
        task.settled.set()
        for other in self._tasks.values():
            other.turn.set()

    async def _begin(self, task: _Task, record: BroadcastRecord) -> None:
        """Up to the PENDING record; without it nothing was begun."""
        try:
            while not self._locks.may_go(task.ticket):
                task.turn.clear()
                await task.turn.wait()
            task.number = await self._take_id()
            record = replace(record, id=task.number)
            if await self._take_key(record):
                decide = partial(_unless_there, record)
                stored = await self._records.change(keys.broadcast(record.id), decide)
                task.record = stored.record
        except (WoodpeckerError, Refused) as error:
            task.error = error
        if task.record is None or broadcasts.is_tombstone(task.record):
            text = f"broadcast {task.key!r} was begun by another coordinator: ask again"
            task.error = task.error or _refused(Class.LATER, text)
            self._drop(task)
            return
        await self._finish(task)

    async def _take_id(self) -> int:
        async with self._turn:
            stored = await self._change(partial(_listed, self._epoch))
            return stored.unfinished[-1]

    async def _take_key(self, record: BroadcastRecord) -> bool:
        """Make the key stand for this id, unless it stands for one that was begun."""
        key = BROADCAST_KEYS.key(record.key)
        while True:
            seen = await self._records.load(key)
            if seen.record is not None and seen.record.id != record.id:
                other = (await self._records.load(keys.broadcast(seen.record.id))).record
                if other is None or not broadcasts.is_tombstone(other):
                    return False
            before, wanted = seen.record, BroadcastKey(id=record.id)
            stored = await self._records.change(key, partial(_instead, before, wanted), seen=seen)
            if stored.record == wanted:
                return True

    async def _finish(self, task: _Task) -> None:
        """From the PENDING record to the end, however long that takes."""
        attempt = 0
        while True:
            try:
                if await self._try_to_finish(task):
                    return
            except (WoodpeckerError, Refused) as error:
                _log.info("broadcast %s goes on later: %s", task.key, error)
            attempt += 1
            chance = self._runtime.random()
            await self._runtime.sleep_ms(delay_ms(attempt, chance, limit_ms=5_000.0))

    async def _try_to_finish(self, task: _Task) -> bool:
        """One round over the targets without a result; False: some are to be tried again."""
        assert task.record is not None
        record, results, faults = task.record, [], {}
        is_whole = True
        if record.state is BroadcastState.PENDING:
            targets = broadcasts.missing(record)
            found = await asyncio.gather(*[self._append(record, *target) for target in targets])
            for (channel, _), outcome in zip(targets, found, strict=True):
                if isinstance(outcome, BroadcastResult):
                    results.append(outcome)
                elif outcome.refusal.kind in HEALS:
                    is_whole = False
                else:
                    faults[channel] = str(outcome)
        if not is_whole:
            return False
        decide = partial(_settled, results=results, faults=faults)
        stored = await self._records.change(keys.broadcast(record.id), decide)
        task.record = stored.record
        if stored.record.state is BroadcastState.PARKED:
            _log.error("broadcast %s is parked: %s", task.key, stored.record.reason)
            task.settled.set()  # it keeps its resources: others that need them would overtake it
            return True
        await self._unlist(record.id)
        self._drop(task)
        return True

    async def _append(
        self, record: BroadcastRecord, channel: str, vcid: int
    ) -> BroadcastResult | Refused:
        """One target: where it is, that it has gone, or what went wrong."""
        async with self._appends:
            found = await self._channel(channel)
            if found is None or found.vcid != vcid or found.state is Life.DELETED:
                return BroadcastResult(channel=channel, skipped="the channel was deleted")

            def make(term: int) -> AppendControl:
                return AppendControl(
                    pchannel=found.pchannel,
                    term=term,
                    kind="broadcast",
                    vcid=vcid,
                    name=channel,
                    broadcast_id=record.id,
                    broadcast_floor=broadcasts.floor(self._counters),
                    payload=record.payload,
                    type=record.type,
                )

            try:
                position = (await self._owners.call(found.pchannel, make)).position
            except Refused as error:
                if error.refusal.kind in GONE:
                    return BroadcastResult(channel=channel, skipped="the channel was deleted")
                return error
        return BroadcastResult(channel=channel, seq=position.seq, tick=position.tick)

    # --- counters ---

    async def _change(self, decide: Callable[[Counters | None], Counters]) -> Counters:
        try:
            self._counters = (await self._records.change(COUNTERS, decide)).record
        except Deposed:
            text = "a newer coordinator takes the ids of broadcasts"
            self._on_deposed(text)
            raise _refused(Class.LATER, text) from None
        return self._counters

    async def _unlist(self, number: int) -> None:
        async with self._turn:
            await self._change(partial(_ended, number))

    # --- what an earlier coordinator, or a lost answer, has left ---

    async def run(self) -> None:
        """Find what is unfinished, then look after ids that nobody uses, until cancelled."""
        try:
            attempt = 0
            while not self._is_ready:
                try:
                    await self._rebuild()
                except (WoodpeckerError, Refused) as error:
                    attempt += 1
                    _log.debug("broadcasts cannot be looked for yet: %s", error)
                    chance = self._runtime.random()
                    await self._runtime.sleep_ms(delay_ms(attempt, chance))
            while True:
                await self._runtime.sleep_ms(AGAIN_MS)
                self._jobs.start("unused broadcast ids", self._take_over_unused())
        finally:
            await self._jobs.stop()
            for task in self._tasks.values():
                _abandon(task)

    async def _rebuild(self) -> None:
        """Fence older coordinators, then take over what they have begun, in the order of its ids."""
        await self._change(partial(_fenced, self._epoch))
        for number in self._counters.unfinished:
            await self._take_over(number)
        self._is_ready = True

    async def _take_over(self, number: int) -> None:
        """A listed id that nobody here uses: go on with what was begun under it, or end it."""
        record = await self._of_id(number)
        if record.state is BroadcastState.DONE:
            await self._unlist(number)
        elif record.key not in self._by_key:  # else once that one has found out
            task = self._add(record.key, record.resources)
            task.number, task.record = number, record
            if record.state is BroadcastState.PARKED:
                task.settled.set()
            else:
                self._start(task, self._finish(task))

    async def _of_id(self, number: int) -> BroadcastRecord:
        """The record of a listed id: a tombstone, if it has none."""
        decide = partial(_unless_there, broadcasts.tombstone(number))
        return (await self._records.change(keys.broadcast(number), decide)).record

    async def _take_over_unused(self) -> None:
        """Ids that were listed by writes whose answers were lost, or whose broadcasts were not begun."""
        async with self._turn:
            used = {task.number for task in self._tasks.values()}
            unused = [number for number in self._counters.unfinished if number not in used]
        for number in unused:
            await self._take_over(number)


def _abandon(task: _Task) -> None:
    """Whoever waits is told that it may go on elsewhere."""
    text = f"the coordinator steps down: another one goes on with {task.key!r}, ask it"
    task.error = task.error or _refused(Class.UNKNOWN, text)
    task.settled.set()


def _listed(epoch: int, before: Counters | None) -> Counters:
    return broadcasts.listed(before or Counters(), epoch)


def _fenced(epoch: int, before: Counters | None) -> Counters:
    return broadcasts.fenced(before or Counters(), epoch)


def _ended(number: int, before: Counters | None) -> Counters:
    return broadcasts.ended(before or Counters(), number)


def _instead(
    expected: BroadcastKey | None, wanted: BroadcastKey, before: BroadcastKey | None
) -> BroadcastKey:
    """``wanted`` where ``expected`` was; else what is there."""
    return wanted if before is None or before == expected else before


def _unless_there(new: BroadcastRecord, before: BroadcastRecord | None) -> BroadcastRecord:
    return before or new


def _resumed(before: BroadcastRecord | None, *, skip: bool) -> BroadcastRecord:
    assert before is not None
    return broadcasts.resumed(before, skip=skip)


def _settled(
    before: BroadcastRecord | None, *, results: list[BroadcastResult], faults: dict[str, str]
) -> BroadcastRecord:
    assert before is not None
    return broadcasts.settled(before, results, faults)


def _told(record: BroadcastRecord) -> BroadcastInfo:
    return BroadcastInfo(
        id=record.id,
        key=record.key,
        state=record.state,
        positions={
            result.channel: Position(seq=result.seq, tick=result.tick)
            for result in record.results
            if not result.skipped
        },
        skipped={result.channel: result.skipped for result in record.results if result.skipped},
        reason=record.reason,
    )


def _refused(kind: Class, message: str) -> Refused:
    return Refused(Refusal(kind=kind, message=message))
