"""A simulated world: the servers everybody shares, and processes with a client each, on one loop."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from woodpecker.client.client import Client
from woodpecker.core.ids import Kind
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import Silent
from woodpecker.observability.names import Counter as Count
from woodpecker.observability.names import Event as Happening
from woodpecker.observability.names import Span
from woodpecker.rpc.memory import MemoryNetwork
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.checkers import Violation
from woodpecker.testing.history import Event
from woodpecker.testing.recorder import Recorder
from woodpecker.testing.sim.line import Line, Server
from woodpecker.testing.sim.loop import Process, SimLoop
from woodpecker.testing.sim.objects import SimObjectStore
from woodpecker.testing.sim.places import Places
from woodpecker.testing.sim.records import SimMetadata
from woodpecker.testing.sim.trace import Trace
from woodpecker.testing.sim.weather import Fault, Weather
from woodpecker.testing.sim.witness import Witness
from woodpecker.testing.virtual import START_US

COUNTED = {
    Count.TAKEOVERS, Count.FENCED, Count.ROLLS, Count.SEALED, Count.TRIMS, Count.GC_DELETED,
    Count.BACKGROUND_ERRORS,
}  # fmt: skip


class SimRuntime:
    """``Runtime`` of one process: virtual time, its own chance, a wall clock that may be wrong."""

    def __init__(self, loop: SimLoop, seed: str) -> None:
        self._loop = loop
        self._rng = random.Random(seed)
        self._tasks: list[asyncio.Task[Any]] = []
        self.clock_error_us = 0

    def now_us(self) -> int:
        return START_US + int(self._loop.time() * 1e6) + self.clock_error_us

    def monotonic_ms(self) -> float:
        return self._loop.time() * 1000

    def token(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def random(self) -> float:
        return self._rng.random()

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(delay_ms / 1000)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = self._loop.create_task(work, name=name)
        if len(self._tasks) > 100:
            self._tasks = [other for other in self._tasks if not other.done()]
        self._tasks.append(task)
        return task

    def running(self) -> list[str]:
        """Names of the tasks that were spawned and have not ended."""
        return [task.get_name() for task in self._tasks if not task.done()]


class World:
    """What survives every process, and the books of the run.

    Attributes:
        injected: faults by kind. coverage: what the protocol did. failures: what is wrong and no
        history shows. histories: events by log id.
    """

    def __init__(self, loop: SimLoop, seed: int | str, trace: Trace | None = None) -> None:
        self.loop = loop
        self.seed = seed
        self.trace = trace
        self.injected: Counter[Fault] = Counter()
        self.coverage: Counter[str] = Counter()
        self.failures: list[Violation] = []
        self.histories: dict[str, list[Event]] = {}
        self.machines: dict[str, Machine] = {}
        self.bucket = MemoryBucket()
        self.page_objects = 1000
        self.kind = Kind.OBJECT  # of new logs
        runtime = SimRuntime(loop, f"{seed} world")
        self.runtime = runtime
        self.objects = MemoryObjectStore(self.bucket, runtime, name="sim")
        self.records = MemoryMetadata(runtime, MemoryRecords(), name="sim")
        self.network = MemoryNetwork(runtime)
        self.to_objects = self._server("objects")
        self.to_records = self._server("records")
        self.witness = Witness(self.bucket, runtime, self.fail, self.coverage)
        self._last_ns = 0

    def _server(self, name: str) -> Server:
        return Server(name=name, loop=self.loop, injected=self.injected, trace=self.trace)

    @property
    def servers(self) -> tuple[Server, ...]:
        """All that processes talk to."""
        return self.to_objects, self.to_records

    def machine(self, name: str, on_objects: Weather, on_records: Weather) -> Machine:
        """A new process of a name that no other ever had."""
        assert name not in self.machines, name
        machine = self.machines[name] = Machine(self, name, on_objects, on_records)
        return machine

    def now_ns(self) -> int:
        """Time for histories: it grows with every look, so that nothing happens at the same time."""
        self._last_ns = max(self._last_ns + 1, int(self.loop.time() * 1e9))
        return self._last_ns

    def fail(self, rule: str, text: str) -> None:
        """Something is wrong."""
        self.say("world", f"BROKEN {rule}: {text}")
        self.failures.append(Violation(rule=rule, text=text))

    def say(self, who: str, what: str) -> None:
        """For the trace."""
        if self.trace is not None:
            self.trace.say(who, what)

    def inject(self, fault: Fault, who: str, text: str = "") -> None:
        """A fault of a process or server happens now."""
        self.injected[fault] += 1
        self.say("world", f"{fault}: {who} {text}")

    @property
    def requests(self) -> int:
        """Requests carried out so far."""
        return sum(server.seen.total() for server in self.servers)

    @property
    def under_way(self) -> int:
        """Requests whose effect is still to come."""
        return sum(server.under_way for server in self.servers)


class Machine:
    """One process and what it has: a runtime, lines to the servers, recorders."""

    def __init__(self, world: World, name: str, on_objects: Weather, on_records: Weather) -> None:
        self.world = world
        self.name = name
        self.rng = random.Random(f"{world.seed} {name}")
        self.process = Process(world.loop, name)
        self.runtime = SimRuntime(world.loop, f"{world.seed} {name} runtime")
        self.should_end = asyncio.Event()
        chance = random.Random(f"{world.seed} {name} lines")
        self.lines = (
            Line(world.to_objects, self.process, on_objects, chance),
            Line(world.to_records, self.process, on_records, chance),
        )
        self.task: asyncio.Task[None] | None = None
        self.is_client = True  # else it is a node, or the judge
        self.began_ms = self.runtime.monotonic_ms()
        self.held = 0  # what its writers counted as pending when they had ended

    def __repr__(self) -> str:
        return self.name

    @property
    def is_over(self) -> bool:
        """Whether it should begin nothing new."""
        return self.should_end.is_set()

    @property
    def has_ended(self) -> bool:
        """By itself, or killed."""
        return self.process.is_dead or self.task is None or self.task.done()

    def recorder(self, log_id: str) -> Recorder:
        """Of what this process does to one log; a dead one writes nothing down."""
        events = self.world.histories.setdefault(log_id, [])

        def write(event: Event) -> None:
            if not self.process.is_dead:
                events.append(event)
                if self.world.trace is not None and event.tag in ("call", "return"):
                    self.world.trace.say(self.name, _shown(event))

        return Recorder(self.name, self.world.now_ns, write)

    def places(self) -> Places:
        """The adapters of a client of the simulated store."""
        world = self.world
        return Places(
            name=self.name,
            runtime=self.runtime,
            observer=Noting(self),
            objects=SimObjectStore(
                world.bucket,
                world.objects,
                self.lines[0],
                page_objects=world.page_objects,
                before_delete=world.witness.before_delete,
            ),
            records=SimMetadata(
                world.records, self.lines[1], self.runtime, after_put=world.witness.after_put
            ),
            network=world.network,
            default_kind=world.kind,
            trace=world.trace,
        )

    def client(self, *, background: bool) -> Client:
        """A client of the simulated store."""
        places = self.places()
        return Client(places.open, places.close, background=background)

    def kill(self) -> None:
        """As SIGKILL; its connections break."""
        self.process.kill()
        self.world.network.crash(self.name)

    def calm(self) -> None:
        """No faults on its lines any more."""
        for line in self.lines:
            line.weather.calm()


def _shown(event: Any) -> str:
    if event.tag == "return":
        value = "" if event.value is None else f" {event.value}"
        epoch = f" epoch {event.epoch}" if event.epoch else ""
        return f"  #{event.number}: {event.error or event.outcome}{value}{epoch}"
    items = ",".join(item.uid for item in event.items[:4]) + ("..." if len(event.items) > 4 else "")
    facts = {
        "epoch": event.epoch or None, "expect": event.expect, "before": event.before,
        "name": event.name or None, "sequence": event.sequence,
    }  # fmt: skip
    more = " ".join(f"{key}={value}" for key, value in facts.items() if value is not None)
    return f"  #{event.number} {event.kind} {items} {more}"


class Noting(Silent):
    """An observer that counts what the protocol does, and tells the trace."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._coverage = machine.world.coverage

    def count(self, name: Count, n: int = 1, **labels: str) -> None:
        if name in COUNTED:
            self._coverage[str(name)] += n
        if name is Count.BACKGROUND_ERRORS and labels.get("job") == "bug":
            self._machine.world.fail("errors", f"{self._machine.name}: a background job met a bug")

    def event(self, name: Happening, **fields: Any) -> None:
        if self._machine.process.is_dead:
            return
        self._coverage[str(name)] += 1
        if self._machine.world.trace is not None:
            text = " ".join(f"{key}={value}" for key, value in fields.items())
            self._machine.world.trace.say(self._machine.name, f"{name} {text}")
        if name is Happening.CORRUPT:
            self._machine.world.fail("I6", f"{self._machine.name} met damage: {fields}")

    def span(self, name: Span, **fields: Any) -> AbstractContextManager[None]:
        return nullcontext()
