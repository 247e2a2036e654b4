"""Reading processes: followers that resume from a cursor, and those who look, trim and tend the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from woodpecker.client.client import Client
from woodpecker.client.cursor import Cursor
from woodpecker.client.log import Log
from woodpecker.errors import (
    Fenced,
    NotFound,
    OutcomeUnknown,
    OutOfRange,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.testing.faults.payloads import item_of
from woodpecker.testing.sim.stage import Role, as_is

T = TypeVar("T")
LOOK_BATCHES = 5
COMMIT_S = 0.3


class ReadingRole(Role):
    """What all who read have in common: they write down what they are shown before they act on it."""

    async def read(
        self, log: Log, start: int | None, *, follow: bool = False, cursor: Cursor | None = None
    ) -> None:
        """Read from ``start`` (None: the earliest), some batches or, with ``follow``, for ever."""
        number = self.recorder.call("read", before=start)
        reader = f"{'follow' if follow else 'look'} {number}"
        self.recorder.began(reader, start)
        position, count, committed_s = start, 0, 0.0
        try:
            begin = "earliest" if start is None else start
            async with log.read_batches(begin, follow=follow) as batches:
                async for batch in batches:
                    self.recorder.seen(reader, batch.first_seq, [item_of(e) for e in batch])
                    position, count = batch.end_seq, count + 1
                    now_s = asyncio.get_running_loop().time()
                    if cursor is not None and now_s - committed_s > COMMIT_S:
                        committed_s = now_s
                        await self.commit(cursor, position)
                    if not follow and count == LOOK_BATCHES:
                        break
        except WoodpeckerError as error:
            if isinstance(error, OutOfRange) and count:
                self.recorder.ok(
                    number, count
                )  # trimmed while it read on: no matter of where it began
            else:
                self.recorder.failed(number, error)
            raise
        except asyncio.CancelledError:
            self.recorder.ok(number, count)
            raise
        self.recorder.ok(number, count)
        if cursor is not None and position is not None:
            await self.commit(cursor, position)

    async def cursor(self, log: Log, name: str, start: int | str = "earliest") -> Cursor | None:
        """Open or create a cursor."""
        before = start if isinstance(start, int) else 0
        number = self.recorder.call("cursor", name=name, before=before)
        return await self.told(
            number, lambda: log.cursor(name, start=start), lambda cursor: cursor.position
        )

    async def commit(self, cursor: Cursor, position: int) -> bool:
        """Move a cursor; whether it is known to have moved."""
        number = self.recorder.call("cursor", name=cursor.name, before=position)
        return (
            await self.told(number, lambda: _committed(cursor, position), lambda _: position)
            is not None
        )


async def _insist(act: Callable[[], Awaitable[T]]) -> T:
    """Until it is done, or refused for good."""
    while True:
        try:
            return await act()
        except (Unavailable, OutcomeUnknown, Fenced):
            await asyncio.sleep(0.5)


async def _committed(cursor: Cursor, position: int) -> int:
    await cursor.commit(position)
    return position


class FollowerRole(ReadingRole):
    """Reads the log as it grows, from its cursor on, until told to stop."""

    async def run(self, client: Client) -> None:
        """A reader after the other, should they break."""
        while not self.machine.is_over:
            log = await self.open_log(client)
            if log is not None:
                await self._follow(log)
            await self.pause(200)

    async def _follow(self, log: Log) -> None:
        # the next life of this slot goes on with its cursor
        cursor = await self.cursor(log, self.machine.name.partition(".")[0])
        if cursor is None:
            return
        reading = asyncio.ensure_future(self.read(log, cursor.position, follow=True, cursor=cursor))
        ending = asyncio.ensure_future(self.machine.should_end.wait())
        ending.add_done_callback(lambda _: reading.cancel())
        try:
            await reading
            self.machine.should_end.set()  # the log has ended
        except asyncio.CancelledError:
            pass
        except OutOfRange as error:
            # trimmed above the cursor, or its creation was given up halfway; else the judge will see it
            self.bear(error)
            if error.earliest is not None:
                await self.commit(cursor, error.earliest)
        except WoodpeckerError as error:
            self.bear(error)
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)


class CarerRole(ReadingRole):
    """Looks, reads, trims, alters, cleans up, and holds cursors, as an operator and his scripts do."""

    async def run(self, client: Client) -> None:
        """One thing after the other until told to stop."""
        self._cursors: dict[str, int] = {}
        while not self.machine.is_over:
            log = await self.open_log(client)
            if log is not None:
                try:
                    await self._one(client, log)
                except WoodpeckerError as error:
                    self.bear(error)
            await self.pause(self.plan.care_ms)

    async def _one(self, client: Client, log: Log) -> None:
        ways = {
            self._tail: 20, self._look: 20, self._clean: 15, self._verify: 5, self._describe: 5,
            self._new_cursor: 20, self._use_cursor: 20,
        }  # fmt: skip
        if self.plan.trims != "no":
            ways[self._trim] = 20
        if self.plan.alters:
            ways[self._alter] = 10
        if self.plan.deletes:
            ways[self._delete] = 10
        (way,) = self.rng.choices(list(ways), list(ways.values()))
        await way(client, log)

    async def _tail(self, _: Client, log: Log) -> None:
        await self.told(self.recorder.call("tail"), log.tail, as_is)

    async def _trim(self, _: Client, log: Log) -> None:
        tail = await self.told(self.recorder.call("tail"), log.tail, as_is)
        if not tail:
            return
        before = self.rng.randint(0, tail)
        hold = self.plan.trims == "hold" or self.rng.random() < 0.5
        number = self.recorder.call("trim", before=before, hold=hold)
        await self.told(number, lambda: log.trim(before, hold=hold), lambda r: r.trim_point)
        if self.rng.random() < 0.5:
            await self.read(log, None)

    async def _look(self, _: Client, log: Log) -> None:
        start = None if self.rng.random() < 0.5 else self.rng.randint(0, await log.tail())
        await self.read(log, start)

    async def _clean(self, client: Client, log: Log) -> None:
        report = await client.run_background(log.name)
        for error in report.errors.values():
            self.bear(error)

    async def _verify(self, _: Client, log: Log) -> None:
        await log.verify()

    async def _describe(self, _: Client, log: Log) -> None:
        await log.describe()

    async def _alter(self, _: Client, log: Log) -> None:
        await log.alter(
            segment_max_blocks=self.rng.choice((1, 3, 20)),
            linger_ms=self.rng.choice((0, 10)),
            compression=self.rng.choice(("none", "lz4")),
        )

    # --- cursors that hold the log ---

    async def _new_cursor(self, _: Client, log: Log) -> None:
        """At the beginning, or at a place that is still there."""
        start: int | str = "earliest"
        if self.rng.random() < 0.5:
            start = self.rng.randint(0, await log.tail())
        made = await self.cursor(log, f"{self.machine.name}-{next(self.names)}", start)
        if made is not None:
            self._cursors[made.name] = made.position

    async def _use_cursor(self, _: Client, log: Log) -> None:
        """What a cursor holds must be there; then it goes back, on, or away."""
        if not self._cursors:
            return
        name = self.rng.choice(list(self._cursors))
        cursor = await self.cursor(log, name, self._cursors[name])
        if cursor is None:
            return
        await self.read(log, cursor.position)
        if self.rng.random() < 0.3:
            del self._cursors[name]
            await self.told(self.recorder.call("cursor", name=name), cursor.delete, lambda _: 0)
            return
        to = cursor.position + self.rng.choice((-20, -3, 5, 20))
        to = min(max(0, to), await log.tail())
        if await self.commit(cursor, to):
            self._cursors[name] = to

    # --- the end of logs ---

    async def _delete(self, client: Client, log: Log) -> None:
        """Delete the log, however long it takes, and make a new one of its name."""
        state, world = self.state, self.machine.world
        if state.deleted_by:
            return
        state.deleted_by = self.machine.name
        number = self.recorder.call("delete")
        with contextlib.suppress(NotFound):
            await _insist(lambda: client.delete_log(log.name))
        self.recorder.ok(number, 0)
        state.deleted_ns = world.now_ns()
        made = await _insist(
            lambda: client.create_log(log.name, exist_ok=True, **self.plan.options)
        )
        if self.state is state:  # else somebody else was faster, while this process slept
            self.stage.renew(log.name, made.log_id)
