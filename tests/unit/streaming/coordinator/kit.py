"""A world for coordinators: metadata in memory, a network in memory, nodes that only pretend to have logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import Silent
from woodpecker.observability.names import Gauge
from woodpecker.streaming.codec.records import PCHANNELS
from woodpecker.streaming.coordinator.service import Coordinator
from woodpecker.streaming.core.records import Assignment, Owner, PchannelRecord
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.frames import NodeStatus, PchannelStatus
from woodpecker.streaming.metadata.node_session import NodeSession
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.requests import (
    AppendControl,
    Assign,
    ClusterState,
    ControlWritten,
    CursorList,
    DescribeCluster,
    NodeInfo,
    Release,
    Request,
)
from woodpecker.streaming.settings import DEFAULTS, StreamSettings
from woodpecker.streaming.transport.memory import MemoryNetwork, MemoryServer
from woodpecker.streaming.transport.services import Services
from woodpecker.testing.faulty import Faults, FaultyMetadata
from woodpecker.testing.virtual import VirtualRuntime

Reply = TypeVar("Reply")

HOLDING = ("opening", "replaying", "serving", "closing")


def owner_of(record: PchannelRecord) -> Owner:
    assert record.owner is not None
    return record.owner


@dataclass
class Log:
    """What the logs of the store have: control records by pchannel, and the newest claim."""

    claims: dict[str, int] = field(default_factory=dict)
    controls: dict[str, list[AppendControl]] = field(default_factory=dict)

    def append(self, request: AppendControl) -> Position:
        """Idempotent by what it names."""
        key = (request.kind, request.vcid, request.broadcast_id)
        written = self.controls.setdefault(request.pchannel, [])
        for seq, other in enumerate(written):
            if (other.kind, other.vcid, other.broadcast_id) == key:
                return Position(seq=seq, tick=seq)
        written.append(request)
        return Position(seq=len(written) - 1, tick=len(written) - 1)


class FakeNode:
    """A streaming node without logs: declarative, one wish per pchannel, slow as told."""

    session: NodeSession
    server: MemoryServer

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.address = f"{name}:1"
        self.runtime = world.runtime
        self.open_ms = 20.0
        self.close_ms = 20.0
        self.moves = True  # whether an opening reports progress
        self.fails: Callable[[str, int], str] = lambda _p, _t: ""  # why an opening fails
        self.before: Callable[[Request[Any]], None] = lambda _r: None
        self.requests: list[Request[Any]] = []
        self.statuses: dict[str, PchannelStatus] = {}
        self.news = asyncio.Event()
        self.loads: dict[str, tuple[float, int]] = {}
        self.clock_off_us = 0
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.lost: list[str] = []

    async def start(self) -> None:
        self.session = NodeSession(
            self.world.node_records,
            self.runtime,
            self.name,
            settings=self.world.settings,
            on_change=lambda _: None,
            on_lost=self.lost.append,
        )
        self.server = self.world.network.serve(self.address, Services(handler=self, manager=self))
        await self.session.register(address=self.address)

    async def kill(self) -> None:
        """As a crash: nothing is said."""
        self.world.network.crash(self.address)
        for task in self.tasks.values():
            task.cancel()
        await self.session.abandon()
        await self.server.close()
        self.statuses = {}
        self.tasks = {}

    async def stop(self) -> None:
        self.statuses = {}
        await self.session.stop()
        await self.server.close()

    @property
    def serving(self) -> dict[str, int]:
        return {n: s.term for n, s in self.statuses.items() if s.state == "serving"}

    # --- ManagerServer ---

    async def status(self, stream: Any) -> None:
        await stream.receive()
        told: dict[str, PchannelStatus] = {}
        is_full = True
        while True:
            self.news.clear()
            now = dict(self.statuses)
            changed = [s for n, s in now.items() if is_full or told.get(n) != s]
            await stream.send(
                NodeStatus(
                    node=self.name,
                    incarnation=self.session.incarnation,
                    is_full=is_full,
                    pchannels=changed,
                    clock_us=self.runtime.now_us() + self.clock_off_us,
                )
            )
            told, is_full = now, False
            try:
                async with asyncio.timeout(1.0):
                    await self.news.wait()
            except TimeoutError:
                pass

    async def manage(self, request: Request[Reply]) -> Reply:
        self.before(request)
        self.requests.append(request)
        match request:
            case Assign():
                return self._assign(request)  # type: ignore[return-value]
            case Release():
                return self._release(request)  # type: ignore[return-value]
            case AppendControl():
                return self._append(request)  # type: ignore[return-value]
        raise AssertionError(request)

    async def produce(self, stream: Any) -> None:
        raise AssertionError

    async def consume(self, stream: Any) -> None:
        raise AssertionError

    async def handle(self, request: Request[Reply]) -> Reply:
        self.requests.append(request)
        return CursorList(cursors=[])  # type: ignore[return-value]

    def _assign(self, request: Assign) -> PchannelStatus:
        name, now = request.pchannel, self.statuses.get(request.pchannel)
        if request.incarnation != self.session.incarnation:
            return now or PchannelStatus(pchannel=name, term=request.term, state="idle")
        if now is None or now.term < request.term:
            self.set(PchannelStatus(pchannel=name, term=request.term, state="opening"))
            self._do(name, self._open(name, request.term))
        return self.statuses[name]

    def _release(self, request: Release) -> PchannelStatus:
        name, now = request.pchannel, self.statuses.get(request.pchannel)
        if now is None:
            return PchannelStatus(pchannel=name, term=request.term, state="idle")
        if now.term <= request.term and now.state in ("opening", "serving"):
            self.set(replace(now, state="closing"))
            self._do(name, self._close(name, now.term))
        return self.statuses[name]

    def _append(self, request: AppendControl) -> ControlWritten:
        name = request.pchannel
        if self.serving.get(name) != request.term:
            raise Refused(Refusal(kind=Class.MOVED, message="not here"))
        if self.world.log.claims[name] != request.term:
            raise Refused(Refusal(kind=Class.UNKNOWN, message="fenced"))
        return ControlWritten(position=self.world.log.append(request))

    def _do(self, name: str, work: Any) -> None:
        if name in self.tasks:
            self.tasks[name].cancel()
        self.tasks[name] = self.runtime.spawn(work, f"{self.name} {name}")

    async def _open(self, name: str, term: int) -> None:
        record = (await self.world.records.load(PCHANNELS.key(name))).record
        owner = None if record is None else record.owner
        if owner is None or (owner.term, owner.incarnation) != (term, self.session.incarnation):
            del self.statuses[name]  # not (term, me): forget it
            return
        reason = self.fails(name, term)
        for done in range(10):
            await self.runtime.sleep_ms(self.open_ms / 10)
            if self.moves:
                status = self.statuses[name]
                self.set(replace(status, state="replaying", done_bytes=done, total_bytes=10))
        claims = self.world.log.claims
        if reason or claims.get(name, 0) > term:
            state, reason = "failed", reason or "fenced"
        else:
            state, claims[name] = "serving", term
            self.world.served.append((name, term, self.name))
        bytes_s, memory = self.loads.get(name, (0.0, 0))
        self.set(
            PchannelStatus(
                pchannel=name, term=term, state=state, reason=reason, bytes_s=bytes_s,
                memory_bytes=memory,
            )
        )  # fmt: skip

    async def _close(self, name: str, term: int) -> None:
        await self.runtime.sleep_ms(self.close_ms)
        self.set(PchannelStatus(pchannel=name, term=term, state="closed"))

    def set(self, status: PchannelStatus) -> None:
        self.statuses[status.pchannel] = status
        self.news.set()


class Gauges(Silent):
    """Remembers what gauges show."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, str], float] = {}

    def gauge(self, name: Gauge, value: float, **labels: str) -> None:
        self.shown[name, "".join(labels.values())] = value


class World:
    """See the module."""

    def __init__(
        self, settings: StreamSettings | None = None, *, pchannels: int = 4, seed: int = 0
    ) -> None:
        self.runtime = VirtualRuntime(seed)
        self.settings = settings or replace(DEFAULTS, pchannels=pchannels)
        self.shared = MemoryRecords()
        self.faults = Faults(self.runtime, seed)
        calm = MemoryMetadata(self.runtime, self.shared)
        self.calm = calm
        self.records = StreamRecords(calm, self.runtime)
        self.node_faults = Faults(self.runtime, seed + 1)
        self.node_records = StreamRecords(FaultyMetadata(calm, self.node_faults), self.runtime)
        self.network = MemoryNetwork(self.runtime)
        self.log = Log()
        self.gauges = Gauges()
        self.served: list[tuple[str, int, str]] = []
        self.nodes: dict[str, FakeNode] = {}
        self.coordinators: dict[str, Coordinator] = {}
        self.servers: dict[str, MemoryServer] = {}
        self.made_logs: list[str] = []

    async def make_log(self, name: str) -> str:
        self.made_logs.append(name)
        return f"{sum(name.encode()):032x}"

    async def coordinator(self, name: str = "c1") -> Coordinator:
        address = f"{name}:1"
        coordinator = Coordinator(
            FaultyMetadata(self.calm, self.faults),
            self.runtime,
            self.network.dialer(name),
            self.make_log,
            address=address,
            settings=self.settings,
            observer=self.gauges,
        )
        coordinator.start()
        self.servers[name] = self.network.serve(address, Services(assignment=coordinator))
        self.coordinators[name] = coordinator
        return coordinator

    async def node(self, name: str) -> FakeNode:
        node = self.nodes[name] = FakeNode(self, name)
        await node.start()
        return node

    async def kill_coordinator(self, name: str) -> None:
        """It goes without a word."""
        coordinator = self.coordinators.pop(name)
        self.network.crash(f"{name}:1")
        self.faults.is_away, was_away = True, self.faults.is_away
        await coordinator.stop()
        self.faults.is_away = was_away
        await self.servers.pop(name).close()

    def hold(self, node: str) -> None:
        """Nothing gets from the node to coordinator c1 or back until ``release``."""
        for way in ((f"{node}:1", "c1"), ("c1", f"{node}:1")):
            self.network.hold(*way)

    def release(self, node: str) -> None:
        """See ``hold``."""
        for way in ((f"{node}:1", "c1"), ("c1", f"{node}:1")):
            self.network.release(*way)

    async def sleep(self, seconds: float) -> None:
        await self.runtime.sleep_ms(seconds * 1000)

    async def pchannels(self) -> dict[str, PchannelRecord]:
        return {n: s.record for n, s in (await self.records.all(PCHANNELS)).items()}

    async def until(self, what: Callable[[], Any], seconds: float = 60.0) -> float:
        """Wait until it is so; how long that took, in seconds."""
        began_ms = self.runtime.monotonic_ms()
        while True:
            result = what()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return (self.runtime.monotonic_ms() - began_ms) / 1000
            assert self.runtime.monotonic_ms() - began_ms < seconds * 1000, "not in time"
            await self.runtime.sleep_ms(10)

    async def all_assigned(self) -> bool:
        records = (await self.pchannels()).values()
        return len(records) >= self.settings.pchannels and all(
            record.state is Assignment.ASSIGNED and self.is_served(record) for record in records
        )

    def is_served(self, record: PchannelRecord) -> bool:
        node = self.nodes.get(owner_of(record).node)
        return node is not None and node.serving.get(record.name) == record.term

    async def state(self) -> ClusterState:
        return await self.ask(DescribeCluster())

    async def node_info(self, name: str) -> NodeInfo:
        return next(node for node in (await self.state()).nodes if node.node == name)

    async def ask(self, request: Request[Reply]) -> Reply:
        """Of whoever leads."""
        leader = next(c for c in self.coordinators.values() if c.office is not None)
        return await leader.assign(request)

    async def stop(self) -> None:
        for coordinator in self.coordinators.values():
            await coordinator.stop()
        for server in self.servers.values():
            await server.close()
        for node in self.nodes.values():
            for task in node.tasks.values():
                task.cancel()
            await node.session.abandon()
            await node.server.close()
        self.check()
        running = [name for name in self.runtime.running() if not name.startswith("late ")]
        assert not running, running

    def check(self) -> None:
        """At most one owner per term, terms grow along the log."""
        by_term: dict[tuple[str, int], str] = {}
        newest: dict[str, int] = {}
        for name, term, node in self.served:
            assert by_term.setdefault((name, term), node) == node
            assert term >= newest.get(name, 0)
            newest[name] = term
