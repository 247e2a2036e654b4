"""Records of the service: their bytes, and the loop that changes them when answers are lost."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from woodpecker.errors import Corrupt, InvalidRequest, OutcomeUnknown
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.streaming.codec import records as codec
from woodpecker.streaming.codec.records import COUNTERS, NODES, PCHANNELS, POLICY
from woodpecker.streaming.core.records import (
    Assignment,
    BroadcastKey,
    BroadcastRecord,
    BroadcastResult,
    BroadcastState,
    CheckpointRef,
    CheckpointsRecord,
    CoordinatorRecord,
    Counters,
    Features,
    Life,
    NodeRecord,
    Owner,
    PchannelRecord,
    Policy,
    VchannelRecord,
)
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.testing.faulty import Fault, Faults, FaultyMetadata
from woodpecker.testing.virtual import VirtualRuntime, on_virtual_time

NONCE = "5" * 32
OWNER = Owner(node="n1", incarnation="ab", address="h:1", term=7)
SAMPLES = [
    CoordinatorRecord(epoch=3, holder="ab", address="h:1", beat=9),
    NodeRecord(node="n1", incarnation="ab", address="h:1", zone="z", draining=True),
    PchannelRecord(
        name="p1",
        log="stream.p1",
        log_id="0" * 32,
        term=7,
        state=Assignment.ASSIGNED,
        owner=OWNER,
        epoch=3,
        former=(replace(OWNER, term=6),),
    ),
    VchannelRecord(
        name="a", vcid=4, pchannel="p1", state=Life.ACTIVE, attributes=(("k", "v"),), request="r"
    ),
    Counters(next_vcid=1001, next_broadcast=4, unfinished=(2, 3)),
    Features(level=2),
    Policy(balance=False, expected_nodes=3),
    CheckpointsRecord(
        checkpoints=(CheckpointRef(seq=9, low=4, object="c", digest="d", size=5, term=7),)
    ),
    BroadcastRecord(
        id=2,
        key="k",
        targets=(("a", 4),),
        payload=b"\x00\xff",
        state=BroadcastState.PARKED,
        results=(BroadcastResult(channel="a", seq=5, tick=6),),
    ),
    BroadcastKey(id=2),
]


@pytest.mark.parametrize("record", SAMPLES, ids=lambda record: type(record).__name__)
def test_what_is_written_is_read(record: object) -> None:
    data = codec.encode(record, nonce=NONCE)
    assert codec.decode(data, type(record), where="here") == record
    for cut in (1, 50, len(data) - 1):
        with pytest.raises(Corrupt, match="here"):
            codec.decode(data[:cut], type(record), where="here")


def test_every_record_has_a_kind() -> None:
    assert {type(record) for record in SAMPLES} == set(codec._KINDS)
    assert len(set(codec._KINDS.values())) == len(codec._KINDS)


def test_a_record_of_another_kind_is_not_taken() -> None:
    with pytest.raises(Corrupt, match="sfeatures record where a spolicy"):
        codec.decode(codec.encode(Features(), nonce=NONCE), Policy, where="here")


def test_broadcasts_list_by_number() -> None:
    assert codec.broadcast(9).path < codec.broadcast(10).path


def test_names_that_would_leave_the_table_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="channel name"):
        codec.VCHANNELS.key("a/b")


def make(runtime: VirtualRuntime) -> tuple[Faults, StreamRecords, StreamRecords]:
    """Faults, records through them, and records beside them."""
    shared, faults = MemoryRecords(), Faults(runtime)
    calm = MemoryMetadata(runtime, shared)
    return (
        faults,
        StreamRecords(FaultyMetadata(calm, faults), runtime),
        StreamRecords(calm, runtime),
    )


def took(count: int):
    return lambda before: replace(
        before or Counters(), next_vcid=(before or Counters()).next_vcid + count
    )


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.DROPPED, Fault.UNAVAILABLE])
@on_virtual_time
async def test_an_answer_that_is_lost_changes_nothing_twice(fault: Fault) -> None:
    faults, records, _ = make(VirtualRuntime())
    faults.script("put", fault)

    def drained(before: Policy | None) -> Policy:
        return replace(before or Policy(), balance=False)

    done = await records.change(POLICY, drained)
    assert done.record == Policy(balance=False)
    assert (await records.load(POLICY)).version == done.version


@on_virtual_time
async def test_a_block_taken_twice_is_lost_never_given_twice() -> None:
    faults, records, _ = make(VirtualRuntime())
    faults.script("put", Fault.LOST)
    first = (await records.change(COUNTERS, took(10))).record.next_vcid
    second = (await records.change(COUNTERS, took(10))).record.next_vcid
    assert second - first == 10 and first >= 11


@on_virtual_time
async def test_what_decide_raises_ends_the_change() -> None:
    _, records, _ = make(VirtualRuntime())

    def refuse(before: Policy | None) -> Policy:
        raise KeyError("no")

    with pytest.raises(KeyError):
        await records.change(POLICY, refuse)


@on_virtual_time
async def test_no_word_in_time_is_unknown() -> None:
    faults, records, _ = make(VirtualRuntime())
    faults.script("put", Fault.DROPPED, times=10_000)
    with pytest.raises(OutcomeUnknown, match="stream/policy"):
        await records.change(POLICY, lambda _: Policy(balance=False), timeout_ms=500)


@on_virtual_time
async def test_pages_and_all_and_what_cannot_be_read() -> None:
    _, records, calm = make(VirtualRuntime())
    for name in ("a1", "a2", "b1"):
        record = PchannelRecord(name=name, log=f"stream.{name}", log_id="0" * 32)
        await records.put(PCHANNELS.key(name), record, expect=None)
    found = await records.page(PCHANNELS, prefix="a", start_after="a1")
    assert [item.record.name for item in found] == ["a2"]
    assert [item.record.name for item in await records.page(PCHANNELS, limit=2)] == ["a1", "a2"]
    assert list(await records.all(PCHANNELS)) == ["a1", "a2", "b1"]
    await calm.store.put(NODES.key("bad").path, b"nonsense", expect=None)
    assert await records.all(NODES) == {}


def test_what_an_earlier_version_wrote_is_read_and_written_alike() -> None:
    """Written by this: ``b"".join(codec.encode(one, nonce=NONCE) for one in SAMPLES)``; a new field with a default may be added."""
    lines = (Path(__file__).parent / "records.v1.jsonl").read_bytes().splitlines(keepends=True)
    for line, record in zip(lines, SAMPLES, strict=True):
        assert codec.decode(line, type(record), where="golden") == record


@on_virtual_time
async def test_the_same_record_written_again_has_other_bytes() -> None:
    """In a bucket the version is a digest of the bytes: a change and its undoing must not look like no change."""
    runtime = VirtualRuntime()
    store = MemoryMetadata(runtime)
    records = StreamRecords(store, runtime)
    found = []
    for wanted in (Policy(balance=False), Policy(), Policy(balance=False)):
        await records.change(POLICY, partial(lambda policy, _before: policy, wanted))
        found.append(await store.get(POLICY.path))
    first, _, again = [item.value for item in found if item is not None]
    assert first != again
