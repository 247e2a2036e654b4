"""When all is quiet: one more reader of each channel, and what everybody was told is held against it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.node.checkpoints import Progress, fold_rest, load_checkpoint
from woodpecker.testing.sim.weather import Weather
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim.town import AGAIN_S, Book, Sent, Town
from woodpecker.testing.stream_sim.users import opened

Seen = list[tuple[Position, bytes]]
SETTLE_S = 300.0  # virtual: how long consumers may take to have everything
RESUMES = 6


class Judge:
    """Judges the books of a town."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._machine: Machine = town.machine("judge.0", Weather(), Weather())
        self._machine.is_client = False
        self._rng = random.Random(f"{town.seed} judge")

    async def settle(self) -> bool:
        """S1: every consumer that lives gets everything; every subscriber was handed everything.

        False: a channel cannot be read, so there is nothing to judge by.
        """
        for name, book in self._town.books.items():
            async with opened(self._town, self._machine, name) as channel:
                truth = await self._whole(channel)
            if truth is None:
                return False
            until_s = self._town.loop.time() + SETTLE_S
            while self._town.loop.time() < until_s and any(self._lags(book, len(truth))):  # noqa: ASYNC110
                await asyncio.sleep(1)  # virtual time is free
            for who in self._lags(book, len(truth)):
                self._town.fail("S1", f"{who} does not get all of {name}: {len(truth)} messages")
            if self._town.plan.subscribers and book.name == "ch0":  # subscribers are of this one
                await self._check_seen(book, truth, until_s)
        return True

    def _lags(self, book: Book, count: int) -> Iterator[str]:
        for view in book.views:
            if view.is_alive and len(view.got) < count:
                yield f"{view.who} (has {len(view.got)})"

    async def _check_seen(self, book: Book, truth: Seen, until_s: float) -> None:
        missing = [payload for _, payload in truth if payload not in book.seen]
        while missing and self._town.loop.time() < until_s:
            await asyncio.sleep(1)
            missing = [payload for payload in missing if payload not in book.seen]
        if missing:
            self._town.fail("S11", f"no subscriber of {book.name} was ever handed {missing[:5]}")

    async def judge(self) -> None:
        """Everything else."""
        for name, book in self._town.books.items():
            async with opened(self._town, self._machine, name) as channel:
                truth = await self._whole(channel)
                if truth is None:
                    return
                self._check_told(book, truth)
                self._check_order(book, truth)
                self._check_views(book, truth)
                await self._check_resumes(channel, truth)
        await self._check_tables()

    async def _whole(self, channel: Channel) -> Seen | None:
        """From the earliest to a read point: everything acknowledged before now; None: nobody serves it."""
        until_s = self._town.loop.time() + SETTLE_S
        while True:
            try:
                end = await channel.read_point()
                return await _read(channel, "earliest", end)
            except (Unavailable, OutcomeUnknown) as error:
                if self._town.loop.time() > until_s:
                    self._town.fail("S14", f"{channel.name} cannot be read: {error}")
                    return None
                await asyncio.sleep(AGAIN_S)

    # ----------------------------------------------------------------------------------- rules

    def _check_told(self, book: Book, truth: Seen) -> None:
        places: dict[bytes, list[Position]] = {}
        for position, payload in truth:
            places.setdefault(payload, []).append(position)
        for payload, found in places.items():
            if len(found) > 1:
                self._town.fail("S1", f"{payload!r} is in {book.name} {len(found)} times: {found}")
        for sent in book.sent:
            found = [position for payload in sent.payloads for position in places.get(payload, ())]
            fault = _told_wrong(sent, found)
            if fault is not None:
                rule, text = fault
                self._town.fail(rule, f"{book.name}: {sent.payloads} of {sent.line}: {text}")

    def _check_order(self, book: Book, truth: Seen) -> None:
        """S2: what one producer sent comes in the order in which it was sent."""
        places = {payload: position for position, payload in truth}
        newest: dict[str, Position] = {}
        for sent in book.sent:
            first = places.get(sent.payloads[0])
            if first is None:
                continue
            if sent.line in newest and first < newest[sent.line]:
                self._town.fail("S2", f"{sent.payloads[0]!r} stands before what was sent before it")
            newest[sent.line] = first
        ticks = [position.tick for position, _ in truth]
        if ticks != sorted(ticks):
            self._town.fail("S3", f"ticks of {book.name} do not grow")

    def _check_views(self, book: Book, truth: Seen) -> None:
        """S1, S7: what anybody saw from the earliest on is the beginning of what there is."""
        for view in book.views:
            if view.got != truth[: len(view.got)]:
                at = next(i for i, one in enumerate(view.got) if truth[i : i + 1] != [one])
                self._town.fail(
                    "S1",
                    f"{view.who} saw {view.got[at]} as number {at}, there is {truth[at : at + 1]}",
                )

    async def _check_resumes(self, channel: Channel, truth: Seen) -> None:
        """S6: from any message, exactly the rest."""
        for position, _ in self._rng.sample(truth, min(RESUMES, len(truth))):
            rest = await _read(channel, position, truth[-1][0].after())
            wanted = [one for one in truth if one[0] >= position]
            if rest != wanted:
                self._town.fail("S6", f"from {position} on {len(rest)} messages, not {len(wanted)}")

    async def _check_tables(self) -> None:
        """S8: a checkpoint and the rest fold to the same as all."""
        async with self._machine.client(background=False) as client:
            records = StreamRecords(client.environment.catalog.store, self._machine.runtime)
            for number in range(self._town.plan.settings.pchannels):
                log = await client.open_log(f"stream.p{number}")
                end = await log.tail()
                if await log.earliest() > 0:
                    continue  # trimmed: the whole is not there any more
                whole = Fold()
                await fold_rest(log, whole, end, Progress())
                rest = await load_checkpoint(records, log)
                await fold_rest(log, rest, end, Progress())
                if rest != whole:
                    self._town.fail("S8", f"p{number}: checkpoint and rest are not the whole")
                if whole.ignored:
                    self._town.fail("S5", f"p{number}: {whole.ignored} verdicts came after others")


async def _read(channel: Channel, start: Position | str, end: Position) -> Seen:
    return [
        (message.position, message.payload)
        async for messages in channel.consume_batches(start, end=end)
        for message in messages
    ]


def _told_wrong(sent: Sent, found: list[Position]) -> tuple[str, str] | None:
    """What a producer was told, against where its messages are."""
    if found and len(found) != len(sent.payloads):
        return "S5", f"{len(found)} of {len(sent.payloads)} messages are there"
    if sent.is_txn and found and len({position.seq for position in found}) > 1:
        return "S5", f"in several places: {found}"
    if sent.outcome == "ack":
        assert sent.position is not None
        seqs = {position.seq for position in found}
        if sent.position.seq not in seqs:
            return "S1", f"acknowledged at {sent.position}, is at {found}"
    elif sent.outcome == "not written" and found:
        return "S15", f"told not to be written, is at {found}"
    return None
