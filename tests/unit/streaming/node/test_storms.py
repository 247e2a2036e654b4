"""Owners that wander, crash and meet stores at their worst: nothing acknowledged is lost, repeated or torn."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from tests.unit.streaming.node.kit import EARLIEST, VCID, Cluster, Member, P, a_cluster, until
from tests.unit.streaming.node.storm import (
    AGAIN,
    Storm,
    StubbornConsumer,
    StubbornProducer,
    check,
    wanted_of,
)

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.core.values import Position, Start, StartForm
from woodpecker.streaming.node import retention
from woodpecker.streaming.node.checkpoints import Progress, fold_rest, load_checkpoint
from woodpecker.testing.virtual import on_virtual_time, run


async def wander(storm: Storm, rng: random.Random, faults: float) -> None:
    """Move, crash, release and starve owners, one after another."""
    cluster, number = storm.cluster, 0
    while not storm.is_over:
        number += 1
        member = await cluster.node(f"w{number}")
        try:
            await cluster.order(member)
        except Refused:
            continue
        for _ in range(200):
            if member.state in ("serving", "failed", "closed"):
                break
            await asyncio.sleep(0.05)
        if member.state != "serving":
            continue
        storm.owner = (member, cluster.term)
        member.site.on_objects.max_delay_ms = rng.choice((0, 5, 30))
        member.site.on_objects.rate = rng.choice((0.0, faults))
        member.site.on_metadata.rate = rng.choice((0.0, faults))
        await asyncio.sleep(rng.random() * 6)
        if storm.is_over:
            return
        match rng.choice(("release", "crash", "usurp", "away", "usurp")):
            case "release":
                with contextlib.suppress(Refused):
                    await cluster.release(member)
            case "crash":
                cluster.network.crash(member.node.address)
                await member.node.abandon()
            case "away":
                member.site.on_objects.is_away = True
                await asyncio.sleep(rng.random() * 10)
                member.site.on_objects.is_away = False


async def check_tables(cluster: Cluster, member: Member) -> None:
    """Checkpoint and rest, all from the start, and what the owner holds are the same."""
    log, end = await cluster.reader(), member.life.line.acked
    whole = Fold()
    await fold_rest(log, whole, end, Progress())
    rest = await load_checkpoint(cluster.admin, log, cluster.runtime)
    await fold_rest(log, rest, end, Progress())
    assert rest == whole
    assert whole.ignored == 0
    if member.life.line.fold.next_seq == end:
        assert member.life.line.fold == whole


@pytest.mark.parametrize("seed", range(12))
@on_virtual_time
async def test_wandering_owners_lose_and_repeat_nothing(seed: int) -> None:
    rng = random.Random(seed)
    settings = {
        "tail_bytes": rng.choice((2000, 20_000, 1 << 20)),
        "checkpoint_age_ms": rng.choice((500, 3000)),
        "assembly_bytes": rng.choice((200, 1 << 20)),
    }
    async with a_cluster(seed, **settings) as cluster:
        storm = Storm(cluster, seed)
        first = await cluster.node("n0")
        await cluster.assign(first)
        await cluster.create(first)
        producers = [
            StubbornProducer(
                storm, f"p{n}", 150, with_txns=n % 2 == 1, pause_ms=rng.choice((0, 100))
            )
            for n in range(4)
        ]
        consumers = [StubbornConsumer(storm, credit=rng.choice((300, 5000))) for _ in range(3)]
        works = [one.run() for one in producers] + [one.run() for one in consumers]
        tasks = [cluster.runtime.spawn(work, f"client {n}") for n, work in enumerate(works)]
        wandering = cluster.runtime.spawn(wander(storm, rng, 0.05), "wander")
        await asyncio.gather(*tasks[:4])
        storm.is_over = True
        await wandering
        for member in cluster.members.values():
            member.site.on_objects.calm()
            member.site.on_metadata.calm()
        last = await cluster.node("last")
        await cluster.assign(last)
        storm.owner = (last, cluster.term)
        wanted = {p.name: wanted_of(p) for p in producers}
        total = sum(map(len, wanted.values()))
        await until(lambda: all(len(c.got) >= total for c in consumers), within_s=300)
        await asyncio.sleep(2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for consumer in consumers:
            assert [g.position for g in consumer.got] == [g.position for g in consumers[0].got]
            for name, payloads in wanted.items():
                mine = [g.payload for g in consumer.got if g.payload.startswith(name.encode())]
                assert mine == payloads, name
        await check_tables(cluster, last)


async def subscriber(
    storm: Storm, rng: random.Random, name: str, found: dict[int, bytes], wants: int
) -> None:
    """A subscription whose holder dies now and then: what is not acknowledged comes again, nothing is left out."""
    while len(found) < wants:
        owner = storm.look()
        await asyncio.sleep(0.05)
        if owner is None:
            continue
        member, term = owner
        stream = member.endpoint.consume()
        try:
            state = await member.endpoint.call(
                requests.OpenCursor(
                    pchannel=P, vcid=VCID, cursor=name, start=EARLIEST, holder="h",
                    nonce=f"{rng.getrandbits(64)}",
                )
            )  # fmt: skip
            await stream.send(
                frames.ConsumeHello(pchannel=P, term=term, incarnation=member.node.incarnation)
            )
            done = state.done
            start = Start(
                form=StartForm.POSITION, value=done.seq, index=done.index, low=done.low,
                term=done.term,
            )  # fmt: skip
            await stream.send(frames.Subscribe(consumer=1, vcid=VCID, start=start))
            for _ in range(rng.randrange(3, 25)):
                async with asyncio.timeout(10):
                    frame = await stream.receive()
                if isinstance(frame, frames.ConsumerRefused):
                    assert frame.refusal.kind in AGAIN, frame
                if isinstance(frame, frames.Data):
                    for i, payload in enumerate(frame.messages.payloads):
                        assert found.setdefault(frame.seqs[i], payload) == payload
                    done = Position(frame.seqs[-1], 1, frame.ticks[-1], frame.low, frame.term)
                elif isinstance(frame, frames.Progress) and frame.position > done:
                    done = frame.position
                elif not isinstance(frame, frames.ConsumeReady | frames.Started):
                    break
                if rng.random() < 0.5:
                    await member.endpoint.call(
                        requests.CommitCursor(
                            pchannel=P, vcid=VCID, cursor=name, generation=state.generation,
                            done=done,
                        )
                    )  # fmt: skip
        except Refused as error:
            check(error)
        except TimeoutError:
            pass
        finally:
            stream.cut()


@pytest.mark.parametrize("seed", range(6))
def test_trims_take_nothing_that_a_subscription_still_needs(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVERY_MS", 700.0)
    run(_trims(seed))


async def _trims(seed: int) -> None:
    rng = random.Random(seed)
    async with a_cluster(seed, checkpoint_age_ms=400, tail_bytes=2000) as cluster:
        storm = Storm(cluster, seed)
        first = await cluster.node("n0")
        await cluster.assign(first)
        await cluster.create(first, retention_age_s=1)
        for name in ("a", "b"):  # before anything is written: nothing may go without them
            await first.endpoint.call(
                requests.OpenCursor(pchannel=P, vcid=VCID, cursor=name, start=EARLIEST, nonce="0")
            )
        producers = [StubbornProducer(storm, f"p{n}", 100, pause_ms=100) for n in range(2)]
        founds: list[dict[int, bytes]] = [{}, {}]
        spawn = cluster.runtime.spawn
        tasks = [spawn(one.run(), "producer") for one in producers] + [
            spawn(subscriber(storm, random.Random(seed * 10 + n), name, found, 200), name)
            for n, (name, found) in enumerate(zip("ab", founds, strict=True))
        ]
        wandering = spawn(wander(storm, rng, 0.03), "wander")
        await asyncio.gather(*tasks[:2])
        storm.is_over = True
        await wandering
        for member in cluster.members.values():
            member.site.on_objects.calm()
            member.site.on_metadata.calm()
        last = await cluster.node("last")
        await cluster.assign(last)
        storm.owner = (last, cluster.term)
        await asyncio.gather(*tasks)
        for found in founds:
            assert len(found) == 200
        assert await cluster.log.earliest() > 0, "trims did take place"
