"""What happens to LogStore nodes: killed, paused, restarted, robbed of a disk; one strike at a time.

What is promised bounds what is done: of the copies of an unsealed segment at most one is lost with its disk.
So a disk is lost only while every unsealed segment has all its members, and until that is so again nodes are
struck gently: a killed node may have to cut its journal, after which its copies have no full vote any more,
and a segment with one copy lost and one without a full vote waits for a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

import woodpecker as wp
from woodpecker.app import cluster_of
from woodpecker.core.ids import State
from woodpecker.core.manifest import Member, Segment
from woodpecker.metadata.node_records import NodeRecords
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.testing.faults.arena import Arena
from woodpecker.testing.faults.lives import Lives
from woodpecker.testing.servers.fault_proxy import Fault, FaultRule
from woodpecker.testing.servers.logstore import LogStoreNode

DOWN_S = (0.0, 3.0)
PAUSE_S = (0.2, 6.0)
LOAD_S = (0.3, 1.8)
AWAY = ("paused", "killed", "stopped")
REDUNDANT_S = 120.0
READY_S = 60.0
EMPTY_S = 60.0
STRANGE = re.compile(r"Traceback|never retrieved|never awaited|was destroyed|CRITICAL|Exception in")
SHOWN_CHARS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """What happens to nodes in one round, and how often in a hundred."""

    name: str
    share: int
    act: Callable[[Nodes], Awaitable[None]]
    is_gentle: bool = False  # no node is killed
    takes_writer: bool = False  # it has the writer die, and the next one begin, when it wants to
    needs_proxy: bool = False  # before the object store


class Nodes:
    """The nodes of one run. ``only``: names of the strikes that may happen; default: all."""

    def __init__(self, run: Arena, lives: Lives | None = None, only: Sequence[str] = ()) -> None:
        self.run = run
        self._strikes = [
            strike
            for strike in STRIKES
            if (not only or strike.name in only)
            and (run.place.proxy is not None or not strike.needs_proxy)
        ]
        self._lives = lives
        self.rng = run.rng
        self.all = run.place.nodes
        self._counts = run.report.counts
        self._is_whole = True  # no disk was lost since every copy was known to be there
        self._lost_at = 0.0

    async def draw(self) -> Strike:
        """What is to happen next."""
        if not self._is_whole:
            await self._look()
        strikes = [strike for strike in self._strikes if strike.is_gentle or self._is_whole]
        if not strikes:
            await self.await_whole()
            strikes = self._strikes
        (strike,) = self.rng.choices(strikes, [strike.share for strike in strikes])
        return strike

    async def strike(self, strike: Strike) -> None:
        """Have it happen. Nodes that were ended have been started again."""
        await strike.act(self)
        self._counts[f"nodes: {strike.name}"] += 1

    @property
    def is_fragile(self) -> bool:
        """Whether copies are missing, so that nobody may be killed."""
        return not self._is_whole

    async def heal(self) -> None:
        """Wait until all serve."""
        for node in self.all:
            try:
                if not node.is_running:
                    self.run.report.fail("errors", f"{node.name} ended by itself; see its log")
                    node.spawn()
                await node.wait_ready(READY_S)
            except wp.Unavailable as error:
                self.run.report.fail("I7", f"{node.name} does not come back: {error}")

    async def await_whole(self) -> None:
        """Wait until every unsealed segment has all its members again."""
        while not self._is_whole:
            await self._look()
            await asyncio.sleep(0.2)

    async def end(self) -> None:
        """The log is at rest: nodes let go of it. Then stop them, and look at what they wrote down."""
        for node in self.all:
            await self._must_be_empty(node)
            await self.stop(node)
            text = node.log_file.read_text(errors="replace")
            found = STRANGE.search(text)
            if found:
                at = max(0, found.start() - 200)
                self.run.report.fail("errors", f"{node.name}: {text[at : at + SHOWN_CHARS]}")

    async def _must_be_empty(self, node: LogStoreNode) -> None:
        """Nothing unsealed, nothing queued, nobody unanswered."""
        until = time.monotonic() + EMPTY_S
        left: dict[str, Any] = {"status": "none"}
        while left and time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                status = await node.status()
                waiting = {name: status[name] for name in ("unsealed", "queue", "readers")}
                waiting["readers"] = status["readers"]["waiting"]
                waiting["unanswered"] = status["unanswered_bytes"]
                left = {name: what for name, what in waiting.items() if _is_left(what)}
            await asyncio.sleep(0.1)
        if left:
            self.run.report.fail("I8", f"{node.name} still holds, with everything sealed: {left}")

    # --- what strikes are made of ---

    @property
    def lives(self) -> Lives:
        """The writers, for a strike that takes the writer."""
        assert self._lives is not None, "this run has no lives of writers"
        return self._lives

    def some(self, count: int) -> list[LogStoreNode]:
        """So many, drawn."""
        return self.rng.sample(self.all, count)

    async def kill(self, *nodes: LogStoreNode) -> None:
        """All at once."""
        await asyncio.gather(*(node.kill() for node in nodes))
        self._counts["kills of nodes"] += len(nodes)

    async def pause(self, *nodes: LogStoreNode) -> None:
        """For a while."""
        for node in nodes:
            node.pause()
        await asyncio.sleep(self.rng.uniform(*PAUSE_S))
        for node in nodes:
            node.resume()
        self._counts["pauses of nodes"] += len(nodes)

    async def load_without(self, how: str, nodes: Sequence[LogStoreNode]) -> None:
        """Nodes go, the writer writes for a while and dies, and they come back.

        Args:
            how: "paused" ones have the writer's last blocks waiting in their sockets when they wake, "killed"
                and "stopped" ones have not; "killed" ones may have to cut their journals.
        """
        if how == "paused":
            for node in nodes:
                node.pause()
        elif how == "killed":
            await self.kill(*nodes)
        else:
            await asyncio.gather(*(self.stop(node) for node in nodes))
        await asyncio.sleep(self.rng.uniform(*LOAD_S))
        await self.lives.kill_writer()
        for node in nodes:
            if how == "paused":
                node.resume()
            else:
                node.spawn()
        await self.heal()

    async def stop(self, node: LogStoreNode) -> None:
        """Politely: it must end with 0."""
        await node.stop()
        self._counts["stops of nodes"] += 1
        if node.exit_code != 0:
            self.run.report.fail("errors", f"{node.name} was told to end: exit {node.exit_code}")

    async def down(self) -> None:
        """Some time passes."""
        await asyncio.sleep(self.rng.uniform(*DOWN_S))

    async def is_whole(self, *, members: int = 0) -> bool:
        """Whether every member of an unsealed segment is the incarnation that its node is now.

        Args:
            members: that the open segment must have; 0: any number will do.
        """
        async with self.run.client() as client:
            store = cluster_of(client).metadata
            assert store is not None
            records = [found.record for found in await NodeRecords(store, SystemRuntime()).all()]
            current = {record.node: record.incarnation for record in records}
            manifest = await client.environment.catalog.read(self.run.log)
        opened = manifest.open_segment
        if members and (opened is None or len(_members(opened)) < members):
            return False
        return all(
            member.incarnation == current.get(member.node)
            for segment in manifest.segments
            if segment.state is not State.SEALED
            for member in _members(segment)
        )

    def lost_disk(self) -> None:
        """From now on, until all copies are there again, nobody is killed."""
        self._is_whole = False
        self._lost_at = time.monotonic()
        self._counts["disks lost"] += 1

    async def _look(self) -> None:
        with contextlib.suppress(wp.Unavailable):
            self._is_whole = await self.is_whole()
        waited_s = time.monotonic() - self._lost_at
        if not self._is_whole and waited_s > REDUNDANT_S:
            self.run.report.fail("I7", f"copies are missing {waited_s:.0f} s after a disk was lost")
            self._is_whole = True


def _is_left(what: Any) -> bool:
    return any(what.values()) if isinstance(what, dict) else bool(what)


def _members(segment: Segment) -> tuple[Member, ...]:
    return () if segment.ensemble is None else segment.ensemble.members


# --- the strikes -----------------------------------------------------------------------------------------


def _killed(count: int) -> Callable[[Nodes], Awaitable[None]]:
    async def act(nodes: Nodes) -> None:
        victims = nodes.some(count)
        await nodes.kill(*victims)
        for victim in victims:
            await nodes.down()
            victim.spawn()

    return act


def _paused(count: int) -> Callable[[Nodes], Awaitable[None]]:
    async def act(nodes: Nodes) -> None:
        await nodes.pause(*nodes.some(count))

    return act


async def _killed_while_starting(nodes: Nodes) -> None:
    (victim,) = nodes.some(1)
    await nodes.kill(victim)
    for _ in range(nodes.rng.randint(1, 3)):
        victim.spawn()
        await asyncio.sleep(nodes.rng.uniform(0, 1.0))
        await nodes.kill(victim)
    victim.spawn()


async def _killed_asleep(nodes: Nodes) -> None:
    victim, other = nodes.some(2)
    victim.pause()
    await nodes.pause(other)
    await nodes.kill(victim)
    victim.spawn()


async def _restarted(nodes: Nodes) -> None:
    (one,) = nodes.some(1)
    await nodes.stop(one)
    await nodes.down()
    one.spawn()


async def _restarted_in_turn(nodes: Nodes) -> None:
    for node in nodes.some(len(nodes.all)):
        await nodes.stop(node)
        node.spawn()
        await node.wait_ready(READY_S)


async def _disk_lost(nodes: Nodes) -> None:
    if not await _may_lose(nodes):
        return
    (victim,) = nodes.some(1)
    await nodes.kill(victim)
    nodes.lost_disk()
    victim.lose_disk()
    await nodes.down()
    victim.spawn()


async def _handed_over(nodes: Nodes) -> None:
    """Some are away while the writer writes and dies, others sleep while the next one takes over.

    What only those have that sleep now must not have been promised, or the next one has to wait for them.
    """
    how = nodes.rng.choice(("paused", "stopped") if nodes.is_fragile else AWAY)
    away = nodes.some(nodes.rng.choice((1, 2, 2)))
    asleep = [node for node in nodes.all if node not in away]
    if nodes.rng.random() < 0.5:
        asleep = nodes.some(nodes.rng.randint(1, 2))
    await nodes.load_without(how, away)
    await asyncio.gather(nodes.pause(*asleep), nodes.lives.next_writer())


async def _disk_lost_behind(nodes: Nodes) -> None:
    """One is behind, one loses its disk, the writer dies, the one that holds everything sleeps meanwhile."""
    if not await _may_lose(nodes):
        await nodes.lives.kill_writer()
        await nodes.lives.next_writer()
        return
    behind, victim, whole = nodes.some(len(nodes.all))[:3]
    await nodes.load_without("stopped", [behind])
    await nodes.kill(victim)
    nodes.lost_disk()
    victim.lose_disk()
    victim.spawn()
    await nodes.heal()
    await asyncio.gather(nodes.pause(whole), nodes.lives.next_writer())


async def _slept_through(nodes: Nodes) -> None:
    """A writer sleeps while it is overtaken, nothing can be sealed, and all nodes are killed: only what
    they have written down of the fence stops it when it wakes.
    """
    proxy = nodes.run.place.proxy
    assert proxy is not None
    proxy.add(FaultRule(fault=Fault.REFUSE_503, methods=("PUT", "POST"), path_contains="sealed"))
    try:
        await nodes.lives.overtake()
        await nodes.kill(*nodes.all)
        for node in nodes.all:
            node.spawn()
        await nodes.heal()
        await nodes.lives.wake_last()
    finally:
        proxy.clear()


async def _may_lose(nodes: Nodes) -> bool:
    """Every copy is there. While the metadata store is away nobody knows."""
    try:
        return await nodes.is_whole()
    except wp.Unavailable:
        return False


STRIKES = (
    Strike(name="one killed", share=22, act=_killed(1)),
    Strike(name="two killed", share=10, act=_killed(2)),
    Strike(name="three killed", share=8, act=_killed(3)),
    Strike(name="killed while starting", share=6, act=_killed_while_starting),
    Strike(name="killed asleep", share=6, act=_killed_asleep),
    Strike(name="one paused", share=12, act=_paused(1), is_gentle=True),
    Strike(name="two paused", share=4, act=_paused(2), is_gentle=True),
    Strike(name="handed over", share=10, act=_handed_over, is_gentle=True, takes_writer=True),
    Strike(name="one restarted", share=6, act=_restarted, is_gentle=True),
    Strike(name="restarted in turn", share=4, act=_restarted_in_turn, is_gentle=True),
    Strike(name="slept through", share=6, act=_slept_through, takes_writer=True, needs_proxy=True),
    Strike(name="disk lost", share=8, act=_disk_lost),
    Strike(name="disk lost, another behind", share=6, act=_disk_lost_behind, takes_writer=True),
)
