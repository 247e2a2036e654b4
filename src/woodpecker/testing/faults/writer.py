"""The writer process: opens the log, loads it from several tasks, and lives until it is killed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from woodpecker.client.log import Log
from woodpecker.client.writer import LogWriter
from woodpecker.errors import (
    Conflict,
    Fenced,
    NotWritten,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.testing.faults.job import Job
from woodpecker.testing.faults.payloads import Made, make
from woodpecker.testing.faults.recorder import Recorder
from woodpecker.testing.history import Item

RETRY_S = 0.05


class WriterRole:
    """Settings: producers (tasks), load_s (then it closes), pace_ms (pause between a task's calls),
    big_share (of 5 MiB entries), reopen (open again when a writer has ended), resolve.
    """

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self._job = job
        self._recorder = recorder
        self._rng = random.Random(job.seed)
        self._names = count()
        self._stop = asyncio.Event()
        self._is_over = False  # this writer has ended
        self._given: dict[int, Item] = {}  # seqs given out, not known to be durable
        self.held = 0  # by writers that have ended; see ``held``

    def stop(self) -> None:
        """End politely."""
        self._stop.set()

    async def run(self) -> None:
        """Open, load, close; again and again with ``reopen``."""
        until = time.monotonic() + self._job.settings.get("load_s", 1e9)
        while True:
            try:
                await self._session(until)
                return
            except Unavailable as error:
                if not self._job.settings.get("reopen"):
                    raise
                self._recorder.note(f"session:{error.code}", str(error))
                await asyncio.sleep(RETRY_S)

    async def _session(self, until: float) -> None:
        """Connect, then writer after writer."""
        async with self._job.connect(self._recorder) as client:
            log = await client.open_log(self._job.log)
            while True:
                self._job.tell("opening")
                writer = await self._open(log)
                if writer is not None:
                    await self._use(writer, until)
                if not self._job.settings.get("reopen") or self._is_time(until):
                    break
                await asyncio.sleep(RETRY_S)
            self._job.tell("leaving")

    def _is_time(self, until: float) -> bool:
        return self._stop.is_set() or time.monotonic() >= until

    async def _open(self, log: Log) -> LogWriter | None:
        number = self._recorder.call("open")
        try:
            writer = await log.open_writer()
        except (Fenced, Unavailable, OutcomeUnknown) as error:
            self._recorder.failed(number, error)
            return None
        self._recorder.ok(number, writer.next_seq, epoch=writer.epoch)
        self._is_over = False
        self._given = {}
        return writer

    async def _use(self, writer: LogWriter, until: float) -> None:
        self._job.tell("loaded")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._job.settings.get("producers", 4)):
                tasks.create_task(self._produce(writer, until))
        self._job.tell("closing")
        if self._is_over and self._job.settings.get("resolve"):
            await self._resolve(writer)
        await self._close(writer)
        self.held += held(writer)

    async def _close(self, writer: LogWriter) -> None:
        try:
            await writer.close()
        except (Fenced, OutcomeUnknown, Unavailable, NotWritten) as error:
            self._recorder.note(f"close:{error.code}", str(error))

    # --- load ---

    async def _produce(self, writer: LogWriter, until: float) -> None:
        ways = (self._append, self._submit, self._append_many, self._expect)
        pace_ms = self._job.settings.get("pace_ms", 0)
        while not self._is_over and not self._is_time(until):
            (way,) = self._rng.choices(ways, (45, 20, 20, 15))
            await way(writer)
            if pace_ms:
                await asyncio.sleep(self._rng.random() * 2 * pace_ms / 1000)

    def _make(self) -> Made:
        uid = f"{self._job.name}.{next(self._names)}"
        with_headers = self._rng.random() < 0.3
        big_share = self._job.settings.get("big_share", 0.0)
        return make(uid, self._rng, with_headers=with_headers, big_share=big_share)

    async def _append(self, writer: LogWriter) -> None:
        made = self._make()
        await self._record(
            writer, [made], lambda: writer.append(made.payload, headers=made.headers or None)
        )

    async def _submit(self, writer: LogWriter) -> None:
        """Several at once, without waiting in between."""
        answers = [self._submit_one(writer) for _ in range(self._rng.randint(1, 20))]
        await asyncio.gather(*answers)

    async def _submit_one(self, writer: LogWriter) -> None:
        made = self._make()
        seq = writer.next_seq
        is_given = False

        async def submit() -> Any:
            nonlocal is_given
            future = writer.submit(made.payload, headers=made.headers or None)
            self._given[seq] = made.item
            is_given = True
            return await future

        await self._record(writer, [made], submit)

    async def _append_many(self, writer: LogWriter) -> None:
        batch = [self._make() for _ in range(self._rng.randint(1, 30))]
        await self._record(writer, batch, lambda: writer.append_many([m.entry for m in batch]))

    async def _expect(self, writer: LogWriter) -> None:
        """Right most of the time; often beaten by another task of this process."""
        expect = max(0, writer.next_seq + self._rng.choice((0, 0, 0, 1, -1)))
        batch = [self._make() for _ in range(self._rng.choice((1, 1, 3)))]
        await self._record(
            writer,
            batch,
            lambda: writer.append_many([m.entry for m in batch], expect_seq=expect),
            expect=expect,
        )

    async def _record(
        self,
        writer: LogWriter,
        batch: list[Made],
        act: Callable[[], Awaitable[Any]],
        *,
        expect: int | None = None,
    ) -> None:
        number = self._recorder.call(
            "append", items=[made.item for made in batch], epoch=writer.epoch, expect=expect
        )
        try:
            result = await act()
        except (Fenced, OutcomeUnknown) as error:
            self._recorder.failed(number, error)
            self._is_over = True
        except (Conflict, NotWritten) as error:
            self._recorder.failed(number, error)
            if isinstance(error, NotWritten):
                self._is_over = writer.ended_by is not None
                await asyncio.sleep(RETRY_S)
        else:
            first = result.start if isinstance(result, range) else result
            self._recorder.ok(number, first)
            for seq in range(first, first + len(batch)):
                self._given.pop(seq, None)

    async def _resolve(self, writer: LogWriter) -> None:
        """Ask what became of appends whose outcome was unknown."""
        try:
            answers = await writer.resolve()
        except WoodpeckerError as error:
            self._recorder.note(f"resolve:{error.code}", str(error))
            return
        for seq, answer in answers.items():
            item = self._given.get(seq)
            if item is None:
                continue  # of a batch or append, whose seqs nobody was told
            number = self._recorder.call("resolve", items=[item])
            if isinstance(answer, int):
                self._recorder.ok(number, answer)
            else:
                self._recorder.failed(number, answer)


def held(writer: LogWriter) -> int:
    """What the writer still counts as waiting or in flight; nothing, once it has ended."""
    pump = writer._pump  # noqa: SLF001
    return pump.queue.taken_bytes + len(pump.queue.drafts) + len(pump._in_flight)  # noqa: SLF001
