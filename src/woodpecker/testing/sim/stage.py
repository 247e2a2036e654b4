"""What the roles of a run share: the plan, the logs, and the rules for errors that may be met."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

from woodpecker.client.client import Client
from woodpecker.client.log import Log
from woodpecker.errors import (
    Conflict,
    Corrupt,
    Fenced,
    LogEnded,
    NotFound,
    NotWritten,
    OutcomeUnknown,
    OutOfRange,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.testing.faults.payloads import Made, make
from woodpecker.testing.recorder import Recorder
from woodpecker.testing.sim.plan import Plan
from woodpecker.testing.sim.weather import Fault
from woodpecker.testing.sim.world import Machine, World

T = TypeVar("T")
BORNE = (Fenced, NotWritten, OutcomeUnknown, Unavailable, Conflict, OutOfRange)


@dataclass(slots=True)
class Batch:
    """A producer's batch that is sent until it is acknowledged, by whichever process comes next."""

    sequence: int
    made: list[Made]


@dataclass(slots=True, kw_only=True)
class LogState:
    """What the users of one log know together, as if they kept it in a database of their own."""

    name: str
    log_id: str
    producers: dict[str, Batch] = field(default_factory=dict)
    newest_epoch: int = 0  # of the writers that were opened
    is_ended: bool = False  # somebody has asked for it
    deleted_by: str = ""  # who deletes it
    deleted_ns: int | None = None  # it was gone then


@dataclass(slots=True, kw_only=True)
class Stage:
    """See the module. ``logs`` by name, the living incarnation; ``graveyard``: those deleted."""

    world: World
    plan: Plan
    logs: dict[str, LogState] = field(default_factory=dict)
    graveyard: list[LogState] = field(default_factory=list)

    @asynccontextmanager
    async def connected(self, machine: Machine, *, background: bool) -> AsyncIterator[Client]:
        """A client that is open, however long that takes."""
        client = machine.client(background=background)
        while True:
            try:
                await client.open()
                break
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(0.2)
        try:
            yield client
        finally:
            await client.close()

    def renew(self, name: str, log_id: str) -> None:
        """A new log has the name; the one before is dead."""
        if name in self.logs:
            self.graveyard.append(self.logs[name])
        self.logs[name] = LogState(name=name, log_id=log_id)


class Role:
    """One process at work on one log; subclasses say what it does."""

    def __init__(self, stage: Stage, machine: Machine, name: str) -> None:
        self.stage = stage
        self.plan = stage.plan
        self.machine = machine
        self.rng = machine.rng
        self.name = name  # of the log
        self.names = count()
        self._recorders: dict[str, Recorder] = {}
        self.recorder = self.turn_to(self.state.log_id)

    @property
    def state(self) -> LogState:
        """What is known of the log, in its present incarnation."""
        return self.stage.logs[self.name]

    def turn_to(self, log_id: str) -> Recorder:
        """Write down what is done to this incarnation of the log from here on."""
        if log_id not in self._recorders:
            self._recorders[log_id] = self.machine.recorder(log_id)
        self.recorder = self._recorders[log_id]
        return self.recorder

    async def open_log(self, client: Client) -> Log | None:
        """The log, or None after a pause: it is not there now, or the store is away."""
        try:
            log = await client.open_log(self.name)
        except (Unavailable, NotFound) as error:
            self.bear(error)
        else:
            if log.log_id == self.state.log_id:
                self.turn_to(log.log_id)
                return log
        await self.pause(500)
        return None

    async def main(self) -> None:
        """Live: connect, do the work until told to stop, leave nothing behind."""
        machine = self.machine
        try:
            background = self.plan.background and self.rng.random() < 0.8
            async with self.stage.connected(machine, background=background) as client:
                await self.run(client)
            for recorder in self._recorders.values():
                recorder.ended(held=machine.held)
        except Corrupt as error:
            machine.world.fail("I6", f"{machine.name} met damage: {error}")
        except WoodpeckerError as error:
            machine.world.fail("errors", f"{machine.name} ended on {type(error).__name__}: {error}")
        left = machine.runtime.running()
        if left:
            machine.world.fail("I8", f"{machine.name} has ended and left tasks: {left}")

    async def run(self, client: Client) -> None:
        """The work."""
        raise NotImplementedError

    async def pause(self, most_ms: float) -> None:
        """Some time."""
        if most_ms:
            await asyncio.sleep(self.rng.random() * most_ms / 1000)

    def make(self) -> Made:
        """An entry with a name of its own."""
        uid = f"{self.machine.name}.{next(self.names)}"
        return make(uid, self.rng, with_headers=self.rng.random() < 0.2, big_share=0.0)

    def bear(self, error: WoodpeckerError) -> None:
        """An error that the rules allow here; any other is a finding."""
        state = self.state
        is_right = isinstance(error, BORNE) and not isinstance(error, Corrupt)
        if isinstance(error, LogEnded):
            # a sleeper may be told so of an incarnation that has been replaced meanwhile
            dead = (past for past in self.stage.graveyard if past.name == self.name)
            is_right = any(past.is_ended for past in (state, *dead))
        if isinstance(error, NotFound):
            # a cursor that a sleeper creates is seen by his successor before he has to take it back
            is_right = self.plan.deletes or "has no cursor" in str(error)
        if not is_right:
            world = self.machine.world
            world.fail("errors", f"{self.machine.name} met {type(error).__name__}: {error}")

    async def told(
        self, number: int, act: Callable[[], Awaitable[T]], value: Callable[[T], int]
    ) -> T | None:
        """Carry out what ``number`` was recorded for; None: it failed. A user may give up waiting."""
        try:
            result = await self._patiently(act)
        except TimeoutError:
            self.machine.world.injected[Fault.GAVE_UP] += 1
            self.recorder.gave_up(number)
            return None
        except asyncio.CancelledError:
            self.recorder.gave_up(number)
            raise
        except WoodpeckerError as error:
            self.recorder.failed(number, error)
            self.bear(error)
            return None
        self.recorder.ok(number, value(result))
        return result

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        if self.rng.random() >= self.plan.gives_up:
            return await act()
        async with asyncio.timeout(self.rng.random() * 0.1):
            return await act()


def as_is(value: Any) -> int:
    """For calls that answer with a number."""
    return int(value)
