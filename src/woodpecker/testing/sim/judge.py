"""After the faults: the last writer, the last cleaning, and what all witnesses together say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from woodpecker.client.client import Client
from woodpecker.client.log import Log
from woodpecker.core.ids import State
from woodpecker.errors import (
    Conflict,
    LogEnded,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    WoodpeckerError,
)
from woodpecker.testing.checkers import Final, check, check_after
from woodpecker.testing.faults.leftovers import leftovers
from woodpecker.testing.faults.payloads import item_of
from woodpecker.testing.history import Began, Seen, collect
from woodpecker.testing.sim.stage import LogState, Stage
from woodpecker.testing.sim.weather import Weather
from woodpecker.testing.sim.world import Machine
from woodpecker.testing.sim.writers import WriterRole

CATCH_UP_S = 300.0
CLEAN_S = 900.0
LAST_TRIES = 60
CALM = 0.1  # ms


class Judge:
    """See the module. It is a process like others, with a good connection."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._world = stage.world
        self._count = 0

    async def create(self, name: str) -> Log:
        """Make a log."""
        async with self._client() as client:
            return await client.create_log(name, **self._stage.plan.options)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        """Of a process of its own. The judge runs outside of it: nothing can stop or kill it."""
        async with self._machine().client(background=False) as client:
            yield client

    def _machine(self) -> Machine:
        self._count += 1
        calm = Weather(latency_ms=CALM), Weather(latency_ms=CALM)
        machine = self._world.machine(f"judge.{self._count}", *calm)
        machine.is_client = False
        return machine

    # --- before it wakes the sleepers ---

    async def settle(self) -> None:
        """Every log takes one more writer; then nothing is left to seal, and nothing left over."""
        async with self._client() as client:
            for known in [*self._stage.logs.values()]:
                state = await self._revive(client, known)
                await self._last_writer(client, state)
                if self._stage.plan.late_trim and self._stage.plan.trims == "free":
                    await self._trim(client, state)
                await self._clean(client, state)

    async def _revive(self, client: Client, state: LogState) -> LogState:
        """A log whose deletion nobody could end, or after which nobody could make a new one."""
        if not state.deleted_by or state is not self._stage.logs[state.name]:
            return state
        recorder = self._machine().recorder(state.log_id)
        number = recorder.call("delete")
        with suppress(NotFound):
            await client.delete_log(state.name)
        recorder.ok(number, 0)
        state.deleted_ns = state.deleted_ns or self._world.now_ns()
        made = await client.create_log(state.name, exist_ok=True, **self._stage.plan.options)
        self._stage.renew(state.name, made.log_id)
        return self._stage.logs[state.name]

    async def _last_writer(self, client: Client, state: LogState) -> None:
        log = await client.open_log(state.name)
        if log.log_id != state.log_id:
            self._world.fail("I1", f"{state.name} is another log than it was")
            return
        role = WriterRole(self._stage, self._machine(), state.name)
        for left in reversed(range(LAST_TRIES)):
            if await self._appends(log, role, is_last_try=not left):
                return
            await asyncio.sleep(1.0)  # nodes read that they are drained no longer; full ones seal

    async def _appends(self, log: Log, role: WriterRole, *, is_last_try: bool) -> bool:
        """Whether the log took an entry, or has ended."""
        number = role.recorder.call("open")
        try:
            writer = await log.open_writer()
        except LogEnded as error:
            role.recorder.failed(number, error)
            role.bear(error)
            return True
        role.recorder.ok(number, writer.next_seq, epoch=writer.epoch)
        made = role.make()
        number = role.recorder.call("append", items=[made.item], epoch=writer.epoch)
        try:
            seq = await writer.append(made.payload, headers=made.headers or None)
        except (OutcomeUnknown, Overloaded) as error:
            if is_last_try:
                raise
            role.recorder.failed(number, error)
            return False
        finally:
            await writer.close()
        role.recorder.ok(number, seq)
        return True

    async def _trim(self, client: Client, state: LogState) -> None:
        """All of it."""
        log = await client.open_log(state.name)
        recorder = self._machine().recorder(state.log_id)
        tail = await log.tail()
        number = recorder.call("trim", before=tail)
        recorder.ok(number, (await log.trim(tail)).trim_point)

    async def _clean(self, client: Client, state: LogState) -> None:
        """All background work; it must come to an end."""
        until_s = self._world.loop.time() + CLEAN_S
        while self._world.loop.time() < until_s:
            report = await client.run_background(state.name)
            trouble = [e for e in report.errors.values() if not isinstance(e, Conflict)]
            for error in trouble:  # Conflict: another client works on the log as well
                self._world.fail("I9", f"background work on {state.name}: {error}")
            if len(report.errors) > len(trouble):
                await asyncio.sleep(1.0)
                continue
            log = await client.open_log(state.name)
            if State.CLOSED not in {s.state for s in (await log.describe()).segments}:
                return
            await asyncio.sleep(3.0)
        self._world.fail("I9", f"{state.name}: segments stay unsealed")

    # --- after everybody has ended ---

    async def judge(self, followers: Sequence[Machine]) -> None:
        """Followers reach the tail and end; then the books are compared."""
        async with self._client() as client:
            for state in [*self._stage.logs.values()]:
                await self._notice_rebirth(client, state)
            for state in self._stage.logs.values():
                await self._await_followers(client, state)
            for machine in followers:
                machine.should_end.set()
            for _ in range(100):
                if all(machine.has_ended for machine in followers):
                    break
                await asyncio.sleep(0.5)
            else:
                self._world.fail("I7", f"readers do not end: {followers}")
            for state in self._stage.logs.values():
                await self._clean(client, state)
                await self._judge_log(client, state)
            for state in self._stage.graveyard:
                self._judge_dead(state)

    async def _notice_rebirth(self, client: Client, state: LogState) -> None:
        """A sleeper who was about to delete the log by its name has deleted the one that has it now."""
        if not self._stage.plan.deletes:
            return
        made = await client.create_log(state.name, exist_ok=True, **self._stage.plan.options)
        if made.log_id != state.log_id:
            self._stage.renew(state.name, made.log_id)

    async def _await_followers(self, client: Client, state: LogState) -> None:
        """Every cursor of a follower that lives gets to the tail."""
        log = await client.open_log(state.name)
        tail = await log.tail()
        until_s = self._world.loop.time() + CATCH_UP_S
        while True:
            behind = {
                name: at
                for name, at in self._positions(state.log_id).items()
                if at is None or at < tail
            }
            if not behind:
                return
            if self._world.loop.time() > until_s:
                self._world.fail("I7", f"readers of {state.name} stay behind {tail}: {behind}")
                return
            await asyncio.sleep(1)

    def _positions(self, log_id: str) -> dict[str, int | None]:
        """What living followers of the log were last shown."""
        seen: dict[str, int | None] = {}
        for name, machine in self._world.machines.items():
            if name.startswith("f") and not machine.has_ended:
                seen[name] = None
        for event in self._world.histories.get(log_id, ()):
            if event.process not in seen:
                continue
            if isinstance(event, Seen):
                seen[event.process] = event.first + len(event.items)
            elif isinstance(event, Began):
                seen[event.process] = event.start
        return {m: s for m, s in seen.items() if self._follows(m, log_id)}

    def _follows(self, machine: str, log_id: str) -> bool:
        slot = int(machine[1:].partition(".")[0])
        name = f"log{slot % self._stage.plan.logs}"
        return self._stage.logs[name].log_id == log_id

    async def _judge_log(self, client: Client, state: LogState) -> None:
        world = self._world
        log = await client.open_log(state.name)
        try:
            first = (await log.describe()).trim_point
            items = [item_of(entry) async for entry in log.read()]
            await log.verify()
        except WoodpeckerError as error:
            world.fail("I6", f"{state.name} at the end: {type(error).__name__}: {error}")
            return
        await leftovers(client, state.name, world.fail)
        events = [
            *world.histories.get(state.log_id, ()),
            *world.witness.archive.get(state.log_id, ()),
        ]
        final = Final(first=first, items=tuple(items))
        options = self._stage.plan.options
        found = check(
            collect(events),
            final,
            is_whole=state.log_id not in world.witness.unseen,
            is_complete=True,
            has_retention="retention_age_s" in options or "retention_bytes" in options,
        )
        for violation in found:
            world.fail(violation.rule, f"{state.name}: {violation.text}")
        self._tell(events)

    def _judge_dead(self, state: LogState) -> None:
        """Nobody can read a deleted log any more; nothing may have been acknowledged after it had gone."""
        events = self._world.histories.get(state.log_id, ())
        if state.deleted_ns is not None:
            for violation in check_after(collect(events), state.deleted_ns, "the deletion"):
                self._world.fail(violation.rule, f"deleted {state.name}: {violation.text}")

    def _tell(self, events: Sequence[object]) -> None:
        coverage = self._world.coverage
        for operation in collect(events).operations:  # type: ignore[arg-type]
            coverage[f"{operation.call.kind} {operation.outcome}"] += 1
