"""Channels: made, found, listed and deleted; what was left half done is finished.

A creation is three steps, each safe to repeat: the record as CREATING (here the name gets its vcid for good),
``vc-create`` in the log through the owner, the record as ACTIVE. A deletion likewise: DELETING, ``vc-delete``,
the cursors, a tombstone. A new coordinator reads all records once, keeps none of them, and finishes what it
finds between two steps; the same happens when a caller gives up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from woodpecker.errors import OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.streaming.codec.records import COUNTERS, VCHANNELS
from woodpecker.streaming.coordinator.jobs import Jobs
from woodpecker.streaming.coordinator.means import Means
from woodpecker.streaming.coordinator.owners import NOBODY, PATIENCE_MS, Owners
from woodpecker.streaming.core.records import Counters, Life, PchannelRecord, VchannelRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.metadata.store import Seen, StreamRecords
from woodpecker.streaming.requests import (
    AppendControl,
    Channel,
    Channels,
    CreateChannel,
    DeleteChannel,
    DeleteCursor,
    Done,
    ListChannels,
    ListCursors,
    Locate,
    Request,
)

VCID_BLOCK = 1_000
LOOKS_AT_ONCE = 64
LIST_LIMIT = 10_000
FINISH_AT_ONCE = 16
FINISH_AGAIN_MS = 2_000.0
PLACE_AGAIN_MS = 100.0

Reply = TypeVar("Reply")

_log = logging.getLogger("woodpecker.streaming")


class ChannelDesk:
    """See the module. One event loop; memory does not grow with the number of channels.

    Args:
        pchannels: those that exist, by name, asked each time.
    """

    def __init__(
        self, means: Means, owners: Owners, pchannels: Callable[[], Mapping[str, PchannelRecord]]
    ) -> None:
        self._records = means.records
        self._runtime = means.runtime
        self._owners = owners
        self._pchannels = pchannels
        self._limit = means.settings.vchannels_per_pchannel
        self._began_ms = means.runtime.monotonic_ms()
        self._counts: Counter[str] = Counter()
        self._vcids = _Vcids(means.records)
        self._unfinished: dict[str, None] = {}
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._jobs = Jobs(means.runtime, at_once=FINISH_AT_ONCE)

    @property
    def counts(self) -> Mapping[str, int]:
        """Channels by pchannel; right once all records were read."""
        return self._counts

    # --- finding ---

    async def locate(self, request: Locate) -> Channels:
        """Those that exist. Raises: Unavailable."""
        found = await asyncio.gather(*[self._look(name) for name in request.names])
        return Channels(channels=[_told(record) for record in found if record is not None])

    async def list(self, request: ListChannels) -> Channels:
        """By name. Raises: Unavailable."""
        limit = max(1, min(request.limit, LIST_LIMIT))
        found: list[VchannelRecord] = []
        start_after = request.start_after
        while len(found) <= limit:
            page = await self._records.page(
                VCHANNELS, prefix=request.prefix, start_after=start_after
            )
            if not page:
                break
            found += [item.record for item in page if item.record.state is Life.ACTIVE]
            start_after = page[-1].record.name
        shown = [_told(record) for record in found[:limit]]
        return Channels(channels=shown, more=len(found) > limit)

    async def _look(self, name: str) -> VchannelRecord | None:
        async with self._looks:
            record = (await self._records.load(VCHANNELS.key(name))).record
        return record if record is not None and record.state is Life.ACTIVE else None

    # --- creating ---

    async def create(self, request: CreateChannel) -> Channel:
        """Make the channel, or find it made.

        Raises: Refused: EXISTS, INVALID; LATER: nothing was done; UNKNOWN: it was begun, and will be finished.
            Unavailable: nothing was done.
        """
        key = VCHANNELS.key(request.name)
        _check_retention(request)
        while True:
            seen = await self._records.load(key)
            if seen.record is not None and seen.record.state is Life.DELETING:
                await self._finish(request.name, seen)
                continue
            if seen.record is None or seen.record.state is Life.DELETED:
                _check_not_made_before(request, seen.record)
                seen = await self._begin(request, seen)
            made = await self._finish(request.name, seen)
            if made is None or made.state is not Life.ACTIVE:
                continue  # deleted meanwhile
            if request.exist_ok or (request.request and made.request == request.request):
                return _told(made)
            raise _refused(
                Class.EXISTS, f"channel {request.name!r} exists; pass exist_ok=True to open it"
            )

    async def _begin(
        self, request: CreateChannel, seen: Seen[VchannelRecord]
    ) -> Seen[VchannelRecord]:
        """Give the name a vcid; returns the record that has one now, this one or another's."""
        pchannel = await self._placed(request.pchannel)
        new = VchannelRecord(
            name=request.name,
            vcid=await self._vcids.take(),
            pchannel=pchannel,
            state=Life.CREATING,
            retention_age_s=request.retention_age_s,
            retention_bytes=request.retention_bytes,
            request=request.request,
            deletion="" if seen.record is None else seen.record.deletion,
            attributes=request.attributes,
        )

        def decide(before: VchannelRecord | None) -> VchannelRecord:
            return new if before is None or before.state is Life.DELETED else before

        self._unfinished[request.name] = None
        self._counts[pchannel] += 1
        stored = await self._records.change(VCHANNELS.key(request.name), decide, seen=seen)
        if stored.record.vcid != new.vcid:
            self._counts[pchannel] -= 1
        return Seen(record=stored.record, version=stored.version)

    async def _placed(self, wanted: str) -> str:
        """As ``_place``, with patience where all have just started: pchannels have owners in a moment then.

        Later it is said at once: a caller whose time is up while it asks cannot know that nothing was done.
        """
        while True:
            try:
                return self._place(wanted)
            except Refused as error:
                is_young = self._runtime.monotonic_ms() - self._began_ms < PATIENCE_MS
                if error.refusal.kind is not Class.LATER or not is_young:
                    raise
            await self._runtime.sleep_ms(PLACE_AGAIN_MS)

    def _place(self, wanted: str) -> str:
        """The pchannel wanted, or the one with the fewest channels. Raises: Refused."""
        records = self._pchannels()
        names = [wanted] if wanted else sorted(records)
        if wanted and wanted not in records:
            raise _refused(Class.INVALID, f"there is no pchannel {wanted!r}")
        if not names:
            raise _refused(Class.LATER, "there is no pchannel yet: ask again", after_ms=500)
        name = min(names, key=lambda name: (self._counts[name], name))
        if self._counts[name] >= self._limit:
            raise _refused(
                Class.INVALID,
                f"pchannel {name} has {self._limit} channels, which is all it may have: add pchannels",
            )
        if records[name].owner is None:
            text = f"pchannel {name}: {NOBODY}; nothing was done"
            raise _refused(Class.LATER, text, after_ms=500)
        return name

    # --- deleting ---

    async def delete(self, request: DeleteChannel) -> Done:
        """Delete the channel, or find it deleted.

        Raises: Refused: NOT_FOUND; UNKNOWN: it was begun, and will be finished. Unavailable: nothing was done.
        """
        key = VCHANNELS.key(request.name)
        seen = await self._records.load(key)
        if seen.record is not None and seen.record.state is Life.CREATING:
            await self._finish(request.name, seen)
            seen = await self._records.load(key)
        if seen.record is None:
            text = f"there is no channel {request.name!r}; `woodpecker channel list` shows those there are"
            raise _refused(Class.NOT_FOUND, text)
        if request.request and seen.record.deletion == request.request:
            await self._finish(request.name, seen)  # a repeat; what there is now is another one
            return Done()
        vcid = seen.record.vcid

        def decide(before: VchannelRecord | None) -> VchannelRecord:
            if before is None or before.vcid != vcid or before.state is not Life.ACTIVE:
                return before or VchannelRecord(
                    name=request.name, vcid=vcid, pchannel="", state=Life.DELETED
                )
            return replace(before, state=Life.DELETING, deletion=request.request)

        self._unfinished[request.name] = None
        stored = await self._records.change(key, decide, seen=seen)
        await self._finish(request.name, Seen(record=stored.record, version=stored.version))
        return Done()

    # --- finishing ---

    async def _finish(self, name: str, seen: Seen[VchannelRecord]) -> VchannelRecord | None:
        """Do what the record still needs; the record then. Raises: Refused, OutcomeUnknown: it will be done."""
        try:
            return await self._finish_once(name, seen)
        except Unavailable as error:
            raise OutcomeUnknown(
                f"channel {name!r}: what is begun is finished later: {error}"
            ) from error

    async def _finish_once(self, name: str, seen: Seen[VchannelRecord]) -> VchannelRecord | None:
        record = seen.record
        if record is not None and record.state is Life.CREATING:
            await self._append(record, "vc-create")
            seen = await self._advance(name, seen, Life.ACTIVE)
        elif record is not None and record.state is Life.DELETING:
            await self._append(record, "vc-delete")
            await self._delete_cursors(record)
            seen = await self._advance(name, seen, Life.DELETED)
            self._counts[record.pchannel] -= 1
        self._unfinished.pop(name, None)
        return seen.record

    async def _append(self, record: VchannelRecord, kind: str) -> None:
        def make(term: int) -> AppendControl:
            return AppendControl(
                pchannel=record.pchannel,
                term=term,
                kind=kind,
                vcid=record.vcid,
                name=record.name,
                retention_age_s=record.retention_age_s,
                retention_bytes=record.retention_bytes,
            )

        await self._owners.call(record.pchannel, make)

    async def _advance(
        self, name: str, seen: Seen[VchannelRecord], state: Life
    ) -> Seen[VchannelRecord]:
        """Write the step that was done, if the record still waits for it."""
        assert seen.record is not None
        waiting = seen.record

        def decide(before: VchannelRecord | None) -> VchannelRecord:
            if before is None or (before.vcid, before.state) != (waiting.vcid, waiting.state):
                return before or replace(waiting, state=Life.DELETED)
            return replace(before, state=state)

        stored = await self._records.change(VCHANNELS.key(name), decide, seen=seen)
        return Seen(record=stored.record, version=stored.version)

    async def _delete_cursors(self, record: VchannelRecord) -> None:
        """A deleted channel's cursors hold nothing back any more."""
        pchannel, vcid = record.pchannel, record.vcid
        listing = ListCursors(pchannel=pchannel, vcid=vcid)
        try:
            found = await self._owners.call(pchannel, partial(_same, listing))
            for cursor in found.cursors:
                deletion = DeleteCursor(pchannel=pchannel, vcid=vcid, cursor=cursor.cursor)
                await self._owners.call(pchannel, partial(_same, deletion))
        except Refused as error:
            if error.refusal.kind not in (Class.GONE, Class.NOT_FOUND):
                raise

    # --- what was left half done ---

    async def run(self) -> None:
        """Find what is half done, then finish it, again and again until cancelled."""
        try:
            while not await self._scan():
                await self._runtime.sleep_ms(FINISH_AGAIN_MS)
            while True:
                await self._runtime.sleep_ms(FINISH_AGAIN_MS)
                for name in list(self._unfinished):
                    self._jobs.start(f"finish channel {name}", self._finish_again(name))
        finally:
            await self._jobs.stop()

    async def _scan(self) -> bool:
        """Read every record once: count, and remember the names of those between two steps."""
        counts: Counter[str] = Counter()
        start_after = ""
        try:
            while page := await self._records.page(VCHANNELS, start_after=start_after):
                for item in page:
                    if item.record.state is not Life.DELETED:
                        counts[item.record.pchannel] += 1
                    if item.record.state in (Life.CREATING, Life.DELETING):
                        self._unfinished[item.record.name] = None
                start_after = page[-1].record.name
                await self._runtime.sleep_ms(0)  # a store in memory gives nobody else a turn
        except WoodpeckerError as error:
            _log.warning("channels cannot be counted yet: %s", error)
            return False
        self._counts = counts
        return True

    async def _finish_again(self, name: str) -> None:
        await self._finish(name, await self._records.load(VCHANNELS.key(name)))


class _Vcids:
    """Numbers never given twice: taken from the store by the thousand, the rest of a block is given up."""

    def __init__(self, records: StreamRecords) -> None:
        self._records = records
        self._next = self._end = 0
        self._turn = asyncio.Lock()

    async def take(self) -> int:
        """The next one. Raises: Unavailable, OutcomeUnknown."""
        async with self._turn:
            if self._next == self._end:
                stored = await self._records.change(COUNTERS, _one_block_more)
                self._end = stored.record.next_vcid
                self._next = self._end - VCID_BLOCK
            self._next += 1
            return self._next - 1


def _one_block_more(before: Counters | None) -> Counters:
    before = before or Counters()
    return replace(before, next_vcid=before.next_vcid + VCID_BLOCK)


def _same(request: Request[Reply], _term: int) -> Request[Reply]:
    """A request that is the same whatever the term."""
    return request


def _check_retention(request: CreateChannel) -> None:
    """What is below 1 would let go of every message as soon as it is written."""
    age_s = request.retention_age_s
    if age_s is not None and age_s < 1:
        raise _refused(Class.INVALID, f"retention_age_s is {age_s}: give at least 1, or none")
    if request.retention_bytes is not None:
        raise _refused(Class.INVALID, "retention_bytes is not enforced yet: use retention_age_s")


def _check_not_made_before(request: CreateChannel, tombstone: VchannelRecord | None) -> None:
    """A late repeat does not make again what was deleted since."""
    if tombstone is not None and request.request and tombstone.request == request.request:
        text = f"channel {request.name!r} was made by this request, and deleted since"
        raise _refused(Class.GONE, text)


def _told(record: VchannelRecord) -> Channel:
    return Channel(
        name=record.name,
        vcid=record.vcid,
        pchannel=record.pchannel,
        state=record.state,
        retention_age_s=record.retention_age_s,
        retention_bytes=record.retention_bytes,
        attributes=record.attributes,
    )


def _refused(kind: Class, message: str, *, after_ms: int = 0) -> Refused:
    return Refused(Refusal(kind=kind, message=message, after_ms=after_ms))
