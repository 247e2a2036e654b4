"""A node without a network: blocks to hand it, and what it answers."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from woodpecker.codec.block import Block
from woodpecker.codec.header import seal_header
from woodpecker.codec.messages import (
    Advance,
    Append,
    Appended,
    Blocks,
    Fence,
    Read,
    Refused,
    Repair,
    Reply,
    Request,
    Stored,
    Voted,
)
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Target, Verdict
from woodpecker.logstore.node import Node
from woodpecker.logstore.settings import NodeSettings
from woodpecker.runtime.runtime import Runtime
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime

FILE_BYTES = 1 << 20
LOG = "ab" * 16
NAME = "orders"
EPOCH = 3


class Answers:
    """``Responder`` that keeps what it is told."""

    def __init__(self) -> None:
        self.future: asyncio.Future[tuple[Reply, bytes]] = (
            asyncio.get_running_loop().create_future()
        )

    def reply(self, message: Reply, payload: Any = b"") -> None:
        parts = payload if isinstance(payload, list) else [payload]
        assert not self.future.done(), "answered twice"
        self.future.set_result((message, b"".join(map(bytes, parts))))


def settings(**changes: Any) -> NodeSettings:
    values: dict[str, Any] = {"node": "n1", "file_bytes": FILE_BYTES, "keep_free_bytes": 0}
    return NodeSettings(**(values | changes))


async def open_node(
    disk: SimDisk, runtime: Runtime, boot_seen: int | None = None, **changes: Any
) -> Node:
    return await Node.open(disk.open(), runtime, settings=settings(**changes), boot_seen=boot_seen)


@dataclass
class Writer:
    """Writes blocks of one segment, each linked to the one before."""

    incarnation: str
    log_id: str = LOG
    name: str = NAME
    segment_id: int = 0
    epoch: int = EPOCH
    seq: int = 0
    digest: bytes = bytes(16)
    blocks: list[bytes] = field(default_factory=list)

    @property
    def target(self) -> Target:
        return Target(
            log_id=self.log_id, segment_id=self.segment_id, epoch=self.epoch,
            incarnation=self.incarnation,
        )  # fmt: skip

    def pack(
        self, size_bytes: int = 100, *, count: int = 1, lac: int = -1, time_us: int = 1
    ) -> bytes:
        """The next block, with one entry of ``size_bytes`` and others of none."""
        number = len(self.blocks)
        lengths = ([size_bytes] + [0] * (count - 1))[:count]
        body = b"".join(n.to_bytes(4, "little") for n in lengths)
        body += random.Random(number).randbytes(sum(lengths))
        buffer = bytearray(128) + body
        header = seal_header(
            memoryview(buffer), log_id=self.log_id, segment_id=self.segment_id, epoch=self.epoch,
            number=number, base_seq=self.seq, count=count, base_timestamp_us=time_us, lac=lac,
            flags=0, column_bytes=0, raw_body_bytes=len(body), prev_digest=self.digest,
        )  # fmt: skip
        self.seq += count
        self.digest = header.digest
        self.blocks.append(bytes(buffer))
        return self.blocks[-1]

    def append(self, node: Node, block: bytes, lac: int = NO_BLOCK) -> asyncio.Future[Any]:
        """Send a block; the future has the answer."""
        return send(node, Append(target=self.target, name=self.name, lac=lac), block)

    async def write(self, node: Node, count: int = 1, size_bytes: int = 100) -> None:
        """Blocks that must be acknowledged."""
        futures = [self.append(node, self.pack(size_bytes)) for _ in range(count)]
        for future in futures:
            answer, _ = await future
            assert isinstance(answer, Appended), answer

    async def advance(self, node: Node, lac: int) -> None:
        await ask(node, Advance(target=self.target, lac=lac))

    async def fence(self, node: Node, *, epoch: int = EPOCH + 1, reason: str = "test") -> Voted:
        answer = await ask(
            node,
            Fence(target=self.target, name=self.name, epoch=epoch, token="f" * 32, reason=reason),
        )
        assert isinstance(answer, Voted), answer
        return answer

    async def repair(self, node: Node, number: int, end: int) -> Any:
        answer, _ = await send(
            node, Repair(target=self.target, name=self.name, end=end), self.blocks[number]
        )
        return answer

    async def repaired(self, node: Node, number: int, end: int) -> None:
        answer = await self.repair(node, number, end)
        assert answer == Stored(number=number), answer

    async def read(self, node: Node, **fields: Any) -> tuple[Blocks, list[bytes]]:
        values: dict[str, Any] = {"first": 0, "limit": 1 << 40, "max_bytes": 1 << 30}
        answer, data = await send(node, Read(target=self.target, **(values | fields)))
        assert isinstance(answer, Blocks), answer
        return answer, cut(data, answer.sizes)

    async def read_all(self, node: Node) -> list[bytes]:
        """Every block that is there."""
        found: list[bytes] = []
        while True:
            _, blocks = await self.read(node, first=len(found))
            if not blocks:
                return found
            found += blocks


def send(node: Node, request: Request, payload: bytes = b"") -> asyncio.Future[Any]:
    """As a transport would: large payloads come in the node's own buffers."""
    place = node.allocate(len(payload)) if isinstance(request, Append | Repair) else None
    if place is None:
        place = memoryview(bytearray(len(payload)))
    place[:] = payload
    answers = Answers()
    node.handle(request, place, answers)
    return answers.future


async def ask(node: Node, request: Request) -> Any:
    answer, _ = await send(node, request)
    return answer


def verdict(answer: Any) -> Verdict | None:
    assert isinstance(answer, Refused), answer
    return answer.verdict


def cut(data: bytes, sizes: tuple[int, ...]) -> list[bytes]:
    blocks, at = [], 0
    for size in sizes:
        blocks.append(data[at : at + size])
        Block.parse(blocks[-1])
        at += size
    assert at == len(data)
    return blocks


class Lab:
    """A disk, and a node on it."""

    def __init__(self, **changes):
        self.disk = SimDisk(random.Random(1))
        self.runtime = VirtualRuntime(1)
        self.changes = changes
        self.node: Node

    async def __aenter__(self):
        self.node = await open_node(self.disk, self.runtime, **self.changes)
        return self

    async def __aexit__(self, *_):
        await self.node.close()
        assert self.runtime.running() == []

    async def restart(self, *, crash=False, boot_seen=None, **changes):
        if crash:
            self.disk.crash()
        await self.node.close(clean=not crash)
        self.node = await open_node(self.disk, self.runtime, boot_seen, **(self.changes | changes))
        return self.node

    def writer(self, **fields):
        return Writer(self.node.identity.incarnation, **fields)
