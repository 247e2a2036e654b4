"""A node under random work is stopped anywhere, its disk harmed in between: what it answered holds.

One seed is one run: lives of a node on one simulated disk, each ended by power loss, a kill or in good order.
After each, everything that was acknowledged is asked for again.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from tests.unit.logstore.node_kit import Writer, open_node, send, verdict

from woodpecker.codec.messages import Append, Appended, Fence, Refused, Voted
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Verdict
from woodpecker.logstore.disk import UNIT_BYTES
from woodpecker.logstore.node import Node
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, run

SEEDS = [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 400))]
REFUSALS = (Verdict.FENCED, Verdict.GONE, Verdict.GAP)  # GAP: behind one that found no room
LOGS = ("aa" * 16, "bb" * 16, "cc" * 16)


@dataclass
class Known:
    """What is known of one segment from answers alone."""

    writer: Writer
    acked: int = NO_BLOCK
    is_fence_acked: bool = False
    is_fence_sent: bool = False
    repaired: int = NO_BLOCK
    tip: int | None = None  # as voted


@dataclass
class World:
    """Disk, node and everything that was answered."""

    rng: random.Random
    disk: SimDisk
    runtime: VirtualRuntime
    known: dict[tuple[str, int], Known] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    sent_floors: dict[str, int] = field(default_factory=dict)
    next_segment: dict[str, int] = field(default_factory=dict)
    boot: int = 0
    incarnations: list[str] = field(default_factory=list)
    is_harmed: bool = False  # bits were flipped or units lost: acknowledged data may be gone
    acks: int = 0

    async def open(self) -> Node:
        node = await open_node(self.disk, self.runtime, self.boot)
        assert node.boot > self.boot
        self.boot = node.boot
        if node.identity.incarnation not in self.incarnations:
            self.incarnations.append(node.identity.incarnation)
        assert node.identity.past == set(self.incarnations) - {node.identity.incarnation}
        return node

    async def leave_alone(self, node: Node) -> None:
        """A segment that is written once: its blocks stay, whatever becomes of the files they are in."""
        writer = Writer(node.identity.incarnation, log_id="dd" * 16, name="idle")
        await writer.write(node, 3, self.rng.choice([10, 5000, 70_000]))
        self.known["dd" * 16, 0] = Known(writer, acked=2)

    # --- work ---

    async def work(self, node: Node, log_id: str) -> None:
        while True:
            await self.runtime.sleep_ms(self.rng.uniform(0, 2))
            await self.rng.choice([self.write, self.write, self.write, self.fence, self.floor])(
                node, log_id
            )

    async def write(self, node: Node, log_id: str) -> None:
        known = self._open_segment(node, log_id)
        sizes = [
            self.rng.choice([0, 50, 3000, 5000, 70_000]) for _ in range(self.rng.randint(1, 8))
        ]
        blocks = [known.writer.pack(size) for size in sizes]
        futures = [known.writer.append(node, block, known.acked) for block in blocks]
        first = len(known.writer.blocks) - len(blocks)
        for number, future in enumerate(futures, first):
            answer, _ = await future
            if isinstance(answer, Appended):
                assert answer.number == number
                known.acked = max(known.acked, number)
                self.acks += 1
            else:
                assert isinstance(answer, Refused)
                assert answer.code == "overloaded" or answer.verdict in REFUSALS, answer

    async def fence(self, node: Node, log_id: str) -> None:
        if self.rng.random() < 0.6 or not self.next_segment.get(log_id):
            return
        segment = self.rng.randrange(self.next_segment[log_id])
        known = self.known[log_id, segment]
        if segment < self.sent_floors.get(log_id, 0):
            return
        known.is_fence_sent = True
        answer, _ = await send(
            node,
            Fence(target=known.writer.target, name=known.writer.name, epoch=9, token="f" * 32),
        )
        if isinstance(answer, Refused):
            assert answer.verdict is Verdict.GONE
            return
        assert isinstance(answer, Voted)
        known.is_fence_acked = True
        tip = NO_BLOCK if answer.tip is None else answer.tip.number
        assert tip >= known.acked
        known.tip = tip
        await self._repair(node, known, tip)

    async def _repair(self, node: Node, known: Known, tip: int) -> None:
        end = min(len(known.writer.blocks) - 1, tip + self.rng.randint(0, 3))
        for number in range(tip + 1, end + 1):
            answer = await known.writer.repair(node, number, end)
            if isinstance(answer, Refused):
                assert answer.verdict is Verdict.GONE or answer.code == "overloaded"
                return
            known.repaired = number
            known.acked = max(known.acked, number)

    async def floor(self, node: Node, log_id: str) -> None:
        top = self.next_segment.get(log_id, 0)
        if not top or self.rng.random() < 0.7:
            return
        floor = self.rng.randint(max(0, top - 2), top)
        self.sent_floors[log_id] = max(floor, self.sent_floors.get(log_id, 0))
        await node.set_floor(log_id, floor)
        self.floors[log_id] = max(floor, self.floors.get(log_id, 0))

    def _open_segment(self, node: Node, log_id: str) -> Known:
        """The newest segment, or a new one where that is fenced, forgotten or of a past incarnation."""
        segment = self.next_segment.get(log_id, 0) - 1
        known = self.known.get((log_id, segment))
        if (
            known is not None
            and not known.is_fence_sent
            and segment >= self.sent_floors.get(log_id, 0)
            and known.writer.incarnation == node.identity.incarnation
            and known.acked == len(known.writer.blocks) - 1
            and self.rng.random() < 0.97
        ):
            return known
        segment += 1
        self.next_segment[log_id] = segment + 1
        writer = Writer(
            node.identity.incarnation, log_id=log_id, name=f"log-{log_id[:2]}", segment_id=segment
        )
        known = self.known[log_id, segment] = Known(writer)
        return known

    # --- what must hold ---

    async def check(self, node: Node) -> None:
        for (log_id, segment), known in self.known.items():
            await self._check_segment(node, log_id, segment, known)

    async def _check_segment(self, node: Node, log_id: str, segment: int, known: Known) -> None:
        writer = known.writer
        is_past = writer.incarnation != node.identity.incarnation
        block = writer.blocks[-1] if writer.blocks else writer.pack()
        answer, _ = (
            await send(node, Append(target=writer.target, name=writer.name), block)
            if segment < self.floors.get(log_id, 0)
            else (None, b"")
        )
        if answer is not None:
            assert verdict(answer) is Verdict.GONE or (self.is_harmed and is_past)
            return
        if segment < self.sent_floors.get(log_id, 0):
            return  # either way is right
        fence, _ = await send(
            node, Fence(target=writer.target, name=writer.name, epoch=10, token="e" * 32)
        )
        assert isinstance(fence, Voted), fence
        tip = NO_BLOCK if fence.tip is None else fence.tip.number
        if fence.complete:
            assert not is_past
        lost_some = self.is_harmed and not fence.complete
        if not lost_some:
            assert tip >= known.acked, (tip, known.acked, log_id, segment)
        got = await writer.read_all(node)
        assert len(got) == tip + 1
        assert got == writer.blocks[: len(got)]

    async def check_fences(self, node: Node) -> None:
        """Before anything else is asked of a new start: no fence that was acknowledged is forgotten."""
        for (log_id, segment), known in self.known.items():
            if not known.is_fence_acked or segment < self.sent_floors.get(log_id, 0):
                continue
            number = len(known.writer.blocks)
            answer, _ = await known.writer.append(node, known.writer.pack())
            known.writer.blocks.pop()
            known.writer.seq -= 1
            known.writer.digest = (
                known.writer.blocks[-1][8:24] if known.writer.blocks else bytes(16)
            )
            expected = {Verdict.FENCED}
            if (
                self.is_harmed and known.writer.incarnation in node.identity.past
            ) or self.is_harmed:
                expected |= {Verdict.RETIRED}
            assert verdict(answer) in expected, (answer, number)


async def live(world: World, node: Node) -> str:
    """Some work, then an end of one kind or another."""
    workers = [
        world.runtime.spawn(world.work(node, log_id), f"writer of {log_id[:2]}") for log_id in LOGS
    ]
    await world.runtime.sleep_ms(world.rng.choice([1, 10, 60, 200]))
    for worker in workers:
        if worker.done():
            worker.result()
    how = world.rng.choice(["power", "power", "kill", "close"])
    if how == "power":
        world.disk.crash()
    elif how == "kill":
        world.disk.kill()
    else:
        await node.close()
    for worker in workers:
        worker.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    for result in results:
        if isinstance(result, AssertionError) and how != "close":
            raise result
    await node.close(clean=False)
    return how


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_answered_holds_after_any_stop(seed):
    async def main() -> None:
        rng = random.Random(seed)
        world = World(rng, SimDisk(rng), VirtualRuntime(seed))
        for life in range(rng.randint(3, 6)):
            node = await world.open()
            await world.check_fences(node)
            if not life:
                await world.leave_alone(node)
            await live(world, node)
        node = await world.open()
        await world.check_fences(node)
        await world.check(node)
        assert world.acks or world.disk.syncs < 100
        await node.close()

    run(main())


def harm(world: World, *, is_closed: bool) -> str:
    """Damage what the journal holds. Whole units are lost only where that can be seen: behind a good end."""
    rng, journal = world.rng, world.disk.journal
    used = {number: used_bytes(data) for number, data in journal.items() if any(data)}
    number = rng.choice(sorted(used))
    if not is_closed or rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            world.disk.flip(number, rng.randrange(used[number]), 1 << rng.randrange(8))
        return f"bits of file {number}"
    first = rng.randrange(0, used[number], UNIT_BYTES)
    last = used[number] if rng.random() < 0.5 else first + UNIT_BYTES
    journal[number][first:last] = bytes(last - first)
    return f"file {number} from {first} to {last}"


def used_bytes(data: bytearray) -> int:
    return -(-len(data.rstrip(b"\0")) // UNIT_BYTES) * UNIT_BYTES


@pytest.mark.parametrize("seed", SEEDS)
def test_damage_makes_a_node_modest_never_wrong(seed):
    """Nothing acknowledged is denied by a vote that counts, no fence forgotten, no wrong byte shown."""

    async def main() -> None:
        rng = random.Random(seed + 1_000_000)
        world = World(rng, SimDisk(rng), VirtualRuntime(seed))
        how = ""
        for life in range(rng.randint(1, 3)):
            node = await world.open()
            await world.check_fences(node)
            if not life:
                await world.leave_alone(node)
            how = await live(world, node)
        world.is_harmed = True
        harm(world, is_closed=how == "close")
        node = await world.open()
        await world.check_fences(node)
        await world.check(node)
        before = [(copy["last"], copy["is_unsure"]) for copy in node.segments()]
        world.disk.kill()
        await node.close(clean=False)
        node = await world.open()
        assert node.lost == "", "the consequences of damage are drawn once"
        await world.check_fences(node)
        assert [(copy["last"], copy["is_unsure"]) for copy in node.segments()] == before
        await world.check(node)
        await node.close()

    run(main())
