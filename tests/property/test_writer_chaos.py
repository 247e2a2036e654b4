"""Writers, take-overs and faults by seeded chance: whatever was told to the user is what the log holds.

Each seed is one run on virtual time. Checked: what was acknowledged is there once, at its seq, with its
bytes; what was NotWritten is nowhere; what was unknown is as ``resolve`` says in the end; no wait hangs;
no task is left; the counters are back at zero; the invariants of the manifest hold; the chain verifies.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from tests.unit.client.writing_kit import World, a_world, idle

from woodpecker.client.writer import LogWriter
from woodpecker.errors import Conflict, Fenced, NotWritten, OutcomeUnknown, WoodpeckerError
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

SEEDS = [*range(60), 2060]  # a seed that found something stays
PATIENCE_S = 3_000


class Story:
    """What the users of all writers were told."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.written: dict[int, bytes] = {}
        self.not_written: set[bytes] = set()
        self.unknown: dict[bytes, LogWriter] = {}
        self.count = 0
        self.told: Counter[str] = Counter()
        self.writers: list[LogWriter] = []

    def payload(self) -> bytes:
        self.count += 1
        return b"%d." % self.count + bytes(self.rng.choice([0, 10, 3_000, 200_000]))

    async def append(self, writer: LogWriter) -> bool:
        """One call of some sort; False: the writer has ended."""
        batch = [self.payload() for _ in range(self.rng.choice([1, 1, 1, 2, 5]))]
        try:
            if len(batch) == 1:
                first = await writer.append(batch[0], headers=self.rng.choice([None, {"a": b"b"}]))
            else:
                first = (await writer.append_many(batch)).start
        except Fenced as error:
            self.told[f"fenced {error.outcome}"] += 1
            self.fail(writer, batch, is_unknown=error.outcome == "unknown")
            return False
        except NotWritten:
            self.told["not written"] += 1
            self.fail(writer, batch, is_unknown=False)
            return writer._pump.error is None
        except OutcomeUnknown:
            self.told["unknown"] += 1
            self.fail(writer, batch, is_unknown=True)
            return False
        except asyncio.CancelledError:
            for payload in batch:
                self.unknown[payload] = writer
            raise
        self.told["written"] += 1
        for seq, payload in enumerate(batch, first):
            assert seq not in self.written
            self.written[seq] = payload
        return True

    def fail(self, writer: LogWriter, batch: list[bytes], *, is_unknown: bool) -> None:
        for payload in batch:
            if is_unknown:
                self.unknown[payload] = writer
            else:
                self.not_written.add(payload)

    async def user(self, writer: LogWriter) -> None:
        """One of several tasks that share a writer; now and then one gives up waiting."""
        for _ in range(self.rng.randrange(3, 15)):
            task = asyncio.ensure_future(self.append(writer))
            if self.rng.random() < 0.1:
                await asyncio.sleep(self.rng.random() * 0.05)
                task.cancel()
            answers = await asyncio.gather(task, return_exceptions=True)
            if answers[0] is False:
                return
            if isinstance(answers[0], Exception):
                raise answers[0]
            await asyncio.sleep(self.rng.random() * 0.2)

    async def life(self, number: int, start_s: float) -> None:
        """A process: opens the log, is used, and closes or just stops."""
        await asyncio.sleep(start_s)
        try:
            writer = await self.world.writer(number)
        except WoodpeckerError:
            self.told["not opened"] += 1
            return
        self.writers.append(writer)
        await asyncio.gather(*(self.user(writer) for _ in range(8)))
        if self.rng.random() < 0.3:
            await asyncio.gather(writer.flush(), return_exceptions=True)
        if self.rng.random() < 0.6:
            await asyncio.gather(writer.close(), return_exceptions=True)

    async def weather(self, number: int) -> None:
        """Outages of one process: its metadata store, its object store, its disk."""
        site = self.world.site(number)
        while True:
            await asyncio.sleep(self.rng.random() * 4)
            what = self.rng.randrange(3)
            for is_bad in (True, False):
                if what == 0:
                    site.on_metadata.is_away = is_bad
                elif what == 1:
                    site.on_objects.is_away = is_bad
                else:
                    site.disk.is_full = is_bad
                await asyncio.sleep(self.rng.random() * 3)

    async def play(self) -> None:
        """Four processes, one after the other or together, in bad weather."""
        lives = (self.life(number, self.rng.random() * 3 * number) for number in range(4))
        storms = [asyncio.ensure_future(self.weather(number)) for number in range(4)]
        await asyncio.wait_for(asyncio.gather(*lives), PATIENCE_S)
        for storm in storms:
            storm.cancel()
        await asyncio.gather(*storms, return_exceptions=True)
        for number in range(4):
            self.world.site(number).disk.is_full = False

    async def check(self) -> None:
        """Heal, let a last writer close the log, and compare."""
        self.world.calm()
        await asyncio.sleep(30)
        async with await self.world.writer(77) as last:
            self.written[await last.append(b"last.")] = b"last."
        for writer in self.writers:
            await asyncio.wait_for(
                asyncio.gather(writer.close(), return_exceptions=True), PATIENCE_S
            )
            idle(writer)
        entries = await self.world.entries()
        assert len(set(entries)) == len(entries), "something is there twice"
        for seq, payload in self.written.items():
            assert entries[seq] == payload
        assert not self.not_written & set(entries)
        known = set(self.written.values()) | set(self.unknown)
        assert set(entries) <= known, "there is more than anybody wrote"
        await self.check_resolved(entries)
        report = await self.world.log(97).verify()
        assert report is not None

    async def check_resolved(self, entries: list[bytes]) -> None:
        kept = {segment.id for segment in (await self.world.manifest()).segments}
        for writer in self.writers:
            places = {doubt.first_seq: doubt.segment_id for doubt in writer._pump.doubts}
            answers = await writer.resolve()
            segment = -1
            for seq, answer in answers.items():
                segment = places.get(seq, segment)
                found = entries[seq] if seq < len(entries) else None
                is_mine = found is not None and self.unknown.get(found) is writer
                if isinstance(answer, OutcomeUnknown):  # dropped, for it held no block at all
                    assert segment not in kept and not is_mine
                elif isinstance(answer, NotWritten):
                    assert not is_mine
                else:
                    assert answer == seq and is_mine


@pytest.mark.parametrize("seed", SEEDS)
@on_virtual_time
async def test_what_was_told_is_what_the_log_holds(seed: int):
    rng = random.Random(seed)
    options = {
        "segment_max_blocks": rng.choice([1, 2, 5, 1000]),
        "append_timeout_ms": rng.choice([1_000, 20_000]),
        "queue_max_bytes": rng.choice([1 << 16, 64 << 20]),
        "linger_ms": rng.choice([0, 0, 30]),
    }
    async with a_world(seed, **options) as world:
        story = Story(world, rng)
        rate = rng.choice([0.0, 0.05, 0.2, 0.4])
        for number in range(4):
            site = world.site(number)
            site.disk.cut_bytes = rng.choice([2_000, 20_000])
            for faults in (site.on_objects, site.on_metadata):
                faults.rate = rate * rng.random()
                faults.max_delay_ms = rng.choice([0, 10, 500])
        await story.play()
        await story.check()


def test_the_seeds_reach_every_outcome():
    """Together the runs above tell every sort of answer; else they check less than they say."""
    told: Counter[str] = Counter()
    injected: Counter[Fault] = Counter()

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        async with a_world(seed, append_timeout_ms=1_000, segment_max_blocks=3) as world:
            story = Story(world, rng)
            for number in range(4):
                site = world.site(number)
                site.disk.cut_bytes = 2_000
                site.on_objects.rate, site.on_metadata.rate = 0.3, 0.1
                site.on_objects.max_delay_ms = 300
            await story.play()
            await story.check()
            told.update(story.told)
            for number in range(4):
                injected.update(world.site(number).on_objects.injected)
                injected.update(world.site(number).on_metadata.injected)

    for seed in range(500, 530):
        on_virtual_time(one)(seed)
    kinds = {"written", "not written", "unknown", "fenced unknown", "fenced not_written"}
    assert kinds <= set(told), told
    assert min(injected[kind] for kind in Fault if kind is not Fault.HELD) > 10, injected


@pytest.mark.parametrize("seed", range(30))
@on_virtual_time
async def test_producer_batches_are_there_once_in_order_however_often_they_are_sent(seed: int):
    """A producer that retries until it has an answer, over writers that come and go."""
    rng = random.Random(seed)
    async with a_world(seed, segment_max_blocks=3, append_timeout_ms=2_000) as world:
        for number in range(6):
            site = world.site(number)
            site.on_objects.rate = site.on_metadata.rate = 0.15
            site.on_objects.max_delay_ms = site.on_metadata.max_delay_ms = 200
        results: dict[int, range] = {}
        sequence, number = 0, 0
        writers = []
        while sequence < 25:
            if number == 5:
                world.calm()
            try:
                writer = await world.writer(min(number, 5), producer="p")
            except WoodpeckerError:
                number += 1
                continue
            writers.append(writer)
            assert writer.next_sequence in (sequence, sequence + 1)
            try:
                while sequence < 25:
                    send = writer.append_many([b"%d" % sequence] * 2, sequence=sequence)
                    try:
                        results[sequence] = await asyncio.wait_for(send, rng.random() * 2)
                    except TimeoutError:
                        continue
                    sequence += 1
            except Conflict as error:
                raise AssertionError from error
            except WoodpeckerError:
                number += 1
        world.calm()
        await asyncio.sleep(10)
        for writer in writers:
            await asyncio.gather(writer.close(), return_exceptions=True)
            idle(writer)
        entries = await world.entries()
        assert entries == [b"%d" % n for n in range(25) for _ in range(2)]
        assert results == {n: range(2 * n, 2 * n + 2) for n in range(25)}
