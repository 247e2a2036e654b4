"""When all is quiet: one more reader of each channel and log, and what everybody was told is held against it.

The rules are in ``rules.py``; here is what they are applied to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress

from woodpecker import Client, Log
from woodpecker.errors import Corrupt, NotFound, OutcomeUnknown, OutOfRange, Unavailable
from woodpecker.streaming.client.channel import Channel
from woodpecker.streaming.codec.checkpoint import decode_checkpoint
from woodpecker.streaming.codec.cursors import decode_cursor
from woodpecker.streaming.codec.records import CHECKPOINTS
from woodpecker.streaming.core.facts import Broadcast
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.records import CheckpointsRecord
from woodpecker.streaming.core.values import ANYTHING, Position, Where
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.node.checkpoints import Progress, fold_rest
from woodpecker.streaming.node.pieces import pieces_of
from woodpecker.testing.sim.weather import Weather
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.stream_sim import rules
from woodpecker.testing.stream_sim.books import Book, History, Shown, Trims, Written, shown
from woodpecker.testing.stream_sim.town import AGAIN_S, Town, opened

SETTLE_S = 300.0  # virtual: how long readers may take to have everything
RESUMES = 6


class Judge:
    """Judges the books of a town."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._machine: Machine = town.machine("judge.0", Weather(), Weather())
        self._machine.is_client = False
        self._rng = random.Random(f"{town.seed} judge")

    @property
    def _books(self) -> list[Book]:
        """Of channels that can be read."""
        return [book for book in self._town.books.values() if not book.is_deleted]

    def _fail(self, faults: Iterable[rules.Fault]) -> None:
        for rule, text in faults:
            self._town.fail(rule, text)

    async def settle(self) -> bool:
        """S1, S11: every consumer that lives gets everything; every cursor's holders were handed everything.

        False: a channel cannot be read, so there is nothing to judge by.
        """
        for book in self._books:
            async with opened(self._town, self._machine, book.name) as channel:
                until_s = self._town.loop.time() + SETTLE_S
                while True:
                    history = await self._history(channel, book)
                    if history is None:
                        return False
                    missing = _missing(book, history)
                    if not missing or self._town.loop.time() > until_s:
                        break
                    await asyncio.sleep(5)  # virtual time is free
                self._fail(missing)
        return True

    async def judge(self) -> None:
        """Everything else."""
        histories = {}
        for book in self._books:
            async with opened(self._town, self._machine, book.name) as channel:
                history = await self._history(channel, book)
                if history is None:
                    return
                book.vcid = channel.vcid
                histories[book.name] = history
                for view in book.views:
                    self._fail(rules.course(view))
                    self._fail(rules.agreement(view, history))
                self._fail(rules.told(book, history))
                self._fail(rules.order(book, history))
                await self._check_resumes(channel, history)
                for cursor in book.cursors:
                    await self._check_cursor(channel, book, cursor)
        announced = [one for each in self._town.announced.values() for one in each]
        for one in announced:
            self._fail(rules.broadcast(one, histories))
        self._fail(rules.broadcast_order(announced, histories))
        async with self._machine.client(background=False) as client:
            await self._check_logs(client)

    async def _history(self, channel: Channel, book: Book) -> History | None:
        """All up to a read point: what was acknowledged before now; None: nobody serves it."""
        until_s = self._town.loop.time() + SETTLE_S
        start = 0  # not "earliest": that passes over what is old, whether it is trimmed or not
        while True:
            try:
                end = await channel.read_point()
                found = await _read(channel, start, end)
            except OutOfRange as error:  # the channel began there, or what was before is trimmed
                assert error.earliest is not None and error.earliest > start, error
                start = error.earliest
            except (Unavailable, OutcomeUnknown) as error:
                if self._town.loop.time() > until_s:
                    self._town.fail("S14", f"{channel.name} cannot be read: {error}")
                    return None
                await asyncio.sleep(AGAIN_S)
            else:
                kept_from = 0 if self._town.plan.retention_age_s is None else start
                return rules.merged(found, kept_from, book.views)

    async def _check_resumes(self, channel: Channel, history: History) -> None:
        """S6: from any message, exactly the rest, whatever the filter."""
        kept = [one for one in history.all if one.position.seq >= history.kept_from]
        for one in self._rng.sample(kept, min(RESUMES, len(kept))):
            where = self._rng.choice((ANYTHING, Where(type="a")))
            with suppress(OutOfRange):  # trimmed meanwhile
                rest = await _read(channel, one.position, kept[-1].position.after(), where)
                wanted = [
                    other
                    for other in kept
                    if other.position >= one.position and where.type in {None, other.type}
                ]
                if rest != wanted:
                    text = f"from {one.position}, {where}: {len(rest)} messages, not {len(wanted)}"
                    self._town.fail("S6", text)

    async def _check_cursor(self, channel: Channel, book: Book, cursor: str) -> None:
        """S11: whoever attaches now is handed again what nobody has acknowledged."""
        missing = rules.unacknowledged(book, cursor)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S), channel.subscribe(cursor) as sub:
                while missing:
                    missing.discard((await anext(sub)).payload)
        if missing:
            text = f"{cursor} of {book.name}: {sorted(missing)[:5]} were not acknowledged, and do not come again"
            self._town.fail("S11", text)
        self._town.coverage["cursor taken over at the end"] += 1

    # ---------------------------------------------------------------------------------- the logs

    async def _check_logs(self, client: Client) -> None:
        everything: list[Written] = []
        earliest = 0
        for number in range(self._town.plan.settings.pchannels):
            name = f"p{number}"
            log = await client.open_log(f"stream.{name}")
            records = StreamRecords(client.environment.catalog.store, self._machine.runtime)
            await self._check_trims(records, log, name)
            await self._check_tables(records, log, name)
            begin = await log.earliest()
            batches = await _batches(log, begin)
            self._fail(rules.log(name, batches))
            everything += batches
            earliest = max(earliest, begin)
            self._town.coverage["log trimmed"] += begin > 0
        for book in self._town.books.values():
            self._fail(rules.told_by_log(book, everything, earliest))

    async def _check_trims(self, records: StreamRecords, log: Log, name: str) -> None:
        earliest = await log.earliest()  # before what holds it: that only moves up
        kept = (await records.load(CHECKPOINTS.key(log.log_id))).record or CheckpointsRecord()
        lows = {}
        for cursor in await log.cursors():
            done = decode_cursor(cursor.data, position=cursor.position, where=cursor.name).done
            lows[cursor.name] = done.low if done.low >= 0 else done.seq
        seqs = tuple(ref.seq for ref in kept.checkpoints)
        self._fail(rules.trims(name, Trims(earliest, seqs, lows)))

    async def _check_tables(self, records: StreamRecords, log: Log, name: str) -> None:
        """S8, S9: each checkpoint reaches the log, and the rest on it is the same; the same as all if all is there."""
        folds: list[Fold] = []
        until_s = self._town.loop.time() + SETTLE_S
        while not folds or (folds[0].open and self._town.loop.time() < until_s):
            try:
                folds = await _folds(records, log)
            except (Corrupt, NotFound) as error:  # what was read was replaced meanwhile, or ...
                if self._town.loop.time() > until_s:
                    self._town.fail("S9", f"{name}: {error}")
                    return
            await asyncio.sleep(AGAIN_S)
        if folds[0].open:
            self._town.fail("S5", f"{name}: {folds[0].open} is never decided")
        if any(fold != folds[0] for fold in folds):
            self._town.fail("S8", f"{name}: its checkpoints and the rest are not the same")
        if folds[0].ignored:
            self._town.fail("S5", f"{name}: {folds[0].ignored} verdicts came after others")


async def _folds(records: StreamRecords, log: Log) -> list[Fold]:
    """The whole log, if it is there, and what each checkpoint makes of it. Raises: Corrupt, NotFound."""
    kept = (await records.load(CHECKPOINTS.key(log.log_id))).record or CheckpointsRecord()
    folds = [] if kept.checkpoints and await log.earliest() else [Fold()]
    for ref in kept.checkpoints:
        data = await log.objects.get(ref.object)
        folds.append(decode_checkpoint(memoryview(data), where=ref.object))
    end = await log.tail()
    for fold in folds:
        await fold_rest(log, fold, end, Progress())
    return folds


def _missing(book: Book, history: History) -> list[rules.Fault]:
    """Who still waits for what."""
    found = []
    for view in book.views:
        lacks = rules.lagging(view, history) if view.is_alive else []
        if lacks:
            found.append(
                ("S1", f"{view.who} does not get {len(lacks)} of {book.name}: {lacks[:3]}")
            )
    for cursor in book.cursors:
        lost = rules.handed(book, cursor, history)
        if lost:
            found.append(("S11", f"{cursor} of {book.name} was never handed {lost[:5]}"))
    return found


async def _read(
    channel: Channel, start: Position | int, end: Position, where: Where = ANYTHING
) -> list[Shown]:
    return [
        shown(message)
        async for messages in channel.consume_batches(start, end=end, where=where)
        for message in messages
        if not message.is_ephemeral
    ]


async def _batches(log: Log, begin: int) -> list[Written]:
    """All of a log, batch by batch."""
    found = []
    async with log.read_batches(begin, await log.tail(), follow=True) as batches:
        async for batch in batches:
            for piece in pieces_of(batch, log.name):
                facts, body = piece.facts, piece.facts.column.body
                found.append(
                    Written(
                        facts.seq,
                        facts.tick,
                        facts.column.term,
                        facts.column.vcid,
                        type(body).__name__,
                        tuple(piece.messages.payloads),
                        body.id if isinstance(body, Broadcast) else 0,
                    )
                )
    return found
