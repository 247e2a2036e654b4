"""A small honest service: nodes that share one log, and break where a test says.

Each step of a node on a stream is a *point*. ``Service.break_at`` is the number of the point at which
``fault`` happens: before a frame is acted on, before it is answered, and after. So a test can break a story at
every point there is, and look whether what is told is true.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from woodpecker.streaming import frames, requests
from woodpecker.streaming.client.client import StreamingClient
from woodpecker.streaming.core.assignment_map import EMPTY_MAP
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.core.values import EndForm, Position, StartForm
from woodpecker.streaming.frames import Batch, BatchRefused, MapEntry, MapVersion, Messages
from woodpecker.streaming.settings import StreamSettings
from woodpecker.streaming.transport.memory import MemoryNetwork
from woodpecker.streaming.transport.services import Services
from woodpecker.testing.virtual import VirtualRuntime

PCHANNEL = "p0"
VCID = 1
NODES = ("n1", "n2", "n3")
SMALL = StreamSettings(chunk_bytes=300, chunk_from_bytes=1000, credit_bytes=2000)


def refusal(kind: Class, **facts: Any) -> Refusal:
    return Refusal(kind=kind, message=f"a test says {kind}", **facts)


@dataclass
class Txn:
    bodies: list[bytes] = field(default_factory=list)
    state: str = "open"
    position: Position | None = None
    low: int = 0


@dataclass
class Session:
    """What the log knows of a producer."""

    epoch: int
    results: list[frames.Ack] = field(
        default_factory=list
    )  # by sequence; its session number means nothing
    txns: dict[int, Txn] = field(default_factory=dict)


@dataclass
class Shown:
    """One delivery."""

    payloads: list[bytes]
    places: list[Position]


class Service:
    def __init__(self, runtime: VirtualRuntime) -> None:
        self.runtime = runtime
        self.network = MemoryNetwork(runtime)
        self.map = EMPTY_MAP
        self.term = 0
        self.owner = ""
        self.sessions: dict[str, Session] = {}
        self.log: list[Shown] = []  # in order of positions
        self.next_seq = 0
        self.points = 0
        self.break_at = -1
        self.fault: Callable[[Any], Awaitable[None]] | None = None
        self.judge: Callable[[Batch], Refusal | None] = lambda _: None
        self.seen: list[Any] = []  # every frame that came to an owner
        self.reports: list[frames.Report] = []
        self.cursors: dict[str, requests.CursorState] = {}
        self.changed = asyncio.Event()
        self.credit_bytes = 1 << 20
        self.grants = 0
        self.answers: dict[type[Any], Callable[[Any], Any]] = {}  # of unary requests
        self.streams: list[Any] = []
        self.credits: dict[int, int] = {}  # of the consumers of the newest stream
        self.windows: dict[int, int] = {}
        self.has_too_much = False  # more credit than was begun with
        for name in NODES:
            node = Node(self, name)
            self.network.serve(name, Services(handler=node, assignment=node))
        self.move("n1")

    # --- who owns ---

    def move(self, node: str, *, serving: bool = True) -> None:
        """The next term, at ``node``."""
        self.term += 1
        self.owner = node if serving else ""
        self.push(node, serving=serving)

    def push(self, node: str, *, serving: bool = True) -> None:
        entry = MapEntry(
            pchannel=PCHANNEL, term=self.term, node=node, incarnation=f"life of {node}",
            address=node, serving=serving,
        )  # fmt: skip
        version = MapVersion(epoch=1, counter=self.map.version.counter + 1)
        self.map = self.map.changed(version, [entry])
        self.changed.set()
        self.changed = asyncio.Event()

    def cut(self) -> None:
        """All streams between client and nodes end; unary calls and the map go on."""
        for stream in self.streams:
            stream.cut()
        self.streams.clear()

    # --- points ---

    async def point(self, stream: Any) -> None:
        self.points += 1
        if self.points - 1 == self.break_at and self.fault is not None:
            await self.fault(stream)

    # --- the log ---

    def write(self, session: Session, batch: Batch) -> frames.Ack:
        """Append a batch that was admitted."""
        count = max(1, len(batch.messages))
        first, self.next_seq = self.next_seq, self.next_seq + count
        payloads = list(batch.messages.payloads)
        if batch.txn_number >= 0:
            txn = session.txns.setdefault(batch.txn_number, Txn(low=first))
            txn.bodies += payloads
            last = self.next_seq - 1
            if batch.abort:
                txn.state = "aborted"
            if batch.commit:
                bodies = [b"".join(txn.bodies)] if batch.join else txn.bodies
                places = [Position(last, n, last, txn.low, self.term) for n in range(len(bodies))]
                txn.state, txn.position = "committed", Position(last, 0, last, txn.low, self.term)
                self.show(Shown(list(bodies), places))
            ack_seq = last if batch.commit else first
            return self._ack(session, batch, ack_seq, txn.low)
        places = [Position(first + n, 0, first + n, first, self.term) for n in range(count)]
        self.show(Shown(payloads, places))
        return self._ack(session, batch, first, first)

    def _ack(self, session: Session, batch: Batch, seq: int, low: int) -> frames.Ack:
        ack = frames.Ack(
            session=0,
            sequence=batch.sequence,
            seq=seq,
            tick=seq,
            count=len(batch.messages),
            low=low,
        )
        session.results.append(ack)
        return ack

    async def show_consumer(
        self, node: Node, stream: Any, wish: frames.Subscribe, term: int
    ) -> None:
        """Serve one consumer; tests put their own here."""
        await node.show_all(stream, wish, term)

    def show(self, shown: Shown) -> None:
        self.log.append(shown)
        self.changed.set()
        self.changed = asyncio.Event()

    def put(self, *payloads: bytes) -> None:
        """A batch from somebody."""
        batch = Batch(session=0, sequence=0, vcid=VCID, messages=Messages(payloads=payloads))
        self.write(Session(0), batch)

    @property
    def payloads(self) -> list[bytes]:
        return [payload for shown in self.log for payload in shown.payloads]

    @property
    def tail(self) -> Position:
        return Position(self.next_seq, 0, self.next_seq - 1, self.next_seq, self.term)


class Node:
    """``HandlerServer`` and ``AssignmentServer``."""

    def __init__(self, service: Service, name: str) -> None:
        self.service = service
        self.name = name

    def _check(self, hello: Any) -> None:
        service = self.service
        if service.owner != self.name or hello.term != service.term:
            raise Refused(refusal(Class.MOVED, term=service.term))

    # --- producing ---

    async def produce(self, stream: Any) -> None:
        service = self.service
        service.streams.append(stream)
        hello = await stream.receive()
        self._check(hello)
        await service.point(stream)
        await stream.send(frames.ProduceReady(credit_bytes=service.credit_bytes))
        attached: dict[int, tuple[str, int]] = {}
        while (frame := await stream.receive()) is not None:
            service.seen.append(frame)
            await service.point(stream)
            if service.owner != self.name or service.term != hello.term:
                answer: Any = frames.Moved(pchannel=PCHANNEL, term=service.term)
            elif isinstance(frame, frames.Attach):
                answer = self._attach(frame, attached)
            elif isinstance(frame, Batch):
                answer = self._batch(frame, attached)
            else:
                continue
            await service.point(stream)
            if isinstance(answer, frames.Moved):
                await stream.send(answer)
                return
            await stream.send(answer)
            await service.point(stream)

    def _attach(self, frame: frames.Attach, attached: dict[int, tuple[str, int]]) -> Any:
        service = self.service
        name, epoch = frame.producer, frame.epoch
        if len(name) > 200:
            wrong = refusal(Class.INVALID)
            return BatchRefused(session=frame.session, sequence=-1, refusal=wrong)
        if not name:
            service.grants += 1
            name, epoch = f"anonymous-{service.grants}", 0
        elif epoch < 0:
            before = service.sessions.get(name)
            epoch = 1 if before is None else before.epoch + 1
            service.sessions[name] = Session(epoch)
        session = service.sessions.get(name)
        if session is not None and session.epoch != epoch:
            stale = refusal(Class.STALE_PRODUCER)
            return BatchRefused(session=frame.session, sequence=-1, refusal=stale)
        attached[frame.session] = (name, epoch)
        known = 0 if session is None else len(session.results)
        return frames.Attached(
            session=frame.session, producer=name, epoch=epoch, next_sequence=known, grant_tick=1
        )

    def _batch(self, batch: Batch, attached: dict[int, tuple[str, int]]) -> Any:
        service = self.service
        name, epoch = attached[batch.session]
        if batch.ephemeral:
            return frames.Ack(session=batch.session, sequence=-1, seq=-1, tick=1, count=1)
        session = service.sessions.get(name)
        refused = self._refusal_of(batch, session, epoch)
        if refused is not None:
            return BatchRefused(session=batch.session, sequence=batch.sequence, refusal=refused)
        if session is None:
            session = service.sessions[name] = Session(epoch)
        known = session.results
        done = (
            known[batch.sequence] if batch.sequence < len(known) else service.write(session, batch)
        )
        return frames.Ack(
            session=batch.session, sequence=batch.sequence, seq=done.seq, tick=done.tick,
            count=done.count, low=done.low,
        )  # fmt: skip

    def _refusal_of(self, batch: Batch, session: Session | None, epoch: int) -> Refusal | None:
        if session is not None and session.epoch != epoch:
            return refusal(Class.STALE_PRODUCER)
        expected = 0 if session is None else len(session.results)
        if batch.sequence < expected:
            return None
        if batch.sequence > expected:
            return refusal(Class.GAP, expected=expected)
        if batch.txn_number >= 0 and session is not None:
            txn = session.txns.get(batch.txn_number)
            if txn is not None and txn.state == "aborted" and not batch.abort:
                return refusal(Class.ABORTED, reason="expired")
        return self.service.judge(batch)

    # --- consuming ---

    async def consume(self, stream: Any) -> None:
        service = self.service
        service.streams.append(stream)
        hello = await stream.receive()
        self._check(hello)
        await service.point(stream)
        await stream.send(frames.ConsumeReady(term=hello.term))
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while (frame := await stream.receive()) is not None:
                service.seen.append(frame)
                match frame:
                    case frames.Subscribe():
                        service.credits[frame.consumer] = frame.credit_bytes
                        service.windows[frame.consumer] = frame.credit_bytes
                        tasks[frame.consumer] = asyncio.create_task(
                            self._show(stream, frame, hello.term)
                        )
                    case frames.Credit():
                        service.credits[frame.consumer] += frame.size_bytes
                        most = service.windows[frame.consumer]
                        service.has_too_much = (
                            service.has_too_much or service.credits[frame.consumer] > most
                        )
                        service.changed.set()
                        service.changed = asyncio.Event()
                    case frames.Unsubscribe():
                        tasks.pop(frame.consumer).cancel()
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _show(self, stream: Any, wish: frames.Subscribe, term: int) -> None:
        try:
            await self.service.show_consumer(self, stream, wish, term)
        except Refused:
            return

    async def show_all(self, stream: Any, wish: frames.Subscribe, term: int) -> None:
        service, number = self.service, wish.consumer
        begin = self._begin(wish)
        stop = Position(wish.stop.value, wish.stop.index)
        if wish.stop.form is EndForm.TAIL:
            stop = service.tail
        has_stop = wish.stop.form is not EndForm.NEVER
        await service.point(stream)
        await stream.send(frames.Started(consumer=number, position=begin, tail=service.tail))
        told = begin
        at = 0
        while True:
            await service.point(stream)
            if service.owner != self.name or service.term != term:
                await stream.send(frames.Moved(pchannel=PCHANNEL, term=service.term))
                await stream.close()
                return
            changed = service.changed
            if at < len(service.log):
                shown = service.log[at]
                at += 1
                fresh = [
                    (place, payload)
                    for place, payload in zip(shown.places, shown.payloads, strict=True)
                    if place >= begin and not (has_stop and place >= stop)
                ]
                if not fresh:
                    continue
                cost = sum(len(payload) for _, payload in fresh)
                while (
                    service.credits[number] < cost and service.credits[number] < wish.credit_bytes
                ):
                    await service.changed.wait()
                service.credits[number] -= cost
                await stream.send(_data(number, fresh, cost, term))
                told = fresh[-1][0].after()
            elif has_stop and service.tail >= stop:
                await stream.send(frames.ConsumerEnded(consumer=number, position=told))
                return
            else:
                if told < service.tail:
                    told = service.tail
                    progress = frames.Progress(position=told, tick=told.tick, proof_age_ms=0)
                    await stream.send(progress)
                await changed.wait()

    def _begin(self, wish: frames.Subscribe) -> Position:
        match wish.start.form:
            case StartForm.EARLIEST:
                return Position(0)
            case StartForm.LATEST:
                return self.service.tail
        return Position(wish.start.value, wish.start.index)

    # --- unary ---

    async def handle(self, request: Any) -> Any:
        return self._answer(request)

    async def assign(self, request: Any) -> Any:
        return self._answer(request)

    def _answer(self, request: Any) -> Any:
        service = self.service
        self.service.seen.append(request)
        special = service.answers.get(type(request))
        if special is not None:
            return special(request)
        info = requests.Channel(name="orders", vcid=VCID, pchannel=PCHANNEL)
        match request:
            case requests.Locate():
                return requests.Channels(channels=[info] if "orders" in request.names else [])
            case requests.CreateChannel():
                return info
            case requests.GetReadPoint():
                return requests.ReadPoint(position=service.tail)
            case requests.DescribeTransaction():
                return self._describe(request)
            case requests.OpenCursor():
                return self._open_cursor(request)
            case requests.CommitCursor():
                return self._commit_cursor(request)
        raise Refused(refusal(Class.INVALID))

    def _describe(self, request: requests.DescribeTransaction) -> requests.TransactionState:
        session = self.service.sessions.get(request.producer)
        txn = None if session is None else session.txns.get(request.txn_number)
        if txn is None:
            return requests.TransactionState(state="forgotten")
        return requests.TransactionState(state=txn.state, position=txn.position, reason="expired")

    def _open_cursor(self, request: requests.OpenCursor) -> requests.CursorState:
        service = self.service
        found = service.cursors.get(request.cursor)
        state = requests.CursorState(
            cursor=request.cursor,
            vcid=VCID,
            generation=1 if found is None else found.generation + 1,
            holder=request.holder,
            done=Position(0) if found is None else found.done,
            ranges=() if found is None else found.ranges,
            where=request.where if found is None else found.where,
        )
        service.cursors[request.cursor] = state
        return state

    def _commit_cursor(self, request: requests.CommitCursor) -> requests.CursorState:
        service = self.service
        found = service.cursors[request.cursor]
        if found.generation != request.generation:
            raise Refused(refusal(Class.FENCED))
        state = requests.CursorState(
            cursor=request.cursor,
            vcid=VCID,
            generation=found.generation,
            holder=found.holder,
            done=request.done,
            ranges=request.ranges,
            where=found.where,
        )
        service.cursors[request.cursor] = state
        return state

    # --- the map ---

    async def discover(self, stream: Any) -> None:
        service = self.service
        reading = asyncio.create_task(self._read_reports(stream))
        told = EMPTY_MAP
        try:
            while not reading.done():
                changed = service.changed
                if service.map is not told:
                    whole = service.map.whole() if told is EMPTY_MAP else service.map.since(told)
                    told = service.map
                    await stream.send(whole)
                waiting = asyncio.create_task(changed.wait())
                await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_reports(self, stream: Any) -> None:
        try:
            while (frame := await stream.receive()) is not None:
                if isinstance(frame, frames.Report):
                    self.service.reports.append(frame)
        except Refused:
            return


def _data(number: int, fresh: list[tuple[Position, bytes]], cost: int, term: int) -> frames.Data:
    return frames.Data(
        consumer=number,
        seqs=[place.seq for place, _ in fresh],
        ticks=[place.tick for place, _ in fresh],
        indexes=[place.index for place, _ in fresh],
        messages=Messages(payloads=[payload for _, payload in fresh]),
        low=min(place.low for place, _ in fresh),
        term=term,
        cost_bytes=cost,
    )


@asynccontextmanager
async def serving(
    *, timeout_s: float = 60.0, settings: StreamSettings = SMALL
) -> AsyncIterator[tuple[Service, StreamingClient]]:
    """A service and an open client of it. At the end nothing of the client may run."""
    runtime = VirtualRuntime()
    service = Service(runtime)
    mine = VirtualRuntime(seed=1)
    client = StreamingClient(
        service.network.dialer("client"), ["n1", "n2"], timeout_s=timeout_s, runtime=mine,
        settings=settings,
    )  # fmt: skip
    async with client:
        yield service, client
    await asyncio.sleep(0)
    assert mine.running() == []
    assert not service.has_too_much
    for name in NODES:
        server = service.network.server_at(name)
        if server is not None:
            await server.close()
