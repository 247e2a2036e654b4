"""The reading processes: a follower that resumes from its cursor, and one that trims behind them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from itertools import count
from typing import Any

from woodpecker.client.cursor import Cursor
from woodpecker.client.log import Log
from woodpecker.errors import OutcomeUnknown, Unavailable, WoodpeckerError
from woodpecker.testing.faults.job import Job
from woodpecker.testing.faults.payloads import item_of
from woodpecker.testing.faults.recorder import Recorder

COMMIT_S = 0.05
RETRY_S = 0.1
LOOK_BATCHES = 3


class FollowerRole:
    """Reads the log as it grows, from the cursor ``settings["cursor"]``, which it commits behind.

    It writes down what it is shown before it commits, so a killed one repeats, and never skips. With
    ``settings["reopen"]`` it connects again, as a reader of its own, where the store was unavailable.
    """

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self._job = job
        self._recorder = recorder
        self._stop = asyncio.Event()
        self._position = 0
        self._sessions = count()
        self.held = 0

    def stop(self) -> None:
        """End politely."""
        self._stop.set()

    async def run(self) -> None:
        """Follow until told to stop."""
        while not self._stop.is_set():
            try:
                await self._session()
            except Unavailable as error:
                if not self._job.settings.get("reopen"):
                    raise
                self._recorder.note(f"session:{error.code}", str(error))
                await asyncio.sleep(RETRY_S)

    async def _session(self) -> None:
        async with self._job.connect(self._recorder, background=False) as client:
            log = await client.open_log(self._job.log)
            cursor = await log.cursor(self._job.settings["cursor"])
            self._position = cursor.position
            self._job.tell("loaded")
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(self._follow(log, cursor)),
                asyncio.create_task(self._commit(cursor)),
                asyncio.create_task(self._stop.wait()),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()

    async def _follow(self, log: Log, cursor: Cursor) -> None:
        reader = f"follow-{next(self._sessions)}"
        self._recorder.began(reader, cursor.position)
        async for batch in log.read_batches(start=cursor, follow=True):
            self._recorder.seen(reader, batch.first_seq, [item_of(entry) for entry in batch])
            self._position = batch.end_seq

    async def _commit(self, cursor: Cursor) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            position = self._position
            if position == cursor.position:
                continue
            try:
                await cursor.commit(position)
            except (Unavailable, OutcomeUnknown) as error:
                self._recorder.note(f"commit:{error.code}", str(error))


class TrimmerRole:
    """Looks at the tail, trims somewhere below it (cursors hold it), reads what is then earliest."""

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self._job = job
        self._recorder = recorder
        self._rng = random.Random(job.seed)
        self.held = 0

    def stop(self) -> None:
        """It ends by itself."""

    async def run(self) -> None:
        """Once; not at all where the store is unavailable."""
        try:
            await self._session()
        except Unavailable as error:
            if not self._job.settings.get("reopen"):
                raise
            self._recorder.note(f"session:{error.code}", str(error))

    async def _session(self) -> None:
        async with self._job.connect(self._recorder, background=False) as client:
            log = await client.open_log(self._job.log)
            tail = await self._tail(log)
            if tail is None:
                return
            await self._trim(log, self._rng.randint(0, tail))
            await self._look(log)
            await self._tail(log)

    async def _tail(self, log: Log) -> int | None:
        number = self._recorder.call("tail")
        try:
            tail = await log.tail()
        except WoodpeckerError as error:
            self._recorder.failed(number, error)
            return None
        self._recorder.ok(number, tail)
        return tail

    async def _trim(self, log: Log, before: int) -> None:
        number = self._recorder.call("trim", before=before)
        try:
            report = await log.trim(before, hold=True)
        except WoodpeckerError as error:
            self._recorder.failed(number, error)
        else:
            self._recorder.ok(number, report.trim_point)

    async def _look(self, log: Log) -> None:
        self._recorder.began("look", None)
        count = 0
        with contextlib.suppress(Unavailable):
            async for batch in log.read_batches():
                self._recorder.seen("look", batch.first_seq, [item_of(entry) for entry in batch])
                count += 1
                if count == LOOK_BATCHES:
                    break
