"""LogStore nodes made of ``core/replica.py`` and a list, on the network in memory: small, and scriptable.

Not the node (``logstore/``): it has no journal, and a test can see and change everything it has.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from woodpecker.codec.block import Block
from woodpecker.codec.header import parse_header
from woodpecker.codec.messages import (
    Advance,
    Append,
    Appended,
    Blocks,
    Done,
    Fence,
    Find,
    Found,
    Read,
    Refused,
    Repair,
    Request,
    Stored,
    Tell,
    Upload,
    Voted,
    Welcome,
)
from woodpecker.core import replica as rules
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.manifest import Ensemble, Manifest, Member
from woodpecker.core.quorum import ack_quorum
from woodpecker.core.replica import BlockIn, FenceMark, Identity, Replica, Target, Tip, Verdict
from woodpecker.errors import Unavailable
from woodpecker.rpc.base import Responder
from woodpecker.rpc.memory import Conditions, MemoryNetwork, MemoryServer
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.quorum import QuorumSegments
from woodpecker.testing.virtual import VirtualRuntime

Key = tuple[str, int]


@dataclass
class Copy:
    """One copy: its state by the rules, and the bytes of its blocks."""

    replica: Replica
    blocks: list[bytes] = field(default_factory=list)
    lac: int = NO_BLOCK


@dataclass
class Disk:
    """What survives a crash."""

    incarnation: str
    past: frozenset[str] = frozenset()
    copies: dict[Key, Copy] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)


class FakeNode:
    """See the module. ``Handler`` of its server.

    Attributes:
        sync_ms: how long one sync takes; None: never done, until it is set and ``sync`` called.
        pressure: told with every answer; 2: blocks are refused.
        is_mute: requests are taken and never answered. refuses: this type of request fails.
        seen: number of requests by type.
    """

    def __init__(self, cluster: FakeCluster, name: str, zone: str = "") -> None:
        self.cluster = cluster
        self.name = name
        self.zone = zone
        self.lives = 1
        self.disk = Disk(incarnation=f"{name}-1")
        self.copies: dict[Key, Copy] = {}
        self.sync_ms: float | None = 0.1
        self.pressure = 0
        self.is_mute = False
        self.refuses = ""
        self.seen: Counter[str] = Counter()
        self.uploads: list[Upload] = []
        self._queue: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[Key, list[Callable[[], None]]] = {}
        self._server: MemoryServer | None = None

    @property
    def member(self) -> Member:
        return Member(node=self.name, incarnation=self.disk.incarnation)

    @property
    def is_up(self) -> bool:
        return self._server is not None

    # --- its life ---

    def start(self) -> None:
        """Rebuild from the disk and serve."""
        self.copies = {key: _restored(copy) for key, copy in self.disk.copies.items()}
        self._server = self.cluster.network.serve(self.name, self)

    def crash(self) -> None:
        """As by kill -9: what is not synced is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._server = None, None
        self._queue.clear()
        self._waiting.clear()
        self.cluster.network.crash(self.name)

    def wipe(self) -> None:
        """An empty disk: a new incarnation."""
        self.lives += 1
        self.disk = Disk(incarnation=f"{self.name}-{self.lives}")

    def cut_tail(self, blocks: int = 1) -> None:
        """The journal lost its last records: a new incarnation, the old one is past."""
        self.lives += 1
        for copy in self.disk.copies.values():
            del copy.blocks[max(0, len(copy.blocks) - blocks) :]
        past = self.disk.past | {self.disk.incarnation}
        self.disk = replace(self.disk, incarnation=f"{self.name}-{self.lives}", past=past)

    def raise_floor(self, log_id: str, floor: int = 1 << 62) -> None:
        """Forget segments."""
        self.disk.floors[log_id] = max(floor, self.disk.floors.get(log_id, 0))
        for copies in (self.copies, self.disk.copies):
            for key in [key for key in copies if key[0] == log_id and key[1] < floor]:
                del copies[key]

    # --- Handler ---

    def welcome(self) -> Welcome:
        return Welcome(
            node=self.name,
            incarnation=self.disk.incarnation,
            store_id="store",
            storage_url="memory://",
            metadata_url="memory://",
            zone=self.zone,
        )

    def allocate(self, size_bytes: int) -> memoryview | None:
        return None

    def handle(self, request: Request, payload: memoryview, responder: Responder) -> None:
        self.seen[type(request).__name__] += 1
        if self.is_mute:
            return
        if type(request).__name__ == self.refuses:
            responder.reply(Refused(code="unavailable", text="not now"))
            return
        match request:
            case Append():
                self._append(request, bytes(payload), responder)
            case Advance():
                self._advance(request)
            case Fence():
                self._fence(request, responder)
            case Repair():
                self._repair(request, bytes(payload), responder)
            case Read():
                self._read(request, responder)
            case Find():
                self._find(request, responder)
            case Upload():
                self.uploads.append(request)
                responder.reply(Done())
            case Tell():
                self._told(request)
                responder.reply(Done())

    def _told(self, request: Tell) -> None:
        self.cluster.told.append((self.name, request.name))
        if self.cluster.forgets:
            for log_id, _ in list(self.copies):
                self.raise_floor(log_id)

    def _advance(self, request: Advance) -> None:
        copy = self.copies.get(_key(request.target))
        if copy is not None:
            self._learn(_key(request.target), copy, request.lac)

    def _append(self, request: Append, data: bytes, responder: Responder) -> None:
        if self.pressure > 1:
            responder.reply(Refused(code="overloaded", text="the disk is full"))
            return
        key, block = _key(request.target), _block_in(data)
        decision = rules.on_append(
            self._me(), self._floor(key), self._replica(key), request.target, block
        )
        if not self._take(key, decision, data, responder):
            return
        self._learn(key, self.copies[key], request.lac)

        def synced() -> None:
            copy = self.copies[key]
            if not rules.answers_writer(copy.replica):
                responder.reply(_refused(Verdict.FENCED, copy.replica.last))
            else:
                responder.reply(Appended(number=block.number, pressure=self.pressure))

        self._when_synced(synced)

    def _repair(self, request: Repair, data: bytes, responder: Responder) -> None:
        key, block = _key(request.target), _block_in(data)
        decision = rules.on_repair(
            self._me(), self._floor(key), self._replica(key), request.target, block, request.end
        )
        if self._take(key, decision, data, responder):
            self._when_synced(lambda: responder.reply(Stored(number=block.number)))

    def _fence(self, request: Fence, responder: Responder) -> None:
        key = _key(request.target)
        mark = FenceMark(epoch=request.epoch, token=request.token, reason=request.reason)
        decision = rules.on_fence(
            self._me(), self._floor(key), self._replica(key), request.target, mark
        )
        if decision.verdict not in (Verdict.STORE, Verdict.WAIT):
            responder.reply(_refused(decision.verdict, decision.last))
            return
        assert decision.replica is not None
        copy = self.copies.setdefault(key, Copy(decision.replica))
        copy.replica = decision.replica

        def synced() -> None:
            copy.replica = rules.on_synced(copy.replica, fence=True)
            saved = self.disk.copies.setdefault(key, Copy(copy.replica))
            saved.replica = replace(saved.replica, fence=copy.replica.fence)
            assert rules.is_voting(copy.replica)
            told = rules.vote(self._me(), copy.replica)
            size = sum(len(block) for block in copy.blocks)
            said = Voted(tip=told.tip, complete=told.is_complete, size_bytes=size, lac=told.lac)
            responder.reply(said)

        self._when_synced(synced)

    def _take(self, key: Key, decision: rules.Decision, data: bytes, responder: Responder) -> bool:
        """Queue a block that is to be stored; False: it was refused."""
        if decision.verdict is Verdict.STORE:
            assert decision.replica is not None and decision.replica.queued is not None
            copy = self.copies.setdefault(key, Copy(decision.replica))
            copy.replica = decision.replica
            copy.blocks.append(data)
            number = decision.replica.queued.number

            def synced() -> None:
                copy.replica = rules.on_synced(copy.replica, block=number)
                saved = self.disk.copies.setdefault(key, Copy(copy.replica))
                saved.blocks.append(data)
                assert len(saved.blocks) == number + 1
                self._wake(key)

            self._when_synced(synced)
            return True
        if decision.verdict is Verdict.WAIT:
            return True
        responder.reply(_refused(decision.verdict, decision.last))
        return False

    # --- reading ---

    def _read(self, request: Read, responder: Responder) -> None:
        key = _key(request.target)
        refusal = self._check(request.target)
        if refusal is not None:
            responder.reply(_refused(refusal, NO_BLOCK))
            return
        shown, parts = self._shown(request)
        if not parts and not self._has_more(request, shown) and request.wait_ms:
            self._wait(key, request, responder)
            return
        responder.reply(shown, list(parts))

    def _shown(self, request: Read) -> tuple[Blocks, Sequence[bytes]]:
        copy = self.copies.get(_key(request.target))
        if copy is None:
            return Blocks(first=NO_BLOCK, sizes=(), last=NO_BLOCK, visible=None), ()
        last = rules.readable(copy.replica, request.limit)
        first = request.first
        if first == NO_BLOCK:
            first = next(
                (
                    number
                    for number, data in enumerate(copy.blocks)
                    if (header := parse_header(data)).end_seq > request.seq
                    or header.base_seq == request.seq
                ),
                len(copy.blocks),
            )
        parts: list[bytes] = []
        for number in range(first, last + 1):
            data = copy.blocks[number]
            if request.facts_only and not parse_header(data).has_facts:
                continue
            if not request.max_bytes or (
                parts and sum(map(len, parts)) + len(data) > request.max_bytes
            ):
                break
            parts.append(data)
        visible = None if last == NO_BLOCK else parse_header(copy.blocks[last]).end_seq
        fenced = copy.replica.fence is not None
        sizes = tuple(map(len, parts))
        return Blocks(first=first, sizes=sizes, last=last, visible=visible, is_fenced=fenced), parts

    def _has_more(self, request: Read, shown: Blocks) -> bool:
        if request.first != NO_BLOCK:
            return shown.last >= request.first
        return shown.visible is not None and shown.visible > request.seq

    def _wait(self, key: Key, request: Read, responder: Responder) -> None:
        waiting = self._waiting.setdefault(key, [])
        loop = asyncio.get_running_loop()

        def look() -> None:
            shown, parts = self._shown(request)
            if parts or self._has_more(request, shown):
                answer()

        def answer() -> None:
            timer.cancel()
            if look in waiting:
                waiting.remove(look)
                shown, parts = self._shown(request)
                responder.reply(shown, list(parts))

        timer = loop.call_later(request.wait_ms / 1000, answer)
        waiting.append(look)

    def _find(self, request: Find, responder: Responder) -> None:
        refusal = self._check(request.target)
        if refusal is not None:
            responder.reply(_refused(refusal, NO_BLOCK))
            return
        copy = self.copies.get(_key(request.target))
        blocks = [] if copy is None else copy.blocks
        last = NO_BLOCK if copy is None else rules.readable(copy.replica, request.limit)
        for number, data in enumerate(blocks[: last + 1]):
            block = Block.parse(data)
            if block.count and block.last_timestamp_us >= request.timestamp_us:
                responder.reply(Found(number=number))
                return
        responder.reply(Found(number=NO_BLOCK))

    # --- helpers ---

    def _me(self) -> Identity:
        return Identity(node=self.name, incarnation=self.disk.incarnation, past=self.disk.past)

    def _floor(self, key: Key) -> int:
        return self.disk.floors.get(key[0], 0)

    def _replica(self, key: Key) -> Replica | None:
        copy = self.copies.get(key)
        return None if copy is None else copy.replica

    def _check(self, target: Target) -> Verdict | None:
        key = _key(target)
        return rules.refusal(self._me(), self._floor(key), self._replica(key), target)

    def _learn(self, key: Key, copy: Copy, lac: int) -> None:
        copy.replica = rules.on_lac(copy.replica, lac)
        self._wake(key)

    def _wake(self, key: Key) -> None:
        for look in list(self._waiting.get(key, ())):
            look()

    def _when_synced(self, then: Callable[[], None]) -> None:
        self._queue.append(then)
        if self._timer is None and self.sync_ms is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.sync_ms / 1000, self.sync)

    def sync(self) -> None:
        """The journal is synced up to here."""
        self._timer = None
        queue, self._queue = self._queue, []
        for then in queue:
            then()


def _restored(copy: Copy) -> Copy:
    tip = None
    if copy.blocks:
        header = parse_header(copy.blocks[-1])
        tip = Tip(number=header.number, end_seq=header.end_seq, digest=header.digest)
    state = Replica(
        incarnation=copy.replica.incarnation,
        epoch=copy.replica.epoch,
        queued=tip,
        synced=NO_BLOCK if tip is None else tip.number,
        fence=copy.replica.fence,
        is_fence_synced=copy.replica.fence is not None,
    )
    return Copy(state, list(copy.blocks))


def _key(target: Target) -> Key:
    return target.log_id, target.segment_id


def _block_in(data: bytes) -> BlockIn:
    header = Block.parse(data).header
    return BlockIn(
        number=header.number,
        end_seq=header.end_seq,
        prev_digest=header.prev_digest,
        digest=header.digest,
    )


def _refused(verdict: Verdict, last: int) -> Refused:
    return Refused(code="conflict", text=f"it answers {verdict}", verdict=verdict, last=last)


class FakeCluster:
    """Nodes, the network between them, and clients."""

    def __init__(
        self,
        count: int = 3,
        *,
        seed: int = 0,
        replicas: int = 3,
        zones: Sequence[str] = ("",),
        runtime: Runtime | None = None,
    ) -> None:
        self.runtime: Runtime = runtime or VirtualRuntime(seed)
        self.network = MemoryNetwork(self.runtime, Conditions(delay_ms=(0.05, 0.05)))
        self.replicas = replicas
        self.nodes = {
            f"n{number}": FakeNode(self, f"n{number}", zones[(number - 1) % len(zones)])
            for number in range(1, count + 1)
        }
        self.stores: list[QuorumSegments] = []
        self.told: list[tuple[str, str]] = []
        self.forgets = False  # a node that is told of anything forgets all it has

    def node(self, number: int) -> FakeNode:
        return self.nodes[f"n{number}"]

    def directory(self) -> FakeNodes:
        """How one client sees the nodes."""
        return FakeNodes(self)

    def store(self, name: str = "client", *, zone: str = "") -> QuorumSegments:
        """A client of its own."""
        transport = self.network.transport(name)
        store = QuorumSegments(self.directory(), transport, self.runtime, zone=zone)
        self.stores.append(store)
        return store


class FakeNodes:
    """``Nodes``: all nodes of the cluster, those that failed last."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.failing: set[str] = set()
        self.better = False
        self.pressures: dict[str, int] = {}

    async def choose(
        self, manifest: Manifest, *, avoid: AbstractSet[str] = frozenset()
    ) -> Ensemble:
        good = [n for n in self.cluster.nodes.values() if n.name not in avoid | self.failing]
        rest = [n for n in self.cluster.nodes.values() if n not in good]
        size = next((n for n in (5, 3, 2) if n <= min(self.cluster.replicas, len(good))), 2)
        chosen = [*good, *rest][:size]
        if len(chosen) < 2:
            raise Unavailable("too few nodes")
        members = tuple(node.member for node in chosen)
        return Ensemble(members=members, acks=ack_quorum(len(members)))

    async def address(self, member: Member) -> str:
        disk = self.cluster.nodes[member.node].disk
        if member.incarnation not in {disk.incarnation, *disk.past}:
            error = Unavailable(f"node {member.node}: incarnation {member.incarnation} is gone")
            error.retryable = False
            raise error
        return member.node

    def zone_of(self, node: str) -> str:
        return self.cluster.nodes[node].zone

    def wanted(self, ensemble: Ensemble, manifest: Manifest) -> bool:
        return self.better

    def failed(self, node: str) -> None:
        self.failing.add(node)

    def answered(self, node: str, *, pressure: int = 0) -> None:
        self.failing.discard(node)
        self.pressures[node] = pressure

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def a_cluster(count: int = 3, **kwargs: object) -> AsyncIterator[FakeCluster]:
    """Nodes that serve; at the end all stores are closed and no task may be left."""
    cluster = FakeCluster(count, **kwargs)  # type: ignore[arg-type]
    for node in cluster.nodes.values():
        node.start()
    yield cluster
    for store in cluster.stores:
        await store.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(cluster.runtime, VirtualRuntime)
    assert cluster.runtime.running() == []
