"""A node that dies, loses its stream or is released at any step of its work: the next owner finds all that was told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from tests.unit.streaming.node.kit import (
    EARLIEST,
    Cluster,
    Consuming,
    Member,
    P,
    Producing,
    a_cluster,
    consume,
    produce,
    until,
)

from woodpecker.streaming import requests
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.core.values import Position
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import run

EVERY = 2  # turns of the loop between two bombs
MOST = 3000


class Told:
    """What the node has told its clients."""

    def __init__(self) -> None:
        self.acked: list[bytes] = []
        self.unsure: list[bytes] = []
        self.committed: list[bytes] = []
        self.cursor: Position | None = None
        self.got: list[bytes] = []
        self.is_done = False


async def work(cluster: Cluster, member: Member, told: Told) -> None:
    """A bit of everything, one thing after another."""
    await cluster.order(member)
    await until(lambda: member.state == "serving")
    await cluster.create(member)
    consuming = await Consuming(cluster, member).open()
    told.got = consuming.got.setdefault(1, [])  # type: ignore[assignment]
    await consuming.subscribe(1)
    producing = await produce(cluster, member, "a")
    for n in range(3):
        await _tell(told, producing, [b"%d" % n], told.acked)
    await _tell(told, producing, [b"t1"], [], txn_number=0, begin=True)
    state = await member.endpoint.call(
        requests.OpenCursor(pchannel=P, vcid=7, cursor="c", start=EARLIEST, holder="h", nonce="n")
    )
    done = Position(3, low=3)
    await member.endpoint.call(
        requests.CommitCursor(
            pchannel=P, vcid=7, cursor="c", generation=state.generation, done=done
        )
    )
    told.cursor = done
    await producing.put(b"e", ephemeral=True)
    await _tell(told, producing, [b"t2"], told.committed, txn_number=0, commit=True)
    told.is_done = True
    await cluster.release(member)
    await until(lambda: member.state == "closed")


async def _tell(
    told: Told, producing: Producing, payloads: list[bytes], into: list[bytes], **fields: Any
) -> None:
    told.unsure = payloads
    ack = await producing.put(*payloads, **fields)
    told.unsure = []
    if fields.get("commit"):
        into.extend([b"t1", b"t2"])
        assert ack.count == 2
    else:
        into.extend(payloads)


class Bomb:
    """Goes off when the loop has turned so often; time passes meanwhile as it wants."""

    def __init__(self, turns: int, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop = cast("Any", asyncio.get_running_loop())
        self._turn = self._loop._run_once
        self._left = turns
        self._act = act
        self._task: asyncio.Task[None] | None = None
        self._loop._run_once = self._counted

    def _counted(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._task = self._loop.create_task(self._act(), name="bomb")
        self._turn()

    async def defuse(self) -> bool:
        """Let it end what it has begun; whether it never went off."""
        self._loop._run_once = self._turn
        if self._task is not None:
            await self._task
        return self._task is None


async def check(cluster: Cluster, told: Told) -> None:
    """The next owner has all that was told, and at most what was under way besides."""
    new = await cluster.node("next")
    await cluster.assign(new)
    if not told.acked and 7 not in new.life.line.fold.vchannels:
        return
    consuming = await consume(cluster, new)
    wanted = told.acked + told.committed
    await until(lambda: len(consuming.got[1]) >= len(wanted))
    await asyncio.sleep(0.3)
    found = consuming.payloads()
    assert found[: len(wanted)] == wanted
    rest = found[len(wanted) :]
    assert rest in ([], told.unsure, [b"t1", b"t2"]), rest
    if told.cursor is not None:
        state = await new.endpoint.call(
            requests.OpenCursor(pchannel=P, vcid=7, cursor="c", start=EARLIEST, attach=False)
        )
        assert state.done >= told.cursor
    await consuming.close()


async def crash(cluster: Cluster, member: Member) -> None:
    cluster.network.crash(member.node.address)
    await member.node.abandon()


async def lose_streams(cluster: Cluster, member: Member) -> None:
    cluster.network.snap("test", member.node.address)


async def usurp(cluster: Cluster, member: Member) -> None:
    await cluster.assign(await cluster.node("usurper"))


async def release(cluster: Cluster, member: Member) -> None:
    for owner in member.node.owners.values():
        owner.release(cluster.term)


async def objects_away(cluster: Cluster, member: Member) -> None:
    member.site.on_objects.is_away = True


async def records_away(cluster: Cluster, member: Member) -> None:
    member.site.on_metadata.is_away = True


async def writes_unclear(cluster: Cluster, member: Member) -> None:
    """The next writes of the node get no answer; some of them take effect, perhaps later."""
    for faults in (member.site.on_objects, member.site.on_metadata):
        for op in ("create", "replace", "put"):
            faults.script(op, Fault.LATE)
            faults.script(op, Fault.LOST)


@pytest.mark.parametrize(
    "act", [crash, lose_streams, usurp, release, objects_away, records_away, writes_unclear]
)
@pytest.mark.parametrize("delay_ms", [0, 3])
def test_at_any_step(act: Any, delay_ms: int) -> None:
    for turns in range(1, MOST, EVERY):
        if run(_one(act, delay_ms, turns)):
            return
    raise AssertionError(f"the work takes more than {MOST} turns")


async def _one(act: Any, delay_ms: int, turns: int) -> bool:
    async with a_cluster(turns) as cluster:
        member = await cluster.node("n1")
        member.site.on_objects.max_delay_ms = member.site.on_metadata.max_delay_ms = delay_ms
        told = Told()
        working = cluster.runtime.spawn(work(cluster, member, told), "work")
        bomb = Bomb(turns, lambda: act(cluster, member))
        with contextlib.suppress(TimeoutError, Refused, AssertionError, KeyError):  # as it must
            async with asyncio.timeout(1):
                await working
        is_over = await bomb.defuse() and told.is_done
        await check(cluster, told)
        return is_over
