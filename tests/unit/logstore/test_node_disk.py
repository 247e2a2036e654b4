"""Starts of a node, and disks that fail, fill up or were exchanged."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.unit.logstore.node_kit import (
    LOG,
    NAME,
    Lab,
    Writer,
    ask,
    open_node,
    send,
    settings,
    verdict,
)

from woodpecker.codec.messages import (
    Appended,
    Fence,
    GetStatus,
    Ping,
    Read,
    Refused,
    Tell,
)
from woodpecker.core.replica import Verdict
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.logstore.node import Node
from woodpecker.testing.sim_disk import SimDisk
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time

# --- starts ---


@on_virtual_time
async def test_identity_boot_and_incarnation():
    async with Lab() as lab:
        first = lab.node.identity
        assert (lab.node.boot, first.node, first.past) == (1, "n1", frozenset())
        await lab.restart()
        assert (lab.node.boot, lab.node.identity, lab.node.lost) == (2, first, "")
        await lab.restart(crash=True, boot_seen=2)
        assert (lab.node.boot, lab.node.identity, lab.node.lost) == (3, first, "")
        await lab.restart(boot_seen=7)
        assert lab.node.boot == 8
        assert "boot 7" in lab.node.lost
        assert lab.node.identity.past == {first.incarnation}
        assert lab.node.welcome().incarnation == lab.node.identity.incarnation
        await lab.restart(boot_seen=8)
        assert (lab.node.boot, lab.node.lost) == (9, "")


@on_virtual_time
async def test_a_past_incarnation_takes_no_blocks_and_votes_a_lower_bound():
    async with Lab() as lab:
        writer, unseen = lab.writer(), lab.writer(segment_id=1)
        await writer.write(lab.node, 2)
        await lab.restart(boot_seen=99)
        assert verdict((await writer.append(lab.node, writer.pack()))[0]) is Verdict.RETIRED
        assert verdict((await unseen.append(lab.node, unseen.pack()))[0]) is Verdict.RETIRED
        voted = await writer.fence(lab.node)
        assert voted.tip is not None
        assert (voted.tip.number, voted.complete) == (1, False)
        assert (await unseen.fence(lab.node)).complete is False
        await writer.repaired(lab.node, 2, 2)
        await lab.restart(crash=True)
        assert await writer.read_all(lab.node) == writer.blocks
        assert (await writer.fence(lab.node)).complete is False
        fresh = lab.writer(segment_id=2)
        await fresh.write(lab.node)
        assert (await fresh.fence(lab.node)).complete is True


@on_virtual_time
async def test_an_empty_disk_is_a_new_node():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node)
        await lab.node.close()
        lab.disk.wipe()
        lab.node = await open_node(lab.disk, lab.runtime, 1)
        assert lab.node.boot == 2
        assert lab.node.identity.past == frozenset()
        assert verdict((await writer.append(lab.node, writer.pack()))[0]) is Verdict.FOREIGN


@on_virtual_time
async def test_a_journal_shorter_than_at_its_good_end_is_noticed():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 5, 5000)
        number = max(n for n, data in lab.disk.journal.items() if any(data))
        used = len(lab.disk.journal[number].rstrip(b"\0"))
        await lab.node.close()
        lab.disk.journal[number][used - 5000 :] = bytes(len(lab.disk.journal[number]) - used + 5000)
        lab.node = await open_node(lab.disk, lab.runtime)
        assert lab.node.lost
        assert lab.node.identity.past


@pytest.mark.parametrize("what", ["identity", "journal", "both", "node", "garbage"])
@on_virtual_time
async def test_disks_that_do_not_add_up_are_refused_or_make_a_new_incarnation(what):
    async with Lab() as lab:
        await lab.writer().write(lab.node)
        await lab.node.close()
        if what == "identity":
            del lab.disk.small["identity"]
        if what == "garbage":
            lab.disk.small["identity"] = lab.disk.small["identity"][:-9]
        if what in ("journal", "both"):
            lab.disk.journal.clear()
        if what == "both":
            lab.disk.small.clear()
        changes = {"node": "n2"} if what == "node" else {}
        if what in ("identity", "garbage", "node"):
            disk = lab.disk.open()
            error = InvalidRequest if what == "node" else Exception
            with pytest.raises(error, match=r"identity|n2|disk"):
                await Node.open(disk, lab.runtime, settings=settings(**changes))
            await disk.close()
            lab.disk.wipe()
        lab.node = await open_node(lab.disk, lab.runtime)
        assert bool(lab.node.identity.past) == (what == "journal")


# --- disks that fail or fill up ---


@on_virtual_time
async def test_a_failed_sync_stops_the_node_loudly():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 3)
        lab.disk.fail_write_in = 1
        futures = [writer.append(lab.node, writer.pack()) for _ in range(3)]
        futures.append(send(lab.node, Read(target=lab.writer(segment_id=7).target, wait_ms=60_000)))
        fence = send(
            lab.node, Fence(target=writer.target, name=NAME, epoch=9, token="t", reason="")
        )
        for future in (*futures, fence):
            answer = (await future)[0]
            assert isinstance(answer, Refused)
            assert answer.code == "unavailable"
            assert "journal" in answer.text
        await lab.node.wait_stopped()
        for request in (Ping(), GetStatus(), Read(target=writer.target), Tell(name=NAME)):
            assert (await ask(lab.node, request)).code == "unavailable"
        with pytest.raises(Unavailable, match="stops"):
            await lab.node.set_floor(LOG, 1)
        with pytest.raises(Unavailable, match="stops"):
            lab.node.set_end(LOG, 0, 1)
        assert lab.node.status()["failure"]
        await lab.restart()
        assert (await writer.read_all(lab.node))[:3] == writer.blocks[:3]


@on_virtual_time
async def test_a_full_disk_refuses_writers_only_and_recovers_by_itself():
    async with Lab() as lab:
        lab.disk.capacity_bytes = 6 << 20
        segment, refused = 0, None
        writers = []
        while refused is None:
            writer = lab.writer(segment_id=segment)
            writers.append(writer)
            for _ in range(5):
                answer, _ = await writer.append(lab.node, writer.pack(60_000))
                if isinstance(answer, Refused):
                    refused = answer
                    break
            segment += 1
            assert segment < 100
        assert refused.code == "overloaded"
        assert "hard watermark" in refused.text
        assert lab.node.pressure == 2
        full = writers[-1]
        refused_block = full.blocks.pop()
        await full.fence(lab.node)
        assert await writers[0].read_all(lab.node) == writers[0].blocks
        full.blocks.append(refused_block)
        await full.repaired(lab.node, len(full.blocks) - 1, len(full.blocks) - 1)
        await lab.node.set_floor(LOG, segment - 2)
        await lab.runtime.sleep_ms(3000)
        assert lab.node.pressure == 0
        await lab.writer(segment_id=segment).write(lab.node, 5, 60_000)
        await lab.restart(crash=True)
        assert await full.read_all(lab.node) == full.blocks


@on_virtual_time
async def test_the_soft_watermark_is_told_with_each_acknowledgement():
    async with Lab(journal_max_bytes=8 << 20, soft_full=0.3, hard_full=0.8) as lab:
        writer = lab.writer()
        pressures = []
        for _ in range(60):
            answer, _ = await writer.append(lab.node, writer.pack(60_000))
            assert isinstance(answer, Appended)
            pressures.append(answer.pressure)
        assert pressures == sorted(pressures)
        assert (pressures[0], pressures[-1]) == (0, 1)
        assert lab.node.pressure == 1


@on_virtual_time
async def test_a_disk_without_room_at_the_start_is_an_error():
    disk = SimDisk(random.Random(1), capacity_bytes=1000)
    opened = disk.open()
    with pytest.raises(Unavailable, match="No space"):
        await Node.open(opened, VirtualRuntime(), settings=settings())
    await opened.close()


@on_virtual_time
async def test_cancelled_starts_leave_nothing_behind():
    disk, runtime = SimDisk(random.Random(1)), VirtualRuntime(1)
    node = await open_node(disk, runtime)
    await Writer(node.identity.incarnation).write(node, 30, 20_000)
    await node.close()
    for step in range(40):
        opened = disk.open()
        task = asyncio.ensure_future(Node.open(opened, runtime, settings=settings()))
        await asyncio.sleep(step * 0.2 / 1000)
        task.cancel()
        try:
            node = await task
        except asyncio.CancelledError:
            await opened.close()
        else:
            await node.close()
        assert runtime.running() == []
