"""The directory of nodes in virtual time: lazy, patient with an absent store, quick to believe an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.metadata.nodes_kit import Cell

from woodpecker.core.manifest import Ensemble, Manifest, Member, Options
from woodpecker.core.membership import DEAD_AFTER_MS, Load
from woodpecker.errors import Closed, Unavailable
from woodpecker.metadata.node_session import BEAT_MS
from woodpecker.metadata.nodes import FAILING_MS, WANTED_AGE_MS, NodeDirectory
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time

LOG = Manifest(name="orders", log_id="0" * 32, created_at_ms=0)
HARD = Manifest(name="h", log_id="1" * 32, created_at_ms=0, options=Options(affinity="hard"))


@asynccontextmanager
async def a_cell(nodes: int = 0) -> AsyncIterator[Cell]:
    cell = Cell()
    try:
        for index in range(1, nodes + 1):
            await cell.node(f"n{index}", zone=f"z{index % 3}")
        yield cell
    finally:
        await cell.close()


def names(ensemble: Ensemble) -> set[str]:
    return {member.node for member in ensemble.members}


def reads(cell: Cell) -> int:
    """Listings; each is a page and the empty one that ends it."""
    return Counter(op for op, _ in cell.faults.requests)["list"] // 2


async def watch(cell: Cell, directory: NodeDirectory, duration_ms: float) -> None:
    """Choose every second: somebody who looks."""
    until_ms = cell.runtime.monotonic_ms() + duration_ms
    while cell.runtime.monotonic_ms() < until_ms:
        await directory.choose(LOG)
        await cell.runtime.sleep_ms(1_001)


# --- choosing ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_ensemble_of_three_names_incarnations_and_acks() -> None:
    async with a_cell(nodes=5) as cell:
        directory = cell.directory()
        ensemble = await directory.choose(LOG)
        assert (len(ensemble.members), ensemble.acks) == (3, 2)
        assert all(m.incarnation == f"of-{m.node}" for m in ensemble.members)
        assert {directory.zone_of(m.node) for m in ensemble.members} == {"z0", "z1", "z2"}
        assert directory.zone_of("unknown") == ""


@on_virtual_time
async def test_two_of_two_and_a_refusal_that_names_who_is_missing_and_why() -> None:
    async with a_cell(nodes=4) as cell:
        directory = cell.directory()
        stopped, dead, drained, _ = cell.processes
        drained.load = Load(is_safe=True)
        await cell.records.drain("n3")
        await stopped.session.stop()
        await cell.runtime.sleep_ms(3 * BEAT_MS)
        assert names(await directory.choose(LOG)) == {"n2", "n4"}
        dead.session._task.cancel()  # type: ignore[union-attr]  # as kill -9 would
        await watch(cell, directory, DEAD_AFTER_MS - 2_000)
        with pytest.raises(Unavailable) as refused:
            await watch(cell, directory, DEAD_AFTER_MS)
        text = str(refused.value)
        assert text.startswith("log 'orders': no 2 LogStore nodes can be used, only n4")
        for reason in ("n1 was stopped", "n2 has been silent for 8 s", "n3 is drained"):
            assert reason in text


@on_virtual_time
async def test_no_nodes_and_no_metadata_store_are_told_apart() -> None:
    async with a_cell() as cell:
        directory = cell.directory()
        with pytest.raises(Unavailable, match="none has ever registered"):
            await directory.choose(LOG)
        cell.faults.is_away = True
        with pytest.raises(Unavailable, match="not known yet"):
            await cell.directory().choose(LOG)


@on_virtual_time
async def test_hard_affinity_is_told_in_the_refusal() -> None:
    async with a_cell() as cell:
        for node in ("n1", "n2", "n3"):
            await cell.node(node, zone="z")
        with pytest.raises(Unavailable, match="affinity hard: no 2 nodes fit, of n1"):
            await cell.directory().choose(HARD)


@on_virtual_time
async def test_nodes_to_avoid_are_taken_only_if_there_is_no_other_way() -> None:
    async with a_cell(nodes=4) as cell:
        directory = cell.directory()
        for _ in range(20):
            assert names(await directory.choose(LOG, avoid={"n1"})) == {"n2", "n3", "n4"}
        assert len(names(await directory.choose(LOG, avoid={"n1", "n2", "n3"}))) == 3


@on_virtual_time
async def test_a_failed_node_is_avoided_until_it_answers_or_time_has_passed() -> None:
    async with a_cell(nodes=4) as cell:
        directory = cell.directory()
        await directory.choose(LOG)
        directory.failed("n1")
        directory.failed("unknown")
        assert "n1" not in names(await directory.choose(LOG))
        directory.answered("n1")
        seen: set[str] = set()
        for _ in range(30):
            seen |= names(await directory.choose(LOG))
        assert "n1" in seen


@on_virtual_time
async def test_a_node_that_was_started_again_is_not_avoided_for_what_was_before() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        await directory.choose(LOG)
        await cell.processes[0].session.stop()
        for _ in range(5):
            directory.failed("n1")
            await cell.runtime.sleep_ms(60_000)
        assert names(await directory.choose(LOG)) == {"n2", "n3"}
        await cell.node("n1", boot=2)
        await cell.runtime.sleep_ms(1_001)
        assert len(names(await directory.choose(LOG))) == 3


@on_virtual_time
async def test_pressure_told_with_an_answer_counts_at_once_and_until_the_next_record() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        await directory.choose(LOG)
        directory.answered("n1", pressure=2)
        assert names(await directory.choose(LOG)) == {"n2", "n3"}
        await cell.runtime.sleep_ms(3 * BEAT_MS)
        assert len(names(await directory.choose(LOG))) == 3


# --- liveness ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_nobody_dies_of_an_outage_of_the_metadata_store() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        await directory.choose(LOG)
        for process in cell.processes:
            process.session._records._store.faults.is_away = True  # type: ignore[attr-defined]
        cell.faults.is_away = True
        await watch(cell, directory, 60_000)  # on the old view
        cell.faults.is_away = False
        assert len(names(await directory.choose(LOG))) == 3


@on_virtual_time
async def test_a_node_cut_off_from_the_metadata_store_lives_while_it_answers() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        cell.processes[0].session._records._store.faults.is_away = True  # type: ignore[attr-defined]
        for _ in range(60):
            await watch(cell, directory, 1_000)
            directory.answered("n1")
        assert "n1" in names(await directory.choose(LOG))


@on_virtual_time
async def test_who_looks_again_after_a_long_time_takes_nobody_for_dead() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        for _ in range(3):
            assert len(names(await directory.choose(LOG))) == 3
            await cell.runtime.sleep_ms(3_600_000)


# --- being lazy --------------------------------------------------------------------------------------


@on_virtual_time
async def test_nobody_asks_nothing_is_read_and_one_read_serves_all() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        await asyncio.gather(*(directory.choose(LOG) for _ in range(100)))
        assert reads(cell) == 1
        await cell.runtime.sleep_ms(3_600_000)
        assert reads(cell) == 1


@on_virtual_time
async def test_asking_whether_better_is_wanted_refreshes_now_and_then_in_the_background() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        ensemble = await directory.choose(LOG)
        for _ in range(600):
            directory.wanted(ensemble, LOG)
            await cell.runtime.sleep_ms(100)
        assert 60_000 / WANTED_AGE_MS - 2 <= reads(cell) - 1 <= 60_000 / WANTED_AGE_MS + 1


@on_virtual_time
async def test_addresses_are_looked_up_again_only_where_something_is_wrong() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        member = Member(node="n1", incarnation="of-n1")
        for _ in range(100):
            assert await directory.address(member) == "n1:7100"
            await cell.runtime.sleep_ms(10_000)
        assert reads(cell) == 1
        await cell.processes[0].session.stop()
        await cell.node("n1", boot=2, address="elsewhere:1")
        assert await directory.address(member) == "n1:7100"
        directory.failed("n1")  # nobody there
        assert await directory.address(member) == "elsewhere:1"


# --- addresses ---------------------------------------------------------------------------------------


@on_virtual_time
async def test_why_a_member_has_no_address() -> None:
    async with a_cell(nodes=2) as cell:
        directory = cell.directory()
        with pytest.raises(Unavailable, match="n9 is not registered"):
            await directory.address(Member(node="n9", incarnation="x"))
        with pytest.raises(Unavailable, match="incarnation old is gone") as gone:
            await directory.address(Member(node="n1", incarnation="old"))
        assert not gone.value.retryable
        await cell.processes[0].session.stop()
        await cell.runtime.sleep_ms(1_000)
        directory.failed("n1")  # as found by connecting
        with pytest.raises(Unavailable, match="was stopped") as stopped:
            await directory.address(Member(node="n1", incarnation="of-n1"))
        assert stopped.value.retryable
        await cell.records.forget("n1")
        await cell.runtime.sleep_ms(1_000)
        with pytest.raises(Unavailable, match="gone for ever"):
            await directory.address(Member(node="n1", incarnation="of-n1"))


@on_virtual_time
async def test_a_past_incarnation_is_found_where_its_node_is() -> None:
    async with a_cell() as cell:
        await cell.node("n1", incarnation="new", past=("old",))
        assert await cell.directory().address(Member(node="n1", incarnation="old")) == "n1:7100"


@on_virtual_time
async def test_addresses_of_all_that_are_up() -> None:
    async with a_cell(nodes=3) as cell:
        await cell.processes[1].session.stop()
        assert await cell.directory().addresses() == ["n1:7100", "n3:7100"]


# --- wanted ------------------------------------------------------------------------------------------


@on_virtual_time
async def test_wanted_when_a_third_node_comes_or_a_member_drains() -> None:
    async with a_cell(nodes=2) as cell:
        directory = cell.directory()
        two = await directory.choose(LOG)
        assert not directory.wanted(two, LOG)
        await cell.node("n3")
        await cell.runtime.sleep_ms(WANTED_AGE_MS + 1)
        directory.wanted(two, LOG)
        await cell.runtime.sleep_ms(1_001)
        assert directory.wanted(two, LOG)
        three = await directory.choose(LOG)
        assert not directory.wanted(three, LOG)
        await cell.records.drain("n1")
        await cell.runtime.sleep_ms(WANTED_AGE_MS + 1)
        directory.wanted(three, LOG)
        await cell.runtime.sleep_ms(1_001)
        assert directory.wanted(three, LOG)
        assert names(await directory.choose(LOG)) == {"n2", "n3"}


@on_virtual_time
async def test_a_broken_link_makes_no_writer_roll_but_a_node_that_stays_away_does() -> None:
    async with a_cell(nodes=4) as cell:
        directory = cell.directory()
        ensemble = await directory.choose(LOG, avoid={"n4"})
        until_ms = cell.runtime.monotonic_ms() + FAILING_MS
        while cell.runtime.monotonic_ms() < until_ms:
            directory.failed("n1")
            assert not directory.wanted(ensemble, LOG)
            await cell.runtime.sleep_ms(1_001)
        directory.failed("n1")
        assert directory.wanted(ensemble, LOG)
        directory.answered("n1")
        await cell.runtime.sleep_ms(1_001)
        assert not directory.wanted(ensemble, LOG)


@on_virtual_time
async def test_what_was_just_chosen_without_a_failed_node_is_not_given_up_for_it() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        await directory.choose(LOG)
        directory.failed("n1")
        two = await directory.choose(LOG)
        assert names(two) == {"n2", "n3"}
        assert not directory.wanted(two, LOG)  # it would be chosen again
        directory.answered("n1")
        await cell.runtime.sleep_ms(1_001)
        assert directory.wanted(two, LOG)


# --- closing -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_closing_ends_a_read_under_way_and_whoever_waits_for_it() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        cell.faults.script("list", Fault.HELD)
        waiting = asyncio.gather(directory.choose(LOG), return_exceptions=True)
        await asyncio.sleep(0)
        await directory.close()
        (error,) = await waiting
        assert isinstance(error, Closed)
        with pytest.raises(Closed):
            await directory.choose(LOG)


@on_virtual_time
async def test_a_cancelled_caller_does_not_cancel_the_read_of_others() -> None:
    async with a_cell(nodes=3) as cell:
        directory = cell.directory()
        cell.faults.max_delay_ms = 100
        first = asyncio.get_running_loop().create_task(directory.choose(LOG))
        second = asyncio.get_running_loop().create_task(directory.choose(LOG))
        await asyncio.sleep(0)
        first.cancel()
        assert len((await second).members) == 3
