"""Whatever way messages come, through the buffer, the log or both, with whatever credit: the view is the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.unit.streaming.node.kit import (
    EARLIEST,
    Cluster,
    Consuming,
    P,
    Producing,
    one_node,
    until,
)

from woodpecker.streaming import frames, requests
from woodpecker.streaming.core.assembly import Assembly
from woodpecker.streaming.core.refusals import Class
from woodpecker.streaming.core.values import ANYTHING, NO_STOP, Position, Start, StartForm, Where
from woodpecker.streaming.node.parcels import parcel_of
from woodpecker.streaming.node.pieces import Piece, pieces_of
from woodpecker.testing.virtual import on_virtual_time

CHANNELS = (7, 8, 9)
Seen = tuple[int, int, int, bytes, bytes, str]


async def reference(cluster: Cluster, vcid: int, where: Where = ANYTHING) -> list[Seen]:
    """The channel, straight out of the log."""
    assembly: Assembly[Piece] = Assembly(
        vcid, start=Position(0), read_from=0, assembly_bytes=1 << 40
    )
    found: list[Seen] = []
    async for batch in (await cluster.reader()).read_batches(0):
        for piece in pieces_of(batch, "log"):
            delivery = assembly.feed(piece.facts, piece)
            parcel = None if delivery is None else parcel_of(delivery, where, NO_STOP)
            if parcel is not None:
                messages = parcel.messages
                for i, payload in enumerate(messages.payloads):
                    found.append(
                        (
                            parcel.seqs[i], parcel.indexes[i] if parcel.indexes else 0,
                            parcel.ticks[i], payload,
                            messages.keys[i] if messages.keys else b"",
                            messages.types[i] if messages.types else "",
                        )
                    )  # fmt: skip
    return found


async def write(cluster: Cluster, rng: random.Random, name: str, count: int) -> None:
    """A producer that does all there is to do, now and then under a new epoch."""
    member = cluster.members["n1"]
    producing = await Producing(cluster, member).open(name)
    txns: dict[int, int] = {}
    number = -1
    for n in range(count):
        await asyncio.sleep(rng.random() * 0.01)
        vcid = rng.choice(CHANNELS)
        payloads = [
            f"{name}:{n}:{i}".encode() + b"x" * rng.choice((0, 50, 700))
            for i in range(rng.choice((1, 1, 3)))
        ]
        fields: dict[str, Any] = {"vcid": vcid}
        if rng.random() < 0.4:
            fields["keys"] = [rng.choice((b"", b"1", b"2")) for _ in payloads]
            fields["types"] = [rng.choice(("", "event")) for _ in payloads]
        match rng.choice(("plain", "plain", "begin", "go on", "go on", "end", "ephemeral", "anew")):
            case "begin" if len(txns) < 4:
                number += 1
                txns[number] = vcid
                fields |= {"txn_number": number, "begin": True}
            case "go on" if txns:
                which = rng.choice(list(txns))
                fields |= {"txn_number": which, "vcid": txns[which]}
            case "end" if txns:
                which = rng.choice(list(txns))
                fields |= {"txn_number": which, "vcid": txns.pop(which)}
                if rng.random() < 0.7:
                    fields |= {"commit": True, "join": rng.random() < 0.3}
                    payloads = payloads if rng.random() < 0.5 else []
                else:
                    fields["abort"], payloads = True, []
                if not payloads:
                    fields.pop("keys", None), fields.pop("types", None)
            case "ephemeral":
                fields["ephemeral"] = True
            case "anew" if rng.random() < 0.3:
                producing.stream.cut()
                producing = await Producing(cluster, member).open(name)
                txns.clear()
                number = -1
                continue
        await producing.put(*payloads, **fields)
    producing.stream.cut()


async def follow(
    cluster: Cluster, rng: random.Random, vcid: int, where: Where, seen: list[Seen]
) -> None:
    member = cluster.members["n1"]
    start = EARLIEST
    while True:
        stream = member.endpoint.consume()
        await stream.send(
            frames.ConsumeHello(pchannel=P, term=1, incarnation=member.node.incarnation)
        )
        await stream.send(
            frames.Subscribe(
                consumer=1, vcid=vcid, start=start, where=where,
                credit_bytes=rng.choice((100, 1000, 5000)),
            )
        )  # fmt: skip
        for _ in range(rng.randrange(5, 60)):
            frame = await stream.receive()
            if isinstance(frame, frames.Data):
                if not frame.ephemeral:
                    messages = frame.messages
                    for i, payload in enumerate(messages.payloads):
                        index = frame.indexes[i] if frame.indexes else 0
                        seen.append(
                            (
                                frame.seqs[i], index, frame.ticks[i], payload,
                                messages.keys[i] if messages.keys else b"",
                                messages.types[i] if messages.types else "",
                            )
                        )  # fmt: skip
                        low = rng.choice((frame.low, -1))
                        start = Start(
                            form=StartForm.AFTER, value=frame.seqs[i], index=index, low=low
                        )
                await asyncio.sleep(rng.choice((0, 0, 0.02, 0.2)))
                await stream.send(frames.Credit(consumer=1, size_bytes=frame.cost_bytes))
            elif isinstance(frame, frames.Progress):
                at = frame.position
                start = Start(form=StartForm.POSITION, value=at.seq, index=at.index, low=at.low)
            else:
                assert isinstance(frame, frames.ConsumeReady | frames.Started), frame
        stream.cut()


@pytest.mark.parametrize("seed", range(15))
@on_virtual_time
async def test_every_view_is_the_same(seed: int) -> None:
    rng = random.Random(seed)
    settings = {
        "tail_bytes": rng.choice((500, 5000, 50_000, 1 << 20)),
        "assembly_bytes": rng.choice((100, 2000, 1 << 20)),
    }
    async with one_node(seed, **settings) as (cluster, member):
        await cluster.create(member, 8)
        await cluster.create(member, 9)
        member.site.on_objects.max_delay_ms = rng.choice((0, 4, 20))
        filters = [ANYTHING, ANYTHING, Where(type="event"), Where(key=b"1")]
        views: list[tuple[int, Where, list[Seen]]] = [
            (rng.choice(CHANNELS), rng.choice(filters), []) for _ in range(8)
        ]
        following = [
            cluster.runtime.spawn(
                follow(cluster, random.Random(seed * 100 + n), vcid, where, seen), f"follow {n}"
            )
            for n, (vcid, where, seen) in enumerate(views)
        ]
        await asyncio.gather(
            *(write(cluster, random.Random(seed * 7 + n), f"p{n}", 60) for n in range(3))
        )
        for vcid, where, seen in views:
            wanted = await reference(cluster, vcid, where)
            await until(lambda w=wanted, s=seen: len(s) >= len(w), within_s=300)
            assert seen == wanted
        for task in following:
            assert not task.done() or task.result()
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


@on_virtual_time
async def test_a_channel_deleted_and_trimmed_under_its_readers() -> None:
    async with one_node(tail_bytes=2000) as (cluster, member):
        producing = await Producing(cluster, member).open("a")
        acks = [await producing.put(b"%d" % n + b"x" * 300) for n in range(30)]
        slow = await Consuming(cluster, member, gives_credit=False).open()
        await slow.subscribe(1, credit_bytes=400)
        await until(lambda: slow.got[1])
        trim = requests.AppendControl(
            pchannel=P, term=1, kind="vc-trim", vcid=7, trim_before=acks[20].seq
        )
        await member.endpoint.call(trim)
        delete = requests.AppendControl(pchannel=P, term=1, kind="vc-delete", vcid=7)
        await member.endpoint.call(delete)
        slow.gives_credit = True
        await slow.stream.send(frames.Credit(consumer=1, size_bytes=400))
        refused = await slow.wait_for(lambda f: isinstance(f, frames.ConsumerRefused))
        assert refused.refusal.kind is Class.GONE
        await slow.close()
