"""Segments of kind quorum are left to their nodes: told at once, taken over by a client minutes later."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.client.background_kit import NAME, Env, MemoryPlaces, World, create, fill

from woodpecker.client import export
from woodpecker.client.background import LEAVE_MS, BackgroundWorker, _Job
from woodpecker.client.deletion import delete_log
from woodpecker.client.export import export_log
from woodpecker.client.import_file import import_log
from woodpecker.client.log import Log
from woodpecker.client.retention import drop_trimmed
from woodpecker.client.sealing import seal_log
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Ensemble, Member, Place, Segment
from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.segments.base import ReadManifest, SegmentRef, SegmentWriter
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.base import ObjectStore

ENSEMBLE = Ensemble(
    members=(Member(node="n1", incarnation="i"), Member(node="n2", incarnation="j")), acks=2
)


class NodeSegments(ObjectSegments):
    """Kind quorum for drivers that only look at the port: blocks lie in the bucket, nodes are told."""

    kind = Kind.QUORUM

    def __init__(self, objects: ObjectStore, world: World) -> None:
        super().__init__(objects, world.runtime)
        self.told: list[int] = []
        self.dropped: list[int] = []
        self.is_away = False
        self.drops_fail = False

    async def prepare(  # type: ignore[override]
        self, log_id: str, segment: Segment, *, read_manifest: ReadManifest, timeout_ms: int
    ) -> tuple[Place | None, SegmentWriter]:
        _, writer = await super().prepare(
            log_id, segment, read_manifest=read_manifest, timeout_ms=timeout_ms
        )
        return ENSEMBLE, writer

    async def hand_over(self, ref: SegmentRef) -> bool:
        self.told.append(ref.segment.id)
        return not self.is_away

    async def drop(self, ref: SegmentRef, *, keep_fence: bool) -> None:
        self.dropped.append(ref.segment.id)
        if self.is_away or self.drops_fail:
            raise Unavailable("no node answers")


class QuorumPlaces(MemoryPlaces):
    """One bucket and its nodes."""

    def check_kind(self, kind: Kind, storage: str) -> None:
        if kind is not Kind.QUORUM:
            raise InvalidRequest(f"no segments of kind {kind} here")


async def made(segments: int = 2) -> tuple[World, Log, Env, NodeSegments]:
    world = World()
    env = world.env()
    nodes = NodeSegments(env.places.objects(""), world)
    env.places = QuorumPlaces(env.places.objects(""), nodes)
    await create(env)
    await Log(env, NAME, (await env.catalog.read(NAME)).log_id).alter(mode="quorum")
    log = Log(env, NAME, (await env.catalog.read(NAME)).log_id)
    await fill(log, segments)
    return world, log, env, nodes


async def states(env: Env) -> list[State]:
    return [segment.state for segment in (await env.catalog.read(NAME)).segments]


async def test_a_fresh_segment_is_handed_over_and_left() -> None:
    _, _, env, nodes = await made()
    assert await seal_log(env, NAME, leave_ms=LEAVE_MS) == 0
    assert nodes.told == [0]
    assert await states(env) == [State.CLOSED, State.CLOSED]


async def test_it_is_sealed_here_when_nobody_can_be_asked_or_nobody_did_it_in_time() -> None:
    _, _, env, nodes = await made()
    nodes.is_away = True
    with pytest.raises(Unavailable):  # sealed; but the nodes could not be told
        await seal_log(env, NAME, leave_ms=LEAVE_MS)
    assert await states(env) == [State.SEALED, State.CLOSED]
    world, _, env, nodes = await made()
    world.runtime.ahead_us += LEAVE_MS * 1000
    assert await seal_log(env, NAME, leave_ms=LEAVE_MS) == 2
    assert nodes.told == []
    assert nodes.dropped == [0, 1]


async def test_the_background_worker_hands_over_but_does_itself_what_it_is_told_to_do_now() -> None:
    _, _, env, nodes = await made()
    worker = BackgroundWorker(env)
    await worker._job(NAME, _Job())
    assert nodes.told == [0]
    assert await states(env) == [State.CLOSED, State.CLOSED]
    report = await worker.run_once(NAME)
    assert (report.sealed, report.errors) == (2, {})


async def test_a_client_without_rights_hands_over_and_does_no_more() -> None:
    world, _, env, nodes = await made()
    env.has_rights = False
    world.runtime.ahead_us += 10 * LEAVE_MS * 1000
    writes = env.killer.writes
    worker = BackgroundWorker(env)
    await worker._job(NAME, _Job(sweep=True))
    await worker._tick(0.0)
    assert nodes.told == [0]
    assert env.killer.writes == writes


async def test_a_deletion_tells_the_nodes_and_does_not_need_them() -> None:
    for is_away in (False, True):
        _, _, env, nodes = await made()
        nodes.is_away = is_away
        await delete_log(env, NAME)
        assert nodes.dropped == [0, 1]


async def test_trimming_what_was_never_sealed_does_not_need_the_nodes() -> None:
    _, log, env, nodes = await made()
    nodes.drops_fail = True
    await log.trim(4)
    assert await drop_trimmed(env, NAME) == 1
    assert nodes.dropped == [0]
    assert (await env.catalog.read(NAME)).anchor.first_segment == 1


async def test_an_import_never_makes_segments_of_nodes(tmp_path, monkeypatch) -> None:
    _, log, env, _ = await made()
    described = export._described  # a file by somebody else may tell more than ours do
    monkeypatch.setattr(
        export, "_described", lambda scan: replace(described(scan), ensemble=ENSEMBLE)
    )
    await export_log(env, NAME, log.log_id, tmp_path / "log")
    await import_log(env, "copy", tmp_path / "log")
    copy = await env.catalog.read("copy")
    assert {segment.kind for segment in copy.segments} == {Kind.OBJECT}
    assert all(segment.ensemble is None for segment in copy.segments)


async def test_describe_shows_members_and_acknowledgements() -> None:
    _, log, _, _ = await made()
    description = await log.describe()
    assert [segment.ensemble for segment in description.segments] == [ENSEMBLE, ENSEMBLE]
