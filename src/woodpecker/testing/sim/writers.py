"""The writing process: takes its log over, loads it from several tasks, again and again."""

from __future__ import annotations

import asyncio

from woodpecker.client.client import Client
from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.errors import Overloaded, WoodpeckerError
from woodpecker.testing.faults.payloads import Made
from woodpecker.testing.faults.writer import held
from woodpecker.testing.history import Item
from woodpecker.testing.recorder import outcome_of
from woodpecker.testing.sim.stage import Batch, Role, as_is

PRODUCER = "p"


class WriterRole(Role):
    """See the module. ``slot``: lives of one slot follow each other and share a producer."""

    slot = 0

    async def run(self, client: Client) -> None:
        """Writer after writer until told to stop."""
        for _ in range(self.plan.lives):
            log = await self.open_log(client)
            writer = None if log is None else await self._open(log)
            if writer is not None:
                await self._use(writer)
            if self.machine.is_over:
                break
            await self.pause(self.rng.choice((10, 1_000, 5_000)))

    async def _open(self, log: Log) -> LogWriter | None:
        producer = None
        if self.plan.producers and self.rng.random() < 0.7:
            producer = f"{PRODUCER}{self.slot}"
        number = self.recorder.call("open")
        self._opened = self.state  # by the time it has opened, a new log may have the name
        try:
            writer = await log.open_writer(producer=producer)
        except WoodpeckerError as error:
            self.recorder.failed(number, error)
            self.bear(error)
            return None
        self.recorder.ok(number, writer.next_seq, epoch=writer.epoch)
        self._opened.newest_epoch = max(self._opened.newest_epoch, writer.epoch)
        self._given: dict[int, Item] = {}
        self._producer = producer
        return writer

    async def _use(self, writer: LogWriter) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.plan.tasks):
                tasks.create_task(self._load(writer))
            if self._producer is not None:
                tasks.create_task(self._produce(writer))
        if self.plan.ends and self.rng.random() < 0.3:
            await self._end(writer)
        if writer.ended_by is not None and self.rng.random() < 0.7:
            await self._resolve(writer)
        await self._close(writer)
        if writer.ended_by is not None and self.rng.random() < 0.5:
            await self.pause(3_000)
            await self._resolve(writer)
        await asyncio.sleep(0)  # futures tell those who wait for them at the next turn of the loop
        self.machine.held += held(writer)

    async def _close(self, writer: LogWriter) -> None:
        try:
            await writer.close()
        except WoodpeckerError as error:
            self.bear(error)

    async def _end(self, writer: LogWriter) -> None:
        if writer.ended_by is not None:
            return
        self._opened.is_ended = True
        number = self.recorder.call("end")
        await self.told(number, writer.end_log, as_is)

    # --- load ---

    async def _load(self, writer: LogWriter) -> None:
        ways = (self._append, self._submit, self._append_many, self._expect, self._owner)
        for _ in range(self.plan.calls):
            if writer.ended_by is not None or self.machine.is_over:
                return
            (way,) = self.rng.choices(ways, (40, 20, 20, 15, 5))
            await way(writer)
            if self.rng.random() < 0.05:
                await self._flush(writer)
            await self.pause(self.plan.pace_ms)

    async def _append(self, writer: LogWriter) -> None:
        made = self.make()
        number = self._called(writer, [made])
        await self.told(
            number, lambda: writer.append(made.payload, headers=made.headers or None), as_is
        )

    async def _submit(self, writer: LogWriter) -> None:
        """Several at once, without waiting in between."""
        await asyncio.gather(
            *(self._submit_one(writer) for _ in range(self.rng.choice((1, 3, 12))))
        )

    async def _submit_one(self, writer: LogWriter) -> None:
        made, seq = self.make(), writer.next_seq
        number = self._called(writer, [made])
        try:
            future = writer.submit(made.payload, headers=made.headers or None)
        except WoodpeckerError as error:
            self.recorder.failed(number, error)
            self.bear(error)
            if isinstance(error, Overloaded) and self.rng.random() < 0.5:
                await self._ready(writer)
            return
        self._given[seq] = made.item
        await self.told(number, lambda: future, as_is)
        if not _is_open(future) and self._given.get(seq) is made.item:
            del self._given[seq]  # what was not written has no seq: it goes to another entry

    async def _ready(self, writer: LogWriter) -> None:
        try:
            await writer.ready()
        except WoodpeckerError as error:
            self.bear(error)

    async def _append_many(self, writer: LogWriter) -> None:
        batch = [self.make() for _ in range(self.rng.choice((1, 2, 5, 20)))]
        number = self._called(writer, batch)
        await self.told(
            number, lambda: writer.append_many([made.entry for made in batch]), lambda r: r.start
        )

    async def _expect(self, writer: LogWriter) -> None:
        """Right most of the time; often beaten by another task of this process."""
        expect = max(0, writer.next_seq + self.rng.choice((0, 0, 0, 1, -1)))
        batch = [self.make() for _ in range(self.rng.choice((1, 1, 3)))]
        number = self._called(writer, batch, expect=expect)
        await self.told(
            number,
            lambda: writer.append_many([made.entry for made in batch], expect_seq=expect),
            lambda result: result.start,
        )

    async def _owner(self, writer: LogWriter) -> None:
        number = self.recorder.call("owner", epoch=writer.epoch)
        await self.told(number, writer.still_owner, int)

    async def _flush(self, writer: LogWriter) -> None:
        try:
            await writer.flush()
        except WoodpeckerError as error:
            self.bear(error)

    def _called(self, writer: LogWriter, batch: list[Made], *, expect: int | None = None) -> int:
        items = [made.item for made in batch]
        return self.recorder.call("append", items=items, epoch=writer.epoch, expect=expect)

    async def _resolve(self, writer: LogWriter) -> None:
        """Ask what became of appends whose outcome was unknown."""
        try:
            answers = await writer.resolve()
        except WoodpeckerError as error:
            self.bear(error)
            return
        for seq, answer in answers.items():
            item = self._given.get(seq)
            if item is None:
                continue  # of a batch or append, whose seqs nobody was told
            number = self.recorder.call("resolve", items=[item])
            if isinstance(answer, int):
                self.recorder.ok(number, answer)
            else:
                self.recorder.failed(number, answer)

    # --- exactly once ---

    async def _produce(self, writer: LogWriter) -> None:
        """Each batch of the session until it is acknowledged; the next life goes on with the same."""
        assert self._producer is not None
        pending = self._opened.producers
        batch = pending.get(self._producer)
        if batch is None:
            batch = pending[self._producer] = Batch(0, [self.make()])
        is_newest = (
            writer.epoch == self._opened.newest_epoch
        )  # who slept since he opened knows less
        if is_newest and writer.next_sequence not in (batch.sequence, batch.sequence + 1):
            self.machine.world.fail(
                "I1", f"{self.machine.name}: {self._producer} is at {writer.next_sequence}, its "
                f"batch is {batch.sequence}"
            )  # fmt: skip
            return
        for _ in range(self.plan.calls):
            if writer.ended_by is not None or self.machine.is_over:
                return
            batch = pending[self._producer]
            number = self.recorder.call(
                "append", items=[made.item for made in batch.made], epoch=writer.epoch,
                name=self._producer, sequence=batch.sequence,
            )  # fmt: skip
            entries, sequence = [made.entry for made in batch.made], batch.sequence
            done = await self.told(
                number,
                lambda entries=entries, sequence=sequence: writer.append_many(  # type: ignore[misc]
                    entries, sequence=sequence
                ),
                lambda result: result.start,
            )
            if done is not None and pending[self._producer] is batch:
                made = [self.make() for _ in range(self.rng.choice((1, 3)))]
                pending[self._producer] = Batch(batch.sequence + 1, made)
            await self.pause(self.plan.pace_ms)


def _is_open(future: asyncio.Future[int]) -> bool:
    """Whether the entry may be in the log, at the seq it was given, without anybody knowing."""
    if future.cancelled():
        return False  # perhaps; or it was refused since, and its seq given to another
    if not future.done():
        return True
    error = future.exception()
    return isinstance(error, WoodpeckerError) and outcome_of(error) == "unknown"
