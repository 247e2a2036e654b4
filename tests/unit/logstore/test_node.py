"""What a node answers, request by request."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.unit.logstore.node_kit import (
    EPOCH,
    LOG,
    NAME,
    Lab,
    ask,
    send,
    verdict,
)

from woodpecker.codec.messages import (
    Append,
    Appended,
    Done,
    Fence,
    Find,
    GetObject,
    GetStatus,
    ListSegments,
    Object,
    Ping,
    Read,
    Refused,
    Repair,
    Status,
    Stored,
    Tell,
    Upload,
)
from woodpecker.core.manifest import End
from woodpecker.core.replica import Target, Verdict
from woodpecker.errors import Conflict, InvalidRequest
from woodpecker.testing.virtual import on_virtual_time

# --- blocks ---


@on_virtual_time
async def test_blocks_are_acknowledged_when_synced_and_in_order():
    async with Lab() as lab:
        writer, done = lab.writer(), []
        before = lab.disk.syncs
        futures = [writer.append(lab.node, writer.pack(size)) for size in (10, 80_000, 10, 300_000)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: done.append(number))
        await asyncio.sleep(0)
        assert not any(future.done() for future in futures), "nothing before the sync"
        answers = [(await future)[0] for future in futures]
        await asyncio.sleep(0)
        assert answers == [Appended(number=number) for number in range(4)]
        assert done == [0, 1, 2, 3]
        assert lab.disk.syncs == before + 1, "what comes in one turn of the loop is one group"
        assert await writer.read_all(lab.node) == writer.blocks


@on_virtual_time
async def test_a_repeated_block_is_answered_when_it_is_synced():
    async with Lab() as lab:
        writer = lab.writer()
        block = writer.pack()
        first, repeated = writer.append(lab.node, block), writer.append(lab.node, block)
        await asyncio.sleep(0)
        assert not repeated.done()
        assert (await repeated)[0] == Appended(number=0)
        assert first.done()
        again = writer.append(lab.node, block)
        assert again.result()[0] == Appended(number=0), "at once: it is on the disk"
        assert lab.node.segments()[0]["last"] == 0


@on_virtual_time
async def test_gaps_and_contradictions_are_refused():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 2)
        writer.pack()
        answer, _ = await writer.append(lab.node, writer.pack())
        assert verdict(answer) is Verdict.GAP
        assert answer.last == 1
        other = lab.writer()
        other.pack(), other.pack(5)
        answer, _ = await other.append(lab.node, other.pack())
        assert verdict(answer) is Verdict.MISMATCH
        for wrong in ({"epoch": EPOCH + 1}, {"incarnation": "0" * 32}):
            stranger = lab.writer()
            for name, value in wrong.items():
                setattr(stranger, name, value)
            answer, _ = await stranger.append(lab.node, stranger.pack())
            assert verdict(answer) in (Verdict.MISMATCH, Verdict.FOREIGN)


@pytest.mark.parametrize("place", [0, 9, 50, 127, 130, -1])
@on_virtual_time
async def test_a_damaged_block_is_refused_and_nothing_else_happens(place):
    async with Lab() as lab:
        writer = lab.writer()
        block = bytearray(writer.pack())
        block[place] ^= 4
        answer, _ = await writer.append(lab.node, bytes(block))
        assert isinstance(answer, Refused)
        assert (answer.code, answer.verdict) == ("corrupt", None)
        assert lab.node.segments() == []
        assert lab.node.held_logs() == []
        answer, _ = await writer.append(lab.node, writer.blocks[0])
        assert answer == Appended(number=0)


@on_virtual_time
async def test_a_block_of_another_segment_or_cut_short_is_refused():
    async with Lab() as lab:
        writer = lab.writer()
        block = writer.pack()
        for target in (
            Target(log_id="cd" * 16, segment_id=0, epoch=EPOCH, incarnation=writer.incarnation),
            Target(log_id=LOG, segment_id=1, epoch=EPOCH, incarnation=writer.incarnation),
        ):
            answer = (await send(lab.node, Append(target=target, name=NAME), block))[0]
            assert answer.code == "corrupt"
        for cut in (b"", block[:100], block[:-1], block + b"x"):
            assert (await writer.append(lab.node, cut))[0].code == "corrupt"
        assert lab.node.segments() == []


@pytest.mark.parametrize(
    ("log_id", "segment_id", "epoch", "name"),
    [
        ("AB" * 16, 0, 1, NAME),
        ("ab", 0, 1, NAME),
        ("zz" * 16, 0, 1, NAME),
        (LOG, -1, 1, NAME),
        (LOG, 1 << 62, 1, NAME),
        (LOG, 0, 1, "no/name"),
        (LOG, 0, 1, "n" * 201),
        (LOG, 0, 1, ""),
    ],
)
@on_virtual_time
async def test_segments_that_cannot_be_are_refused(log_id, segment_id, epoch, name):
    async with Lab() as lab:
        target = Target(
            log_id=log_id, segment_id=segment_id, epoch=epoch,
            incarnation=lab.node.identity.incarnation,
        )  # fmt: skip
        answer = await ask(lab.node, Fence(target=target, name=name, epoch=2, token="t"))
        assert isinstance(answer, Refused)
        assert answer.code in ("invalid_request", "not_found")
        assert lab.node.segments() == []
    for field in ({"epoch": -1}, {"token": "t" * 65}):
        async with Lab() as lab:
            values = {"target": lab.writer().target, "name": NAME, "epoch": 2, "token": "t"} | field
            assert (await ask(lab.node, Fence(**values))).code == "invalid_request"


@on_virtual_time
async def test_a_log_has_one_name():
    async with Lab() as lab:
        await lab.writer().write(lab.node)
        other = lab.writer(name="else", segment_id=1)
        assert (await other.append(lab.node, other.pack()))[0].code == "invalid_request"
        assert lab.node.held_logs() == [(LOG, NAME)]


@on_virtual_time
async def test_a_block_that_fits_no_journal_file_is_refused():
    async with Lab() as lab:
        writer = lab.writer()
        answer, _ = await writer.append(lab.node, writer.pack(600 << 10))
        assert answer.code == "invalid_request"
        assert lab.node.allocate(600 << 10) is None
        assert lab.node.welcome().max_payload_bytes < 600 << 10


@on_virtual_time
async def test_the_queue_is_bounded_in_bytes():
    async with Lab(queue_max_bytes=100_000) as lab:
        writer = lab.writer()
        futures = [writer.append(lab.node, writer.pack(60_000)) for _ in range(3)]
        answers = [(await future)[0] for future in futures]
        assert answers[0] == Appended(number=0)
        assert answers[1].code == "overloaded"
        assert answers[2].verdict is Verdict.GAP
        large = lab.writer(segment_id=1)
        assert (await large.append(lab.node, large.pack(300_000)))[0] == Appended(number=0), (
            "one block is taken whatever its size"
        )


# --- fences and repairs ---


@on_virtual_time
async def test_a_fence_is_answered_with_the_last_block_when_both_are_synced():
    async with Lab() as lab:
        writer = lab.writer()
        appends = [writer.append(lab.node, writer.pack()) for _ in range(3)]
        vote = asyncio.ensure_future(writer.fence(lab.node))
        await asyncio.sleep(0)
        late = writer.append(lab.node, writer.pack())
        assert verdict(late.result()[0]) is Verdict.FENCED, "from the moment it is queued"
        voted = await vote
        assert voted.tip is not None
        assert (voted.tip.number, voted.complete) == (2, True)
        assert voted.size_bytes == sum(map(len, writer.blocks[:3]))
        for append in appends:
            assert verdict((await append)[0]) is Verdict.FENCED, "queued blocks included"
        assert await writer.fence(lab.node, epoch=EPOCH + 9) == voted, "again, by somebody else"


@on_virtual_time
async def test_fencing_an_unseen_segment_stops_its_writer_also_after_a_crash():
    async with Lab() as lab:
        writer = lab.writer()
        voted = await writer.fence(lab.node)
        assert (voted.tip, voted.complete) == (None, True)
        await lab.restart(crash=True)
        answer, _ = await writer.append(lab.node, writer.pack())
        assert verdict(answer) is Verdict.FENCED
        copy = lab.node.segments()[0]
        assert copy["fence"] == {"epoch": EPOCH + 1, "token": "f" * 32, "reason": "test"}
        assert lab.node.held_logs() == [(LOG, NAME)]


@on_virtual_time
async def test_repair_brings_blocks_to_a_fenced_copy_and_the_writer_hears_nothing_of_it():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 2)
        for _ in range(3):
            writer.pack(70_000)
        assert verdict(await writer.repair(lab.node, 2, 4)) is Verdict.NOT_FENCED
        await writer.fence(lab.node)
        assert verdict(await writer.repair(lab.node, 3, 4)) is Verdict.GAP
        repair = asyncio.ensure_future(writer.repair(lab.node, 2, 4))
        await asyncio.sleep(0)
        again = asyncio.ensure_future(writer.fence(lab.node))
        assert await repair == Stored(number=2)
        voted = await again
        assert voted.tip is not None
        assert voted.tip.number == 2, "a vote waits for repairs that are queued"
        await writer.repaired(lab.node, 3, 4)
        await writer.repaired(lab.node, 3, 4)
        assert verdict(await writer.repair(lab.node, 4, 3)) is Verdict.MISMATCH, "above the end"
        assert verdict((await writer.append(lab.node, writer.blocks[3]))[0]) is Verdict.FENCED
        await lab.restart(crash=True)
        assert await writer.read_all(lab.node) == writer.blocks[:4]
        await writer.repaired(lab.node, 4, 4)


@on_virtual_time
async def test_a_known_end_bounds_repairs_and_outlives_restarts():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node, 2)
        writer.pack(), writer.pack()
        await writer.fence(lab.node)
        lab.node.set_end(LOG, 0, 2)
        lab.node.set_end(LOG, 0, 5)
        lab.node.set_end(LOG, 7, 5)
        await lab.restart()
        assert lab.node.segments()[0]["end"] == 2
        await writer.repaired(lab.node, 2, 9)
        assert verdict(await writer.repair(lab.node, 3, 9)) is Verdict.MISMATCH


# --- floors ---


@on_virtual_time
async def test_below_the_floor_everything_is_gone_for_ever():
    async with Lab() as lab:
        writers = [lab.writer(segment_id=segment) for segment in range(3)]
        for writer in writers:
            await writer.write(lab.node, 2)
        await lab.node.set_floor(LOG, 2)
        await lab.node.set_floor(LOG, 1)
        for _ in range(2):
            for writer in writers[:2]:
                for request in (
                    Append(target=writer.target, name=NAME),
                    Fence(target=writer.target, name=NAME, epoch=9, token="t"),
                    Repair(target=writer.target, name=NAME, end=5),
                    Read(target=writer.target, first=0, wait_ms=50),
                    Find(target=writer.target, timestamp_us=1),
                ):
                    block = writer.blocks[0] if isinstance(request, Append | Repair) else b""
                    assert verdict((await send(lab.node, request, block))[0]) is Verdict.GONE
            assert await writers[2].read_all(lab.node) == writers[2].blocks
            assert [s.segment_id for s in lab.node.held_segments(LOG)] == [2]
            await lab.restart(crash=True)


@on_virtual_time
async def test_a_floor_ends_what_is_under_way():
    async with Lab() as lab:
        writer = lab.writer()
        await writer.write(lab.node)
        reading = send(lab.node, Read(target=writer.target, first=5, max_bytes=1, wait_ms=10_000))
        append = writer.append(lab.node, writer.pack())
        await lab.node.set_floor(LOG, 1 << 62)
        assert verdict((await append)[0]) is Verdict.GONE
        assert verdict((await reading)[0]) is Verdict.GONE
        assert lab.node.unsealed().segments == 0
        assert lab.node.unsealed().size_bytes == 0
        assert lab.node.held_logs() == []


@on_virtual_time
async def test_files_in_which_nothing_lives_are_deleted_and_idle_blocks_move_on():
    async with Lab() as lab:
        idle, busy = lab.writer(log_id="cd" * 16, name="idle"), lab.writer()
        await idle.write(lab.node, 3, 20_000)
        for segment in range(12):
            busy = lab.writer(segment_id=segment)
            await busy.write(lab.node, 12, 70_000)
            await lab.node.set_floor(LOG, segment)
            await lab.runtime.sleep_ms(10)
        await lab.runtime.sleep_ms(3000)
        assert min(lab.disk.journal) > 3
        assert len(lab.disk.journal) <= 7
        assert await idle.read_all(lab.node) == idle.blocks
        await lab.restart(crash=True)
        assert await idle.read_all(lab.node) == idle.blocks
        assert await busy.read_all(lab.node) == busy.blocks
        status = lab.node.status()
        assert status["journal"]["live_bytes"] >= status["unsealed"]["bytes"] > 0


# --- the rest ---


class FakeKeeper:
    def __init__(self):
        self.told = []
        self.uploaded = []

    def tell(self, name):
        self.told.append(name)

    async def upload(self, name, log_id, segment_id, end):
        self.uploaded.append((name, log_id, segment_id, end))
        if segment_id == 9:
            raise Conflict("it is sealed already")

    async def get_object(self, storage, key, start, length):
        await asyncio.sleep(0)
        if key == "secret":
            raise InvalidRequest("another kind of key")
        return 10, b"0123456789"[start : None if length is None else start + length]


@on_virtual_time
async def test_the_keeper_is_told_and_asked():
    async with Lab() as lab:
        writer = lab.writer()
        end = End(block=1, seq=2, digest="0" * 32)
        upload = Upload(target=writer.target, name=NAME, end=end)
        assert await ask(lab.node, Tell(name=NAME)) == Done()
        assert (await ask(lab.node, upload)).code == "unavailable"
        keeper = FakeKeeper()
        lab.node.attach(keeper)
        await writer.write(lab.node, 2)
        assert keeper.told == [NAME], "once, when the copy appears"
        await writer.fence(lab.node)
        assert keeper.told == [NAME] * 2
        assert await ask(lab.node, Tell(name="other")) == Done()
        assert keeper.told[2:] == ["other"]
        assert await ask(lab.node, upload) == Done()
        assert keeper.uploaded == [(NAME, LOG, 0, end)]
        refused = await ask(
            lab.node, Upload(target=lab.writer(segment_id=9).target, name=NAME, end=end)
        )
        assert refused.code == "conflict"
        get = GetObject(storage="", key="k", start=2, length=3)
        assert await send(lab.node, get) == (Object(size=10), b"234")
        assert (await ask(lab.node, GetObject(storage="", key="secret"))).code == "invalid_request"


@on_virtual_time
async def test_status_and_listing():
    async with Lab() as lab:
        for log in ("ab", "cd"):
            for segment in range(3):
                writer = lab.writer(log_id=log * 16, name=f"log-{log}", segment_id=segment)
                await writer.write(lab.node, 2)
        assert await ask(lab.node, Ping()) == Done()
        status = await ask(lab.node, GetStatus())
        assert isinstance(status, Status)
        told = json.loads(status.text)
        assert told["unsealed"]["segments"] == 6
        assert told["sync"]["count"] > 0
        assert [log["log"] for log in told["largest_logs"]] == ["log-ab", "log-cd"]

        async def listed(**fields):
            answer = await ask(lab.node, ListSegments(**fields))
            return [(row["log"], row["segment_id"]) for row in json.loads(answer.text)]

        every = [(f"log-{log}", segment) for log in ("ab", "cd") for segment in range(3)]
        assert await listed() == every
        assert await listed(log_id="ab" * 16, segment_id=1) == every[1:]
        assert await listed(log_id="ab" * 16, segment_id=3, limit=2) == every[3:5]
        assert await listed(log_id="dd" * 16) == []
        assert (await ask(lab.node, ListSegments(limit=0))).code == "invalid_request"


@on_virtual_time
async def test_a_drained_node_takes_no_new_segments():
    async with Lab() as lab:
        here, fenced = lab.writer(), lab.writer(segment_id=1)
        await here.write(lab.node)
        await fenced.fence(lab.node)
        fenced.pack()
        lab.node.refuse_new(refuse=True)
        await here.write(lab.node)
        fresh = lab.writer(segment_id=2)
        assert (await fresh.append(lab.node, fresh.pack()))[0].code == "unavailable"
        assert (await fenced.repair(lab.node, 0, 0)).code == "unavailable"
        await fresh.fence(lab.node)
        lab.node.refuse_new(refuse=False)
        await fenced.repaired(lab.node, 0, 0)
