"""The keeper of a node in virtual time: sealing in turn, letting go, draining, outages, thousands of logs."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.logstore.keeper_kit import BLOCK_BYTES, NODES, Cell, a_cell

from woodpecker.client.deletion import delete_log
from woodpecker.client.environment import Environment
from woodpecker.client.sealing import sealed_key, write_sealed
from woodpecker.client.takeover import close_at, close_open_segment, raise_epoch
from woodpecker.codec import keys
from woodpecker.core.ids import State
from woodpecker.core.keeping import ABSENT_MS, FORGET_ALL, SEAL_STEP_MS
from woodpecker.core.manifest import End, Manifest, Segment
from woodpecker.core.membership import Load, NodeState
from woodpecker.errors import Conflict, Fenced, InvalidRequest, NotFound
from woodpecker.logstore import keeper as keeper_module
from woodpecker.logstore import objects
from woodpecker.logstore.keeper import (
    HURRIED_SWEEP_MS,
    JOBS,
    LARGE_JOBS,
    LOOKS,
    OUTAGE_LIMIT_MS,
    RETRY_LIMIT_MS,
    SWEEP_MS,
    NodeKeeper,
    _Job,
)
from woodpecker.metadata.catalog import Catalog
from woodpecker.segments.base import SegmentRef
from woodpecker.testing.faulty import Fault
from woodpecker.testing.virtual import on_virtual_time, run

CLOSED, OPEN, SEALED = State.CLOSED, State.OPEN, State.SEALED


def held(cell: Cell, node: str = "n1") -> int:
    return cell.nodes[node].unsealed().segments


def reads(cell: Cell) -> int:
    return Counter(op for op, _ in cell.metadata.requests)["read"]


# --- sealing -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_told_of_closed_segments_the_first_member_seals_and_all_let_go() -> None:
    async with a_cell() as cell:
        cell.start()
        log = await cell.log(segments=3)
        cell.tell("orders")
        await cell.settle()
        assert await cell.states() == [SEALED] * 3
        assert [held(cell, node) for node in NODES] == [0, 0, 0]
        assert {node.floors[log.log_id] for node in cell.nodes.values()} == {4}  # one was empty
        written = [key for op, key in cell.objects.requests if op == "head" and "sealed" in key]
        assert len(written) == 3  # by one of them, once each


@on_virtual_time
async def test_ends_are_told_to_the_copies() -> None:
    async with a_cell() as cell:
        cell.objects.script("head", Fault.HELD, key="sealed")
        cell.start()
        log = await cell.log(segments=2)
        cell.tell("orders")
        await cell.settle()
        assert cell.nodes["n2"].ends == {(log.log_id, 0): 0, (log.log_id, 1): 0}
        cell.objects.calm()


@on_virtual_time
async def test_others_take_over_in_their_turn_when_the_first_member_is_gone() -> None:
    async with a_cell() as cell:
        cell.start("n2", "n3")
        await cell.log(segments=2)
        cell.tell("orders")
        await cell.settle(SEAL_STEP_MS - 1_000)
        assert await cell.states() == [CLOSED, CLOSED]
        await cell.settle(2_000)
        assert await cell.states() == [SEALED, SEALED]
        assert held(cell, "n3") == 0


@on_virtual_time
async def test_who_has_work_of_its_own_does_not_help_others_out() -> None:
    async with a_cell() as cell:
        cell.start("n2")
        await cell.log(segments=1)
        n2 = cell.keepers["n2"]
        for number in range(JOBS + 1):  # one of them waits
            n2._jobs[f"own-{number}"] = _Job(run=cell.objects.gate.wait)
        cell.tell("orders")
        await cell.settle(10 * SEAL_STEP_MS)
        assert await cell.states() == [CLOSED]
        cell.objects.calm()
        await cell.settle(2 * SEAL_STEP_MS)
        assert await cell.states() == [SEALED]


@on_virtual_time
async def test_a_node_that_was_told_nothing_finds_out_by_itself() -> None:
    async with a_cell() as cell:
        cell.is_deaf = True
        cell.start()
        await cell.settle()
        await cell.log(segments=2)
        await cell.settle(SWEEP_MS)
        assert await cell.states() == [CLOSED, CLOSED]
        await cell.settle(SWEEP_MS)
        assert await cell.states() == [SEALED, SEALED]


@on_virtual_time
async def test_after_a_start_everything_held_is_looked_at_soon() -> None:
    async with a_cell() as cell:
        cell.is_deaf = True
        await cell.log(segments=2)
        cell.start()
        await cell.settle()
        assert await cell.states() == [SEALED, SEALED]


@on_virtual_time
async def test_a_keeper_told_while_it_looks_waits_for_that_look_and_looks_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_cell() as cell:
        cell.start("n1")
        await cell.log(segments=0)
        await cell.settle()
        read, wait = Catalog.load, NodeKeeper._wait
        turns: list[float] = []
        looks = 0

        async def slow(self: Catalog, name: str) -> Any:
            nonlocal looks
            looks += 1
            await asyncio.sleep(4)
            return await read(self, name)

        async def counted(self: NodeKeeper, now_ms: float) -> None:
            turns.append(now_ms)
            await wait(self, now_ms)

        monkeypatch.setattr(Catalog, "load", slow)
        monkeypatch.setattr(NodeKeeper, "_wait", counted)
        for _ in range(3):
            cell.tell("orders")
            await cell.settle(500)
        await cell.settle(20_000)
        assert looks == 2
        assert len(turns) < 20


@on_virtual_time
async def test_segments_of_others_are_left_to_them() -> None:
    async with a_cell() as cell:
        cell.start()
        await cell.log(segments=2)
        for node in cell.nodes.values():
            object.__setattr__(node.identity, "incarnation", "another disk")
        cell.tell("orders")
        await cell.settle(10 * SEAL_STEP_MS)
        assert await cell.states() == [CLOSED, CLOSED]


@on_virtual_time
async def test_a_past_incarnation_is_a_member_still() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        await cell.log(segments=1)
        identity = cell.nodes["n1"].identity
        object.__setattr__(identity, "past", frozenset({identity.incarnation}))
        object.__setattr__(identity, "incarnation", "new")
        cell.tell("orders")
        await cell.settle()
        assert await cell.states() == [SEALED]


@on_virtual_time
async def test_what_is_trimmed_is_dropped_not_sealed() -> None:
    async with a_cell() as cell:
        log = await cell.log(segments=2)
        await log.trim(1)
        cell.start()
        await cell.settle()
        assert await cell.states() == [SEALED]
        assert held(cell) == 0


# --- failures ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_outage_of_the_store_is_outlasted_without_a_storm() -> None:
    async with a_cell() as cell:
        cell.objects.is_away = True
        cell.start()
        await cell.log(segments=2)
        cell.tell("orders")
        await cell.settle(3_600_000)
        assert len(cell.objects.requests) < 200
        cell.objects.calm()
        await cell.settle(RETRY_LIMIT_MS)
        assert await cell.states() == [SEALED, SEALED]


@on_virtual_time
async def test_an_outage_of_the_metadata_is_outlasted_without_a_storm() -> None:
    async with a_cell() as cell:
        for number in range(30):
            await cell.log(f"log-{number}", segments=1)
        cell.metadata.is_away = True
        cell.start()
        await cell.settle(600_000)
        assert reads(cell) < 3 * LOOKS * (600_000 / OUTAGE_LIMIT_MS * 2 + 10)
        cell.metadata.calm()
        await cell.settle(OUTAGE_LIMIT_MS + 5_000)
        assert all(cell.nodes[node].unsealed().segments == 0 for node in NODES)


@pytest.mark.parametrize("seed", range(4))
@on_virtual_time
async def test_trouble_of_every_kind_ends_in_sealed_segments(seed: int) -> None:
    async with a_cell() as cell:
        for number in range(5):
            await cell.log(f"log-{number}", segments=3)
        cell.metadata.rate = cell.objects.rate = 0.2
        cell.metadata.max_delay_ms = cell.objects.max_delay_ms = 50
        cell.start()
        await cell.settle(60_000)
        cell.metadata.calm()
        cell.objects.calm()
        await cell.settle(RETRY_LIMIT_MS)
        for number in range(5):
            assert await cell.states(f"log-{number}") == [SEALED] * 3
        assert [held(cell, node) for node in NODES] == [0, 0, 0]


@on_virtual_time
async def test_one_log_in_trouble_does_not_hold_up_others() -> None:
    async with a_cell() as cell:
        bad = await cell.log("bad", segments=1)
        await cell.log("good", segments=1)
        cell.objects.script("get", Fault.UNAVAILABLE, key=bad.log_id, times=10**6)
        cell.start()
        await cell.settle()
        assert await cell.states("good") == [SEALED]
        assert await cell.states("bad") == [CLOSED]


@on_virtual_time
async def test_a_manifest_that_cannot_be_read_does_not_hold_up_others() -> None:
    async with a_cell() as cell:
        await cell.log("bad", segments=1)
        await cell.log("good", segments=1)
        store = cell.client.catalog.store
        record = await store.get(keys.manifest("bad"))
        assert record is not None
        await store.put(keys.manifest("bad"), b"damaged", expect=record.version)
        cell.start()
        await cell.settle()
        assert await cell.states("good") == [SEALED]
        assert cell.nodes["n1"].unsealed().segments == 1


@on_virtual_time
async def test_stopping_in_the_middle_leaves_nothing_running() -> None:
    async with a_cell() as cell:
        cell.objects.script("head", Fault.HELD, key="sealed")
        cell.start("n1")
        await cell.log(segments=2)
        cell.tell("orders")
        await cell.settle()
        assert [name for name in cell.runtime.running() if name.startswith("keeper job")]
        await cell.keepers["n1"].stop()
        assert not [name for name in cell.runtime.running() if name.startswith("keeper")]


# --- letting go --------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_deleted_log_is_let_go_and_so_is_the_one_before_it_of_that_name() -> None:
    async with a_cell() as cell:
        cell.start()
        first = await cell.log(segments=1, is_open=True)
        await delete_log(cell.client, "orders")
        second = await cell.log(segments=1, is_open=True)
        cell.tell("orders")
        await cell.settle()
        for node in cell.nodes.values():
            assert node.floors[first.log_id] == FORGET_ALL
            assert node.floors.get(second.log_id, 0) <= 2
        await delete_log(cell.client, "orders")
        await cell.settle()
        assert [held(cell, node) for node in NODES] == [0, 0, 0]


@on_virtual_time
async def test_what_no_manifest_knows_is_kept() -> None:
    """Old metadata may have been put in place: that a log is not there proves nothing."""
    async with a_cell() as cell:
        log = await cell.log(segments=1)
        other = await cell.log("other", segments=1)
        node = cell.nodes["n1"]
        node.copies[log.log_id] = {7: BLOCK_BYTES}
        node.names[log.log_id] = "vanished"
        node.copies["f" * 32] = {7: BLOCK_BYTES}
        node.names["f" * 32] = "other"
        cell.start()
        await cell.settle(2 * SWEEP_MS)
        assert node.copies[log.log_id] == {7: BLOCK_BYTES}
        assert node.copies["f" * 32] == {7: BLOCK_BYTES}
        assert node.copies[other.log_id] == {}


@on_virtual_time
async def test_an_open_segment_is_never_let_go() -> None:
    async with a_cell() as cell:
        cell.start()
        log = await cell.log(segments=2, is_open=True)
        cell.tell("orders")
        await cell.settle(3 * SWEEP_MS)
        assert cell.nodes["n1"].copies[log.log_id] == {3: BLOCK_BYTES}
        assert await cell.states() == [SEALED, SEALED, OPEN]


# --- draining ----------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_drain_hurries_and_is_safe_only_when_nothing_is_left() -> None:
    async with a_cell() as cell:
        cell.is_deaf = True
        cell.start("n1")
        await cell.settle()
        await cell.log(segments=2)
        keeper, node = cell.keepers["n1"], cell.nodes["n1"]
        assert keeper.report() == Load(unsealed_segments=2, unsealed_bytes=2 * BLOCK_BYTES)
        keeper.on_state(NodeState.DRAINING)
        assert not keeper.report().is_safe
        assert not node.refuses
        await cell.settle(HURRIED_SWEEP_MS)
        assert keeper.report() == Load(is_safe=True)
        assert node.refuses  # what is safe stays safe
        keeper.on_state(NodeState.ACTIVE)
        assert not keeper.report().is_safe
        assert not node.refuses


@on_virtual_time
async def test_pressure_is_reported_and_hurries_too() -> None:
    async with a_cell() as cell:
        cell.is_deaf = True
        cell.start("n1")
        await cell.settle()
        await cell.log(segments=1)
        cell.nodes["n1"].pressure = 1
        assert cell.keepers["n1"].report().pressure == 1
        await cell.settle(HURRIED_SWEEP_MS)
        assert await cell.states() == [SEALED]


@pytest.mark.parametrize("why", ["draining", "full", "wanted"])
@on_virtual_time
async def test_a_segment_of_a_writer_that_is_gone_is_closed_where_it_must_move(why: str) -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=0, is_open=True)
        node = cell.nodes["n1"]
        node.idle_ms = 10 * ABSENT_MS
        if why == "draining":
            cell.keepers["n1"].on_state(NodeState.DRAINING)
        node.pressure = 2 if why == "full" else 0
        cell.directory.is_wanted = True
        cell.tell("orders")
        await cell.settle(ABSENT_MS - 1_000)
        assert await cell.states() == [OPEN]
        await cell.settle(SWEEP_MS + HURRIED_SWEEP_MS)
        assert await cell.states() == [SEALED]
        assert cell.nodes["n1"].copies[log.log_id] == {}
        with pytest.raises(Fenced):
            await cell.abandoned[0].append(b"more")


@on_virtual_time
async def test_the_claim_of_a_layer_above_stands_when_a_node_closes() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=0)
        await log.alter(segment_max_blocks=1000)
        cell.abandoned.append(await log.open_writer(claim=(7, "me")))
        await cell.abandoned[0].append(b"x")
        await cell.hold()
        cell.nodes["n1"].idle_ms = 10 * ABSENT_MS
        cell.keepers["n1"].on_state(NodeState.DRAINING)
        cell.directory.is_wanted = True
        await cell.settle(2 * ABSENT_MS)
        assert await cell.states() == [SEALED]
        manifest = await cell.client.catalog.read("orders")
        assert manifest.claim is not None
        assert (manifest.claim.number, manifest.claim.holder) == (7, "me")


@pytest.mark.parametrize(
    "sign", ["it writes", "nowhere to go", "all is well", "it stopped draining"]
)
@on_virtual_time
async def test_a_writer_that_lives_or_may_stay_is_never_fenced_by_a_node(sign: str) -> None:
    async with a_cell() as cell:
        cell.start("n1")
        await cell.log(segments=0, is_open=True)
        node, keeper = cell.nodes["n1"], cell.keepers["n1"]
        node.idle_ms = 60_000.0 if sign == "it writes" else 10 * ABSENT_MS
        for _ in range(6):
            if sign != "all is well":
                keeper.on_state(NodeState.DRAINING)
                node.pressure = 2
            cell.directory.is_wanted = sign in ("it writes", "it stopped draining")
            await cell.settle(ABSENT_MS / 2)
            if sign == "it stopped draining":
                keeper.on_state(NodeState.ACTIVE)
                cell.directory.is_wanted = False
                cell.tell("orders")
                await cell.settle(100)
        assert await cell.states() == [OPEN]
        await cell.abandoned[0].append(b"more")


@on_virtual_time
async def test_a_writer_that_came_back_meanwhile_is_left_alone() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=0, is_open=True)
        seen = await cell.client.catalog.read("orders")
        assert seen.open_segment is not None
        cell.abandoned.append(await log.open_writer())
        await cell.abandoned[-1].append(b"mine")
        await cell.keepers["n1"]._close(seen, seen.open_segment)
        await cell.abandoned[-1].append(b"mine too")


@on_virtual_time
async def test_a_writer_that_went_on_meanwhile_is_left_alone() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=0)
        cell.abandoned.append(await log.open_writer())
        await cell.abandoned[0].append(b"one")
        await cell.settle()
        seen = await cell.client.catalog.read("orders")
        assert seen.open_segment is not None
        await cell.abandoned[0].append(b"two")  # rolls: the same writer, another segment
        await cell.settle()
        await cell.keepers["n1"]._close(seen, seen.open_segment)
        await cell.abandoned[0].append(b"three")


@on_virtual_time
async def test_a_segment_of_which_nothing_is_here_need_not_move_from_here() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=0, is_open=True)
        node = cell.nodes["n1"]
        node.idle_ms = 10 * ABSENT_MS
        node.copies[log.log_id] = {1: 0, 5: BLOCK_BYTES}  # a fence alone; one that is not open
        cell.keepers["n1"].on_state(NodeState.DRAINING)
        cell.directory.is_wanted = True
        await cell.settle(3 * ABSENT_MS)
        assert await cell.states() == [OPEN]


# --- many logs ---------------------------------------------------------------------------------------


@on_virtual_time
async def test_many_idle_logs_cost_a_look_each_now_and_then_and_no_task() -> None:
    async with a_cell() as cell:
        log = await cell.log(segments=0, is_open=True)
        manifest = await cell.client.catalog.read("orders")
        node = cell.nodes["n1"]
        for number in range(2_000):
            log_id = f"{number:032x}"
            node.copies[log_id], node.names[log_id] = {0: BLOCK_BYTES}, f"log-{number}"
        cell.start("n1")
        await cell.settle(HURRIED_SWEEP_MS)
        first = reads(cell)
        assert 2_000 <= first <= 2_200
        await cell.settle(SWEEP_MS * 1.05)
        assert reads(cell) - first <= 2_200
        assert len(cell.runtime.running()) <= LOOKS + JOBS + 5
        assert manifest.log_id == log.log_id


@pytest.mark.parametrize(("large_bytes", "most"), [(0, LARGE_JOBS), (1 << 30, JOBS)])
def test_never_more_tasks_than_allowed_at_once(
    large_bytes: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "LARGE_BYTES", large_bytes)
    run(_count_tasks(most))


async def _count_tasks(most: int) -> None:
    async with a_cell() as cell:
        for number in range(40):
            await cell.log(f"log-{number}", segments=1)
        cell.objects.max_delay_ms = 500
        cell.metadata.max_delay_ms = 500
        cell.start("n1")
        looks = jobs = 0
        for _ in range(1_000):
            await cell.settle(100)
            names = cell.runtime.running()
            looks = max(looks, sum(name.startswith("keeper look") for name in names))
            jobs = max(jobs, sum(name.startswith("keeper job") for name in names))
        assert (looks, jobs) == (LOOKS, most)
        assert cell.nodes["n1"].unsealed().segments == 0


@on_virtual_time
async def test_being_told_many_times_is_one_look() -> None:
    async with a_cell() as cell:
        await cell.log(segments=0, is_open=True)
        cell.start("n1")
        await cell.settle()
        before = reads(cell)
        for _ in range(1_000):
            cell.keepers["n1"].tell("orders")
        await cell.settle()
        assert reads(cell) - before == 1


# --- uploads -----------------------------------------------------------------------------------------


@on_virtual_time
async def test_an_upload_writes_the_object_of_a_segment_that_is_still_open() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=1, is_open=True)
        manifest = await cell.client.catalog.read("orders")
        segment = manifest.open_segment
        assert segment is not None
        ref = SegmentRef(log_id=log.log_id, segment=segment, name="orders")
        found = await cell.client.store_of(manifest, segment).recover(ref, token="0" * 32)
        assert found.end is not None
        await cell.keepers["n1"].upload("orders", log.log_id, segment.id, found.end)
        key = keys.sealed(log.log_id, segment.id, found.end.seq, found.end.digest)
        assert await cell.client.places.objects("").head(key) is not None
        assert (await cell.states())[-1] is OPEN


@on_virtual_time
async def test_an_upload_for_whoever_deletes_the_log_is_done() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=1, is_open=True)
        manifest, owner = await raise_epoch(cell.client, "orders", to_delete=True)
        assert manifest.deleting
        closed, _ = await close_open_segment(cell.client, "orders", manifest, owner)
        segment = manifest.open_segment
        assert segment is not None
        end = next(kept.end for kept in closed.segments if kept.id == segment.id)
        assert end is not None
        await cell.keepers["n1"].upload("orders", log.log_id, segment.id, end)


@on_virtual_time
async def test_an_upload_is_refused_when_the_manifest_says_otherwise() -> None:
    async with a_cell() as cell:
        log = await cell.log(segments=1)
        cell.start("n1")
        upload = cell.keepers["n1"].upload
        (segment,) = (await cell.client.catalog.read("orders")).segments
        assert segment.end is not None
        other = End(block=5, seq=6, digest="0" * 32)
        with pytest.raises(Conflict, match="closed at another end"):
            await upload("orders", log.log_id, 0, other)
        with pytest.raises(NotFound, match="segment 9"):
            await upload("orders", log.log_id, 9, segment.end)
        with pytest.raises(NotFound):
            await upload("orders", "0" * 32, 0, segment.end)
        await cell.settle()
        await upload("orders", log.log_id, 0, segment.end)  # SEALED already: nothing to do


@on_virtual_time
async def test_an_upload_of_a_segment_that_is_dropped_meanwhile_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another opener met members without any block of it; where pages hold its neighbours, no sweep looks."""
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=1, is_open=True)
        manifest, owner = await raise_epoch(cell.client, "orders")
        segment = manifest.open_segment
        assert segment is not None
        ref = SegmentRef(log_id=log.log_id, segment=segment, name="orders")
        found = await cell.client.store_of(manifest, segment).recover(ref, token="0" * 32)
        assert found.end is not None

        async def beside_another(env: Environment, read: Manifest, closed: Segment) -> None:
            await write_sealed(env, read, closed)
            assert await objects.head(key) is not None
            nothing = replace(found, end=None)
            await close_at(cell.client, "orders", manifest, owner, nothing, manifest.register)

        objects = cell.client.places.objects("")
        key = keys.sealed(log.log_id, segment.id, found.end.seq, found.end.digest)
        monkeypatch.setattr(keeper_module, "write_sealed", beside_another)
        with pytest.raises(NotFound, match="dropped meanwhile"):
            await cell.keepers["n1"].upload("orders", log.log_id, segment.id, found.end)
        assert await objects.head(key) is None


# --- giving out objects ------------------------------------------------------------------------------


@on_virtual_time
async def test_sealed_objects_are_given_out_in_ranges() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        await cell.log(segments=1)
        cell.tell("orders")
        await cell.settle()
        manifest = await cell.client.catalog.read("orders")
        key = sealed_key(manifest, manifest.segments[0])
        whole, _ = await cell.client.places.objects("").get(key)
        whole = bytes(whole)
        get = cell.keepers["n1"].get_object
        for start, length, expected in (
            (0, None, whole),
            (3, 5, whole[3:8]),
            (-7, None, whole[-7:]),
            (-7, 3, whole[-7:-4]),
            (-(10**9), 4, whole[:4]),
            (0, 0, b""),
        ):
            size, data = await get("", key, start, length)
            assert (size, bytes(data)) == (len(whole), expected)
        assert await get("", key.replace("0", "1"), 0, None) == (None, b"")
        assert await get("", key.replace("0", "1"), -5, None) == (None, b"")


@on_virtual_time
async def test_one_answer_is_bounded() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        await cell.log(segments=1)
        cell.tell("orders")
        await cell.settle()
        manifest = await cell.client.catalog.read("orders")
        key = sealed_key(manifest, manifest.segments[0])
        limit, objects.MAX_OBJECT_BYTES = objects.MAX_OBJECT_BYTES, 10
        try:
            for length in (None, 10**12):
                size, data = await cell.keepers["n1"].get_object("", key, 0, length)
                assert (size or 0) > len(data) == 10
        finally:
            objects.MAX_OBJECT_BYTES = limit


@on_virtual_time
async def test_nothing_else_is_given_out() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=1)
        get = cell.keepers["n1"].get_object
        for key in (
            keys.STORE_MARKER,
            keys.manifest("orders"),
            keys.block(log.log_id, 0, 0),
            keys.caller_object(log.log_id, "secret"),
            "../etc/passwd",
            "",
        ):
            with pytest.raises(InvalidRequest, match="nodes give out"):
                await get("", key, 0, None)
        good = keys.sealed(log.log_id, 0, 1, "0" * 32)
        with pytest.raises(InvalidRequest, match="bytes of"):
            await get("", good, 0, -1)


@on_virtual_time
async def test_only_storages_that_a_log_names_are_read_from_and_asking_is_cheap() -> None:
    async with a_cell() as cell:
        cell.start("n1")
        log = await cell.log(segments=0)
        await cell.settle()
        get = cell.keepers["n1"].get_object
        key = keys.sealed(log.log_id, 0, 1, "0" * 32)
        for _ in range(10):
            with pytest.raises(InvalidRequest, match="no log of this store"):
                await get("s3://elsewhere/x", key, 0, None)
        lists = Counter(op for op, _ in cell.metadata.requests)["list"]
        assert lists == 2  # one page, and the empty one after it
        await log.alter(storage="s3://elsewhere/x")
        await cell.settle(objects.STORAGES_MS)
        assert await get("s3://elsewhere/x", key, 0, None) == (None, b"")
