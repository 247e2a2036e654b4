"""Streaming nodes over stores in memory, with faults to order, and bare clients that speak frames; on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from woodpecker import Client, Log
from woodpecker.client.environment import Environment
from woodpecker.core.ids import Kind
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.observability.base import SILENT, Observer
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.streaming import frames, requests
from woodpecker.streaming.codec.records import PCHANNELS
from woodpecker.streaming.core.records import Assignment, Owner, PchannelRecord
from woodpecker.streaming.core.refusals import Class, Refused
from woodpecker.streaming.core.values import (
    ANYTHING,
    NO_STOP,
    Position,
    Start,
    StartForm,
    Stop,
    Where,
)
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.node.life import Life
from woodpecker.streaming.node.service import StreamingNode
from woodpecker.streaming.ports import Endpoint
from woodpecker.streaming.settings import DEFAULTS, StreamSettings
from woodpecker.streaming.transport.memory import MemoryNetwork, MemoryServer
from woodpecker.streaming.transport.services import Services
from woodpecker.testing.faulty import (
    Faults,
    FaultyMetadata,
    FaultyObjectStore,
    FaultySegments,
    SegmentFaults,
)
from woodpecker.testing.virtual import VirtualRuntime

P, LOG = "p0", "stream.p0"
VCID = 7
EARLIEST = Start(form=StartForm.EARLIEST)
LATEST = Start(form=StartForm.LATEST)
TAIL_MS = 100


class Site:
    """A process: its client of the store, and its own faults."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.runtime = VirtualRuntime(cluster.seed * 1000 + number)
        self.on_objects = Faults(self.runtime, seed=cluster.seed * 31 + number)
        self.on_metadata = Faults(self.runtime, seed=cluster.seed * 37 + number)
        self.disk = SegmentFaults()
        self._objects = FaultyObjectStore(MemoryObjectStore(cluster.bucket), self.on_objects)
        self._segments = FaultySegments(ObjectSegments(self._objects, self.runtime), self.disk)
        self.store = FaultyMetadata(MemoryMetadata(self.runtime, cluster.records), self.on_metadata)
        self.env = Environment(
            url="memory://test",
            runtime=self.runtime,
            observer=SILENT,
            catalog=Catalog(self.store, self.runtime),
            places=self,
        )

        async def opener() -> Environment:
            return self.env

        async def closer() -> None:
            return None

        self.client = Client(opener, closer, background=False)

    @property
    def default_kind(self) -> Kind:
        return Kind.OBJECT

    def objects(self, storage: str) -> FaultyObjectStore:
        return self._objects

    def segments(self, kind: Kind, storage: str) -> FaultySegments:
        return self._segments

    def check_kind(self, kind: Kind, storage: str) -> None:
        """Everything goes."""

    async def admit(self, storage: str) -> str:
        return storage


@dataclass
class Member:
    """A node and where it lives."""

    site: Site
    node: StreamingNode
    endpoint: Endpoint
    server: MemoryServer

    @property
    def life(self) -> Life:
        life = self.node.owners[P].life
        assert life is not None
        return life

    @property
    def state(self) -> str:
        return self.node.owners[P].machine.state


class Cluster:
    """Stores, network, nodes; one pchannel, whose record the test writes as a coordinator would."""

    def __init__(self, seed: int = 0, **settings: Any) -> None:
        self.seed = seed
        self.bucket = MemoryBucket()
        self.records = MemoryRecords()
        self.runtime = VirtualRuntime(seed)
        self.network = MemoryNetwork(self.runtime)
        self.settings: StreamSettings = replace(DEFAULTS, **settings)
        self.members: dict[str, Member] = {}
        self.term = 0
        self.observer: Observer = SILENT
        self._sites = 0

    def site(self) -> Site:
        self._sites += 1
        return Site(self, self._sites)

    async def start(self) -> None:
        site = self.site()
        await site.client.open()
        log = await site.client.create_log(
            LOG, timestamps="exact", append_timeout_ms=20_000, queue_max_bytes=64 << 20
        )
        self.admin = StreamRecords(site.store, site.runtime)
        self.log = log
        await self.admin.change(
            PCHANNELS.key(P), lambda _: PchannelRecord(name=P, log=LOG, log_id=log.log_id)
        )

    async def reader(self) -> Log:
        """A fresh client's view of the log."""
        site = self.site()
        await site.client.open()
        return await site.client.open_log(LOG)

    async def node(self, name: str) -> Member:
        site = self.site()
        await site.client.open()
        address = f"{name}:1"
        node = StreamingNode(
            site.client,
            site.store,
            site.runtime,
            node=name,
            address=address,
            settings=self.settings,
            observer=self.observer,
            dialer=self.network.dialer(name),
        )
        services = Services(handler=node, manager=node, assignment=node.relay)
        server = self.network.serve(address, services, runtime=site.runtime)
        await node.register()
        member = Member(site, node, self.network.dialer("test").endpoint(address), server)
        self.members[name] = member
        return member

    async def order(self, member: Member) -> int:
        """Write the record and send the order; the term."""
        self.term += 1
        term = self.term
        owner = Owner(
            node=member.node.node,
            incarnation=member.node.incarnation,
            address=member.node.address,
            term=term,
        )

        def decide(found: PchannelRecord | None) -> PchannelRecord:
            assert found is not None
            if found.term >= term:
                return found
            return replace(found, term=term, owner=owner, state=Assignment.ASSIGNING)

        await self.admin.change(PCHANNELS.key(P), decide)
        await member.endpoint.call(
            requests.Assign(
                pchannel=P, log=LOG, log_id=self.log.log_id, term=term,
                incarnation=member.node.incarnation, epoch=1,
            )
        )  # fmt: skip
        return term

    async def assign(self, member: Member) -> Life:
        """Let it serve; the life."""
        await self.order(member)
        await until(lambda: member.state in ("serving", "failed", "closed"))
        assert member.state == "serving", member.node.owners[P].machine
        return member.life

    async def release(self, member: Member, term: int | None = None) -> None:
        await member.endpoint.call(
            requests.Release(
                pchannel=P, term=self.term if term is None else term,
                incarnation=member.node.incarnation, epoch=1,
            )
        )  # fmt: skip

    async def create(self, member: Member, vcid: int = VCID, **options: Any) -> Position:
        written = await member.endpoint.call(
            requests.AppendControl(
                pchannel=P, term=self.term, kind="vc-create", vcid=vcid, name=f"c{vcid}", **options
            )
        )
        return written.position

    async def stop(self) -> None:
        for member in self.members.values():
            await member.node.abandon()
            await member.server.close()
        for _ in range(3):
            await asyncio.sleep(0)

    def running(self) -> list[str]:
        return [n for m in self.members.values() for n in m.site.runtime.running()]


@asynccontextmanager
async def a_cluster(seed: int = 0, **settings: Any) -> AsyncIterator[Cluster]:
    """At the end nothing may be left that runs."""
    cluster = Cluster(seed, **settings)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()
    left = [
        name for name in cluster.running() if not name.startswith(("late ", "serve ", "answer "))
    ]
    assert left == [], f"tasks left: {left}"
    for member in cluster.members.values():
        assert member.node._tools.budget.size_bytes == 0


@asynccontextmanager
async def one_node(seed: int = 0, **settings: Any) -> AsyncIterator[tuple[Cluster, Member]]:
    """One node that serves the pchannel, with channel ``VCID``."""
    async with a_cluster(seed, **settings) as cluster:
        member = await cluster.node("n1")
        await cluster.assign(member)
        await cluster.create(member)
        yield cluster, member


async def until(condition: Any, *, within_s: float = 60.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, "it never came to be"
        await asyncio.sleep(0.01)


class Producing:
    """A Produce stream with one session."""

    def __init__(self, cluster: Cluster, member: Member, term: int | None = None) -> None:
        self.stream = member.endpoint.produce()
        self._hello = frames.ProduceHello(
            pchannel=P, term=cluster.term if term is None else term,
            incarnation=member.node.incarnation,
        )  # fmt: skip
        self.sequence = 0
        self.rates: list[int] = []
        self.attached: frames.Attached

    async def open(self, producer: str = "", epoch: int = -1) -> Producing:
        await self.stream.send(self._hello)
        ready = await self.stream.receive()
        assert isinstance(ready, frames.ProduceReady), ready
        await self.stream.send(frames.Attach(session=1, producer=producer, epoch=epoch))
        attached = await self.answer()
        assert isinstance(attached, frames.Attached), attached
        self.attached = attached
        self.sequence = attached.next_sequence
        return self

    def batch(self, payloads: Sequence[bytes], **fields: Any) -> frames.Batch:
        """The next batch of the session, not sent."""
        columns = {n: fields.pop(n) for n in ("keys", "properties", "types") if n in fields}
        is_ephemeral = fields.get("ephemeral", False)
        batch = frames.Batch(
            session=1,
            sequence=-1 if is_ephemeral else self.sequence,
            vcid=fields.pop("vcid", VCID),
            messages=frames.Messages(payloads=list(payloads), **columns),
            grant_tick=self.attached.grant_tick if self.sequence == 0 else -1,
            **fields,
        )
        self.sequence += not is_ephemeral
        return batch

    async def send(self, *payloads: bytes, **fields: Any) -> frames.Batch:
        batch = self.batch(payloads, **fields)
        await self.stream.send(batch)
        return batch

    async def answer(self) -> Any:
        """The next answer; rates are put aside."""
        while True:
            frame = await self.stream.receive()
            if not isinstance(frame, frames.Rate):
                return frame
            self.rates.append(frame.rate_bytes_s)

    async def ack(self) -> frames.Ack:
        answer = await self.answer()
        assert isinstance(answer, frames.Ack), answer
        return answer

    async def refusal(self) -> frames.BatchRefused:
        answer = await self.answer()
        assert isinstance(answer, frames.BatchRefused), answer
        return answer

    async def put(self, *payloads: bytes, **fields: Any) -> frames.Ack:
        """Send one batch and wait for its ack."""
        await self.send(*payloads, **fields)
        return await self.ack()


@dataclass
class Got:
    """One message as delivered."""

    payload: bytes
    position: Position
    key: bytes = b""
    type: str = ""
    properties: Any = ()
    ephemeral: bool = False


@dataclass
class Consuming:
    """A Consume stream with one or more consumers; collects what comes."""

    cluster: Cluster
    member: Member
    gives_credit: bool = True
    got: dict[int, list[Got]] = field(default_factory=dict)
    progress: list[frames.Progress] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)
    data: list[frames.Data] = field(default_factory=list)

    async def open(self, term: int | None = None) -> Consuming:
        self.stream = self.member.endpoint.consume()
        hello = frames.ConsumeHello(
            pchannel=P, term=self.cluster.term if term is None else term,
            incarnation=self.member.node.incarnation,
        )  # fmt: skip
        await self.stream.send(hello)
        ready = await self.stream.receive()
        assert isinstance(ready, frames.ConsumeReady), ready
        self.task = self.cluster.runtime.spawn(self._collect(), "collect")
        return self

    async def subscribe(
        self, consumer: int = 1, *, vcid: int = VCID, start: Start = EARLIEST, stop: Stop = NO_STOP,
        where: Where = ANYTHING, **fields: Any,
    ) -> Any:  # fmt: skip
        """The answer: Started or ConsumerRefused."""
        self.got.setdefault(consumer, [])
        await self.stream.send(
            frames.Subscribe(
                consumer=consumer, vcid=vcid, start=start, stop=stop, where=where, **fields
            )
        )
        return await self.wait_for(
            lambda f: (
                isinstance(f, frames.Started | frames.ConsumerRefused) and f.consumer == consumer
            )
        )

    async def wait_for(self, condition: Any) -> Any:
        await until(lambda: any(condition(frame) for frame in self.others))
        return next(frame for frame in reversed(self.others) if condition(frame))

    def payloads(self, consumer: int = 1) -> list[bytes]:
        return [message.payload for message in self.got[consumer]]

    async def until(self, count: int, consumer: int = 1) -> list[bytes]:
        """Wait for so many messages, and a little longer: no more may come."""
        await until(lambda: len(self.got[consumer]) >= count)
        await asyncio.sleep(0.3)
        assert len(self.got[consumer]) == count, self.payloads(consumer)
        return self.payloads(consumer)

    async def _collect(self) -> None:
        try:
            while (frame := await self.stream.receive()) is not None:
                if isinstance(frame, frames.Data):
                    await self._take(frame)
                elif isinstance(frame, frames.Progress):
                    self.progress.append(frame)
                else:
                    self.others.append(frame)
        except Refused as error:
            self.others.append(error)

    async def _take(self, data: frames.Data) -> None:
        messages = data.messages
        self.data.append(data)
        for i, payload in enumerate(messages.payloads):
            position = Position(
                data.seqs[i],
                data.indexes[i] if data.indexes else 0,
                data.ticks[i],
                data.low,
                data.term,
            )
            got = Got(payload, position, ephemeral=data.ephemeral)
            if messages.keys:
                got.key = messages.keys[i]
            if messages.types:
                got.type = messages.types[i]
            if messages.properties:
                got.properties = messages.properties[i]
            self.got[data.consumer].append(got)
        if self.gives_credit:
            await self.stream.send(
                frames.Credit(consumer=data.consumer, size_bytes=data.cost_bytes)
            )

    async def close(self) -> None:
        self.stream.cut()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def produce(cluster: Cluster, member: Member, producer: str = "", **kw: Any) -> Producing:
    return await Producing(cluster, member).open(producer, **kw)


async def consume(cluster: Cluster, member: Member, **fields: Any) -> Consuming:
    """A Consume stream with consumer 1."""
    gives = fields.pop("gives_credit", True)
    consuming = await Consuming(cluster, member, gives_credit=gives).open()
    started = await consuming.subscribe(**fields)
    assert isinstance(started, frames.Started), started
    return consuming


def is_class(answer: Any, kind: Class) -> bool:
    return getattr(answer, "refusal", None) is not None and answer.refusal.kind is kind
