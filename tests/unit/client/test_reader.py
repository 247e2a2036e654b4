"""Readers through everything that happens to a log while they read; each trap is a test by name."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime

import pytest
from tests.unit.client.reading_kit import LOG_ID, NAME, FastRuntime, Follower, LogKit

from woodpecker.client.entry import Entry
from woodpecker.client.reader import seq_at, tail
from woodpecker.client.reader_start import resolve_range
from woodpecker.core.batcher import BatchMark
from woodpecker.errors import (
    Closed,
    Corrupt,
    InvalidRequest,
    NotFound,
    OutOfRange,
    Unavailable,
)


@pytest.fixture
async def kit():
    kit = await LogKit.create()
    yield kit
    await asyncio.sleep(0.01)
    assert kit.runtime.running() == [], "a reader left tasks behind"
    assert kit.open_sources == 0, "a reader left a source open"


def numbered(first: int, count: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, first + count)]


async def three_segments(kit: LogKit) -> None:
    """Seqs 0..29: one SEALED segment of 10, one CLOSED, one OPEN; blocks of 5."""
    await kit.open()
    for first in range(0, 30, 5):
        await kit.show(numbered(first, 5))
        if first in (5, 15):
            await kit.close(roll=True)
    await kit.seal()


# --- ranges ---


async def test_reads_everything_up_to_the_tail(kit: LogKit) -> None:
    await three_segments(kit)
    assert await kit.payloads("earliest") == numbered(0, 30)


@pytest.mark.parametrize("end", [*range(31), 40, None])
async def test_any_range_is_the_exact_slice(kit: LogKit, end: int | None) -> None:
    await three_segments(kit)
    for start in range(31):
        assert await kit.payloads(start, end) == kit.entries[start:end], start


async def test_batches_know_their_seqs(kit: LogKit) -> None:
    await three_segments(kit)
    found = [(b.first_seq, b.end_seq, len(b)) async for b in kit.batches(3, 12)]
    assert found == [(3, 5, 2), (5, 10, 5), (10, 12, 2)]
    seqs = [entry.seq async for entry in kit.read(3, 12)]
    assert seqs == list(range(3, 12))


async def test_start_before_the_tail_and_latest(kit: LogKit) -> None:
    await three_segments(kit)
    assert await kit.payloads(-3) == numbered(27, 3)
    assert await kit.payloads(-1000) == numbered(0, 30)
    assert await kit.payloads("latest") == []


async def test_start_at_the_tail_reads_nothing_and_beyond_it_is_out_of_range(kit: LogKit) -> None:
    await three_segments(kit)
    assert await kit.payloads(30) == []
    with pytest.raises(OutOfRange) as caught:
        await kit.payloads(31)
    assert caught.value.tail == 30


async def test_an_empty_log_reads_as_nothing(kit: LogKit) -> None:
    assert await kit.payloads() == []
    assert await tail(kit.env, NAME, LOG_ID) == 0
    await kit.open()
    assert await kit.payloads("earliest") == []


async def test_below_the_trim_point_is_out_of_range_and_earliest_begins_there(kit: LogKit) -> None:
    await three_segments(kit)
    await kit.trim(7)
    with pytest.raises(OutOfRange) as caught:
        await kit.payloads(6)
    assert caught.value.earliest == 7
    assert await kit.payloads("earliest") == numbered(7, 23)
    assert await kit.payloads(-100) == numbered(7, 23)


async def test_a_wholly_trimmed_log_goes_on_at_its_tail(kit: LogKit) -> None:
    await three_segments(kit)
    await kit.close()
    await kit.seal()
    await kit.seal()
    await kit.trim(30)
    await kit.drop_trimmed()
    assert await tail(kit.env, NAME, LOG_ID) == 30
    assert await kit.payloads("earliest") == []
    await kit.open()
    await kit.show([b"next"])
    assert await kit.payloads("earliest") == [b"next"]


class At:
    def __init__(self, position: object) -> None:
        self.position = position


async def test_a_cursor_is_a_start(kit: LogKit) -> None:
    await three_segments(kit)
    assert await kit.payloads(At(28)) == numbered(28, 2)


@pytest.mark.parametrize(
    "start",
    [True, 1.0, "5", "tail", None, b"0", 1 << 63, At(-1), At(True), datetime(2026, 1, 1)],  # noqa: DTZ001
)
async def test_garbage_as_start_is_refused_at_the_call(kit: LogKit, start: object) -> None:
    with pytest.raises(InvalidRequest):
        kit.read(start)


@pytest.mark.parametrize("end", [True, 1.0, "latest", -1, 1 << 63, datetime(2026, 1, 1)])  # noqa: DTZ001
async def test_garbage_as_end_is_refused_at_the_call(kit: LogKit, end: object) -> None:
    with pytest.raises(InvalidRequest):
        kit.read(0, end)


# --- times ---


def moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, tz=UTC)


async def timed(kit: LogKit) -> list[int]:
    """Three segments (SEALED in a page, SEALED, OPEN); returns the time of each entry."""
    times = [10, 20, 20, 20, 30, 30, 40, 50, 50, 60, 70, 70]
    await kit.open()
    for first in range(0, 12, 2):
        await kit.show(numbered(first, 2), timestamps=times[first : first + 2])
        if first in (2, 6):
            await kit.show([])
            await kit.close(roll=True)
            await kit.seal()
    await kit.spill(1)
    return times


async def test_start_and_end_by_time_at_every_border(kit: LogKit) -> None:
    times = await timed(kit)
    for us in range(75):
        first = next((n for n, t in enumerate(times) if t >= us), 12)
        assert await kit.payloads(moment(us)) == kit.entries[first:], us
        assert await kit.payloads(0, moment(us)) == kit.entries[:first], us
        assert await seq_at(kit.env, NAME, LOG_ID, us) == first


async def test_a_time_before_the_trim_point_begins_at_it(kit: LogKit) -> None:
    await timed(kit)
    await kit.trim(3)
    assert await kit.payloads(moment(0)) == kit.entries[3:]


async def test_end_by_time_ends_a_follower_when_an_entry_of_that_time_comes(kit: LogKit) -> None:
    await kit.open()
    follower = Follower(kit, 0, moment(50))
    await kit.show([b"a", b"b"], timestamps=[10, 49])
    await follower.has(2)
    await kit.show([b"c", b"d"], timestamps=[49, 50])
    assert await follower.ends() == [b"a", b"b", b"c"]


# --- following ---


async def test_a_follower_sees_each_block_and_survives_roll_and_seal(kit: LogKit) -> None:
    await three_segments(kit)
    follower = Follower(kit)
    await follower.has(30)
    await kit.show([b"x"])
    await follower.has(31)
    await kit.close(roll=True)
    await kit.show([b"y"])
    await follower.has(32)
    await kit.seal()
    await kit.seal()
    await kit.close()
    await kit.seal()
    await kit.open()
    await kit.show([b"z"])
    assert await follower.has(33) == kit.entries
    assert follower.seqs == list(range(33))
    await follower.cancel()


async def test_following_from_beyond_the_tail_waits_for_it(kit: LogKit) -> None:
    await three_segments(kit)
    follower = Follower(kit, 33)
    await follower.idle()
    await kit.show(numbered(30, 2))
    await kit.close(roll=True)
    await kit.show(numbered(32, 3))
    assert await follower.has(2) == numbered(33, 2)
    await follower.cancel()


async def test_follow_up_to_an_end_waits_for_it_and_ends(kit: LogKit) -> None:
    await kit.open()
    follower = Follower(kit, 0, 3)
    await kit.show(numbered(0, 2))
    await follower.has(2)
    await kit.show(numbered(2, 2))
    assert await follower.ends() == numbered(0, 3)


async def test_follow_with_end_tail_ends_there(kit: LogKit) -> None:
    await three_segments(kit)
    assert await Follower(kit, 25, "tail").ends() == numbered(25, 5)


async def test_follower_of_a_log_without_any_segment_waits_for_the_first(kit: LogKit) -> None:
    follower = Follower(kit)
    await asyncio.sleep(0.01)
    await kit.open()
    await kit.show([b"a"])
    assert await follower.has(1) == [b"a"]
    await follower.cancel()


async def test_an_ended_log_ends_its_followers(kit: LogKit) -> None:
    await three_segments(kit)
    follower = Follower(kit)
    await follower.has(30)
    await kit.show([])
    await kit.close(end_log=True)
    assert await follower.ends() == numbered(0, 30)
    assert await Follower(kit, 30).ends() == []
    await kit.seal()
    await kit.seal()
    assert await Follower(kit, 4).ends() == numbered(4, 26)


async def test_waiting_beyond_the_end_of_an_ended_log_is_out_of_range(kit: LogKit) -> None:
    await three_segments(kit)
    follower = Follower(kit, 31)
    await kit.close(end_log=True)
    with pytest.raises(OutOfRange) as caught:
        await follower.ends()
    assert caught.value.tail == 30


async def test_a_reader_without_follow_does_not_see_what_comes_after_its_beginning(
    kit: LogKit,
) -> None:
    await three_segments(kit)
    seen = []
    async for entry in kit.read(0):
        seen.append(entry.payload)
        if len(seen) == 3:
            await kit.show([b"late"])
            await kit.close(roll=True)
            await kit.show([b"later"])
    assert seen == numbered(0, 30)


# --- traps ---


async def test_an_open_segment_sealed_and_dropped_under_a_follower(kit: LogKit) -> None:
    """Blocks gone: the manifest says where they are now; nothing twice, nothing left out."""
    await kit.open()
    await kit.show(numbered(0, 5))
    follower = Follower(kit)
    await follower.has(5)
    part = kit.parts[0]
    part.is_away = True  # the follower cannot read what comes now ...
    await kit.show(numbered(5, 5))
    await kit.close(roll=True)
    await kit.seal()  # ... until it lies elsewhere
    await kit.show(numbered(10, 1))
    assert await follower.has(11) == numbered(0, 11)
    await follower.cancel()


async def test_blocks_dropped_in_the_middle_of_reading_them(kit: LogKit) -> None:
    await kit.open()
    for first in range(0, 50, 5):
        await kit.show(numbered(first, 5))
    await kit.close()
    seen = []
    async for entry in kit.read(0):
        seen.append(entry.payload)
        if entry.seq == 12:
            await kit.seal()
    assert seen == numbered(0, 50)


async def test_a_segment_taken_over_above_what_was_seen(kit: LogKit) -> None:
    await kit.open()
    follower = Follower(kit)
    await kit.show(numbered(0, 3))
    await follower.has(3)
    await kit.take_over()
    await kit.show(numbered(3, 2))  # acknowledged by the old writer, found by the recovery
    await kit.close()
    await kit.open()
    await kit.show(numbered(5, 2))
    assert await follower.has(7) == numbered(0, 7)
    await follower.cancel()


async def test_a_take_over_that_stops_half_way_is_waited_for(kit: LogKit) -> None:
    """Blocks away, still OPEN: the manifest is polled, no key is waited for."""
    await kit.open()
    await kit.show(numbered(0, 3))
    follower = Follower(kit)
    await follower.has(3)
    kit.parts[0].is_gone = True
    kit.parts[0].wake()
    await asyncio.sleep(0.05)
    assert not follower.task.done()
    await kit.take_over()
    kit.parts[0].is_gone = False
    await kit.close(roll=True)
    await kit.show(numbered(3, 1))
    assert await follower.has(4) == numbered(0, 4)
    await follower.cancel()


async def test_a_take_over_nobody_finishes_ends_a_plain_reader_as_unavailable(
    kit: LogKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kit.open()
    await kit.show(numbered(0, 3))

    async def resolve_then_lose(*args, **kwargs):
        found = await resolve_range(*args, **kwargs)
        kit.parts[0].is_gone = True  # the tail is known, the blocks go before they are read
        return found

    monkeypatch.setattr("woodpecker.client.reader_walk.resolve_range", resolve_then_lose)
    reader = kit.batches(0)
    with pytest.raises(Unavailable, match="open a writer to recover"):
        await anext(reader)


async def test_trimmed_under_a_reader_is_out_of_range_never_a_silent_skip(kit: LogKit) -> None:
    await three_segments(kit)
    await kit.seal()
    reader = kit.read(0)
    assert (await anext(reader)).seq == 0
    await kit.trim(20)
    await kit.drop_trimmed()
    seen = [0]

    async def rest() -> None:
        async for entry in reader:
            seen.append(entry.seq)  # noqa: PERF401  what was seen before the error counts

    with pytest.raises(OutOfRange) as caught:
        await rest()
    assert caught.value.earliest == 20
    assert seen == list(range(len(seen))) and len(seen) <= 20


async def test_trimming_below_a_follower_does_not_concern_it(kit: LogKit) -> None:
    await three_segments(kit)
    await kit.seal()
    follower = Follower(kit)
    await follower.has(30)
    await kit.trim(20)
    await kit.drop_trimmed()
    await kit.show([b"x"])
    await kit.close(roll=True)
    await kit.show([b"y"])
    assert (await follower.has(32))[30:] == [b"x", b"y"]
    await follower.cancel()


async def test_segments_without_entries_trimmed_between_place_and_next_segment(kit: LogKit) -> None:
    """The digest of the gone segments is the anchor's: the chain is picked up there."""
    await kit.open()
    await kit.show(numbered(0, 2))
    follower = Follower(kit)
    await follower.has(2)
    kit.metadata.is_away = True
    kit.env.hub.moved(LOG_ID)
    await asyncio.sleep(0.01)  # the follower is deaf now
    kit.metadata.is_away = False
    kit.parts[0].is_away = True
    await kit.close(roll=True)
    await kit.show([])
    await kit.close(roll=True)
    await kit.seal()
    await kit.seal()
    await kit.trim(2)
    await kit.drop_trimmed()
    await kit.show([b"x"])
    assert await follower.has(3) == [b"0", b"1", b"x"]
    await follower.cancel()


async def test_equal_base_seqs_the_last_segment_owns_the_seq(kit: LogKit) -> None:
    await kit.open()
    await kit.show(numbered(0, 2))
    await kit.close(roll=True)
    for _ in range(3):
        await kit.show([])
        await kit.show([])
        await kit.close(roll=True)
    await kit.show([])
    await kit.show(numbered(2, 2))
    for sealed in range(5):
        assert await kit.payloads(0) == numbered(0, 4)
        assert await kit.payloads(2) == numbered(2, 2)
        if sealed < 4:
            await kit.seal()


async def test_control_blocks_before_a_followers_place_in_the_sealed_form(kit: LogKit) -> None:
    """A follower that stopped behind a control block finds it again in the sealed object."""
    await kit.open()
    await kit.show([])
    await kit.show(numbered(0, 2))
    await kit.show([])
    follower = Follower(kit)
    await follower.has(2)
    await follower.idle()
    kit.parts[0].is_away = True
    await kit.show([])
    await kit.show(numbered(2, 2))
    await kit.close(roll=True)
    await kit.seal()
    assert await follower.has(4) == numbered(0, 4)
    await follower.cancel()


async def test_control_blocks_at_the_end_of_a_segment_behind_a_followers_place(
    kit: LogKit,
) -> None:
    await kit.open()
    await kit.show(numbered(0, 2))
    follower = Follower(kit)
    await follower.has(2)
    await follower.idle()
    kit.parts[0].is_away = True
    await kit.show([])
    await kit.close(roll=True)
    await kit.seal()
    await kit.show(numbered(2, 2))
    assert await follower.has(4) == numbered(0, 4)
    await follower.cancel()


async def test_a_source_that_begins_at_the_block_holding_the_seq(kit: LogKit) -> None:
    """It passes over a control block at our place: one step back the chain is found again."""
    await kit.open()
    await kit.show(numbered(0, 2))
    follower = Follower(kit)
    await follower.has(2)
    await follower.idle()
    kit.parts[0].skips_controls = True
    await kit.show([])
    await kit.show([])
    await kit.show(numbered(2, 2))
    assert await follower.has(4) == numbered(0, 4)
    await follower.cancel()


async def test_blocks_that_come_and_go_are_no_loss_while_reading_moves_on(kit: LogKit) -> None:
    await kit.open()
    for first in range(0, 50, 2):
        await kit.show(numbered(first, 2))
    await kit.close()
    reader = kit.read(0)
    await anext(reader)
    kit.parts[0].is_flaky = True
    assert await _rest(reader) == list(range(1, 50))


async def test_a_segment_dropped_empty_under_a_follower(kit: LogKit) -> None:
    await kit.open()
    await kit.show([b"a"])
    await kit.close(roll=True)
    follower = Follower(kit)
    await follower.has(1)
    await follower.idle()
    await kit.take_over()
    await kit.close()  # it has no block
    assert len((await kit.manifest()).segments) == 1
    await kit.open()
    await kit.show([b"b"])
    assert await follower.has(2) == [b"a", b"b"]
    await follower.cancel()


async def test_entries_that_were_shown_and_vanish_are_corrupt_never_passed_over(
    kit: LogKit,
) -> None:
    await kit.open()
    await kit.show(numbered(0, 2))
    await kit.show(numbered(2, 2))
    follower = Follower(kit)
    await follower.has(4)
    await kit.close(upto=1)
    with pytest.raises(Corrupt, match="entries up to 4"):
        await follower.ends()


async def test_another_history_behind_the_same_seqs_is_corrupt(kit: LogKit) -> None:
    await kit.open()
    await kit.show(numbered(0, 2))
    follower = Follower(kit)
    await follower.has(2)
    await follower.idle()
    kit.parts[0].blocks.clear()
    await kit.show([b"forged", b"forged"])
    await kit.show([b"after"])
    with pytest.raises(Corrupt, match="does not continue"):
        await follower.ends()


async def test_deleted_under_a_follower_and_created_anew(kit: LogKit) -> None:
    await three_segments(kit)
    follower = Follower(kit)
    await follower.has(30)
    await kit.delete()
    with pytest.raises(NotFound):
        await follower.ends()
    with pytest.raises(NotFound):
        await kit.payloads()


async def test_a_log_moves_to_another_storage_under_a_follower(kit: LogKit) -> None:
    from woodpecker.core.commands import AlterLog

    await three_segments(kit)
    follower = Follower(kit)
    await follower.has(30)
    manifest = await kit.manifest()
    await kit.change(
        AlterLog(log_id=LOG_ID, options=manifest.options, attributes={}, storage="elsewhere")
    )
    await kit.close(roll=True)
    await kit.show([b"x"])
    await kit.close(roll=True)
    for _ in range(3):
        await kit.seal()
    await kit.show([b"y"])
    await follower.has(32)
    await follower.cancel()
    assert set(kit.stores) == {"", "elsewhere"}
    assert await kit.payloads(0) == kit.entries


async def test_metadata_away_a_follower_bears_it_and_warns(kit: LogKit, caplog) -> None:
    await kit.open()
    follower = Follower(kit)
    await kit.show([b"a"])
    await follower.has(1)
    kit.metadata.is_away = True
    kit.env.hub.moved(LOG_ID)
    async with asyncio.timeout(10):
        while "still trying" not in caplog.text:
            await asyncio.sleep(0.001)
    kit.metadata.is_away = False
    await kit.show([b"b"])
    assert await follower.has(2) == [b"a", b"b"]
    await follower.cancel()


async def test_metadata_away_a_plain_reader_gives_up_after_a_minute(kit: LogKit) -> None:
    await three_segments(kit)
    kit.metadata.is_away = True
    start_ms = kit.runtime.monotonic_ms()
    with pytest.raises(Unavailable):
        await kit.payloads()
    assert kit.runtime.monotonic_ms() - start_ms >= 60_000


async def test_blocks_away_for_a_while_are_borne(kit: LogKit) -> None:
    await three_segments(kit)
    reader = kit.read(10)
    assert (await anext(reader)).seq == 10
    kit.parts[2].is_away = True
    task = asyncio.get_running_loop().create_task(_rest(reader))
    await asyncio.sleep(0.01)
    assert not task.done()
    kit.parts[2].is_away = False
    assert await task == list(range(11, 30))


async def _rest(reader) -> list[int]:
    return [entry.seq async for entry in reader]


async def test_a_sealed_object_that_is_gone_for_good_is_corrupt(kit: LogKit) -> None:
    await three_segments(kit)
    manifest = await kit.manifest()
    sealed = manifest.segments[0].sealed
    assert sealed is not None
    await kit.objects(manifest, manifest.segments[0]).delete([sealed.key])
    with pytest.raises(Corrupt, match="metadata still names it"):
        await kit.payloads()


async def test_an_idle_follower_reads_the_manifest_ever_more_rarely(kit: LogKit) -> None:
    await kit.open()
    await kit.show([b"a"])
    kit.runtime.speed = 100
    follower = Follower(kit)
    await follower.has(1)
    gets = kit.metadata.gets
    start_ms = kit.runtime.monotonic_ms()
    while kit.runtime.monotonic_ms() - start_ms < 30_000:
        await asyncio.sleep(0.01)
    assert kit.metadata.gets - gets <= 12
    await follower.cancel()


async def test_a_roll_in_this_process_is_seen_at_once_not_at_the_next_poll() -> None:
    kit = await LogKit.create(FastRuntime(speed=0.001))  # a poll would take an hour
    kit.metadata.wait_change = lambda *_: asyncio.sleep(3600)  # type: ignore[method-assign]
    await kit.open()
    follower = Follower(kit)
    await kit.show([b"a"])
    await follower.has(1)
    await kit.close(roll=True)
    await kit.show([b"b"])
    assert await follower.has(2) == [b"a", b"b"]
    await follower.cancel()


async def test_a_roll_in_another_process_is_seen_through_the_metadata_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = await LogKit.create(FastRuntime(speed=0.001))
    await kit.open()
    follower = Follower(kit)
    await kit.show([b"a"])
    await follower.has(1)
    monkeypatch.setattr(kit.env.hub, "moved", lambda _: None)
    await kit.close(roll=True)
    await kit.show([b"b"])
    assert await follower.has(2) == [b"a", b"b"]
    await follower.cancel()


# --- handles ---


async def test_leaving_the_loop_releases_everything(kit: LogKit) -> None:
    await three_segments(kit)
    async for _ in kit.batches(0, follow=True):
        break
    async for entry in kit.read(12, follow=True):
        if entry.seq == 22:
            break
    gc.collect()
    await asyncio.sleep(0.01)
    assert kit.runtime.running() == []
    assert kit.open_sources == 0


async def test_aclose_ends_the_iteration_for_good(kit: LogKit) -> None:
    await three_segments(kit)
    reader = kit.read(0)
    await anext(reader)
    await reader.aclose()
    await reader.aclose()
    with pytest.raises(Closed):
        await anext(reader)


async def test_two_tasks_cannot_share_one_reader(kit: LogKit) -> None:
    await kit.open()
    reader = kit.read(0, follow=True)
    first = asyncio.get_running_loop().create_task(anext(reader))
    await asyncio.sleep(0.01)
    with pytest.raises(InvalidRequest, match="a reader of its own"):
        await anext(reader)
    with pytest.raises(InvalidRequest, match="cancel that task"):
        await reader.aclose()
    await kit.show([b"a"])
    assert (await first).payload == b"a"
    await reader.aclose()


async def test_cancelled_at_any_step_leaves_nothing_behind(kit: LogKit) -> None:
    await three_segments(kit)
    for steps in range(60):
        task = asyncio.get_running_loop().create_task(_rest(kit.read(0, follow=True)))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
    await asyncio.sleep(0.01)
    assert kit.runtime.running() == []
    assert kit.open_sources == 0


async def test_headers_times_and_caller_columns(kit: LogKit) -> None:
    await kit.open()
    entries = [
        Entry(b"a"),
        Entry(b"b", headers=[("k", "v"), (b"k", b"")]),
        Entry(b"c"),
        Entry(b"d"),
    ]
    marks = [BatchMark(first=0, count=3, column=b"one"), BatchMark(first=3, count=1, column=b"two")]
    await kit.show(entries, marks=marks, timestamps=[5, 6, 6, 9])
    await kit.show([b"e"])
    batches = [batch async for batch in kit.batches(1)]
    assert [len(batch) for batch in batches] == [3, 1]
    first = batches[0]
    assert first.headers == [((b"k", b"v"), (b"k", b"")), (), ()]
    assert list(first.timestamps_us) == [6, 6, 9]
    assert [(c.first_seq, c.count, c.data) for c in first.columns] == [
        (0, 3, b"one"),
        (3, 1, b"two"),
    ]
    assert first.payloads == [b"b", b"c", b"d"] == [bytes(view) for view in first.views]
    assert first.payload_bytes == 3
    entry = next(iter(first))
    assert isinstance(entry, Entry)
    assert tuple(entry) == (b"b", ((b"k", b"v"), (b"k", b"")), 6, 1)
    assert (entry.payload, entry.timestamp_us, entry.seq) == (b"b", 6, 1)
    assert batches[1].headers == [()] and list(batches[1].timestamps_us) == [9]
    cut = await anext(kit.batches(0, 3))
    assert [c.data for c in cut.columns] == [b"one"]
    assert [e.payload for e in cut] == [b"a", b"b", b"c"]
