"""One whole life of a log, the same over every store: what a user may rely on wherever the log lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

import woodpecker as wp
from woodpecker.core.ids import State

Connect = Callable[..., wp.Client]

PATIENCE_S = 90
SMALL = 64 << 10  # segments as small as they may be


def payload(seq: int) -> bytes:
    """Of every size from nothing to more than a segment's cut."""
    return b"%d " % seq * (seq * 37 % 900)


async def live(connect: Connect, mode: str) -> None:
    """Create, write, take over, follow, seal, collect, trim, verify, end, delete.

    ``connect`` opens one more client of the same empty store each time, as another process would.
    """
    async with asyncio.timeout(PATIENCE_S), connect() as client, connect() as other:
        log = await client.create_log("orders", mode=mode, segment_max_bytes=SMALL)
        elsewhere = await other.open_log("orders")
        follower = asyncio.ensure_future(_follow(elsewhere))
        first = await log.open_writer()
        for seq in range(60):
            assert await first.append(payload(seq)) == seq
        second = await elsewhere.open_writer()  # takes over while the first is alive
        assert await second.append_many([payload(seq) for seq in range(60, 90)]) == range(60, 90)
        with pytest.raises(wp.Fenced):
            await first.append(b"too late")
        await first.close()
        await second.append(payload(90), headers=[("id", "7"), ("id", "8")], timestamp_us=5)
        await second.close()
        await _care(connect, client, log)
        assert await log.end() == 91
        seen = await follower
        assert [(e.seq, e.payload) for e in seen] == [(seq, payload(seq)) for seq in range(91)]
        assert seen[-1].headers == ((b"id", b"7"), (b"id", b"8"))
        with pytest.raises(wp.LogEnded):
            await log.open_writer()
        await client.delete_log("orders")
        assert await other.list_logs() == []
        with pytest.raises(wp.NotFound):
            await elsewhere.tail()
        await client.create_log("orders")  # the name is free again
        assert await (await other.open_log("orders")).tail() == 0


async def _follow(log: wp.Log) -> list[wp.Entry]:
    return [entry async for entry in log.read(follow=True)]


async def _care(connect: Connect, client: wp.Client, log: wp.Log) -> None:
    """Everything closed gets sealed; a cursor, a trim, ranges, and every byte verified."""
    cursor = await log.cursor("billing")
    await cursor.commit(42)
    await client.run_background()
    described = await log.describe()
    assert {segment.state for segment in described.segments} == {State.SEALED}
    assert (described.tail, described.unsealed_count) == (91, 0)
    assert [(lag.name, lag.lag) for lag in described.cursors] == [("billing", 49)]
    report = await log.verify()
    assert (report.entries, report.next_seq) == (91, 91)
    async with connect(read_only=True) as looker:
        again = await looker.open_log("orders")
        found = [e.seq async for e in again.read(await again.cursor("billing"), end=50)]
        assert found == list(range(42, 50))
        assert [e.seq async for e in again.read(-3)] == [88, 89, 90]
        assert [e.seq async for e in again.read(datetime(2000, 1, 1, tzinfo=UTC), end=2)] == [0, 1]
        with pytest.raises(wp.InvalidRequest, match="read_only"):
            await again.open_writer()
    await log.trim(before=50)
    await client.run_background()
    with pytest.raises(wp.OutOfRange) as caught:
        [e async for e in log.read(10)]
    assert caught.value.earliest == 50
    assert (await log.verify()).next_seq == 91
