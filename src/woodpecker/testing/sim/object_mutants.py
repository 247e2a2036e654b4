"""Mutants of kind ``object`` and of the drivers that all kinds share (see ``mutants.py``)."""

# ruff: noqa: SLF001, ARG001, ARG005  it reaches into what it breaks

from __future__ import annotations

from dataclasses import replace
from typing import Any

from woodpecker.client import pump, retention, sealing, sessions, takeover, writer
from woodpecker.codec import endmark, keys
from woodpecker.core import collect as collect_rules
from woodpecker.core import commands, fence_walk, outcomes, transitions
from woodpecker.core import object_append as rules
from woodpecker.core.ids import State
from woodpecker.core.manifest import Manifest
from woodpecker.core.object_append import Acknowledge, Create, Found, Pipeline
from woodpecker.errors import AlreadyExists, Conflict, Fenced, OutcomeUnknown
from woodpecker.metadata import catalog
from woodpecker.segments import object as object_kind
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.object_reader import ObjectSource
from woodpecker.segments.object_writer import ObjectSegmentWriter
from woodpecker.testing.sim.mutants import Patches, mutant

# --- the writer's pipeline -----------------------------------------------------------------------------


@mutant("blocks are acknowledged strictly in order", "object")
def ack_out_of_order() -> Patches:
    stored = rules._stored

    def hasty(pipeline: Pipeline, number: int) -> Any:
        if number == pipeline.mark or rules._is_over(pipeline, number):
            return stored(pipeline, number)
        after = replace(pipeline, acked=pipeline.acked + 1)
        return after, (Acknowledge(first=number, until=number + 1),)

    return [(rules, "_stored", hasty)]


@mutant("a block is acknowledged once the store has it, not when it is handed over", "object")
def ack_when_sent() -> Patches:
    advance = ObjectSegmentWriter._advance

    def hasty(self: Any, event: rules.Event) -> None:
        advance(self, event)
        if isinstance(event, rules.Submit) and event.number in self._sent:
            future = self._sent[event.number].future
            if not future.done():
                future.set_result(None)

    return [(ObjectSegmentWriter, "_advance", hasty)]


@mutant("an unclear PUT is read back: what is mine is stored", "object")
def own_put_taken_for_a_rivals() -> Patches:
    look = ObjectSegmentWriter._look

    async def blind(self: Any, number: int) -> Found:
        found = await look(self, number)
        return Found.FOREIGN if found is Found.MINE else found

    return [(ObjectSegmentWriter, "_look", blind)]


@mutant("a mark is never an answer by itself: the manifest decides", "object")
def mark_answers_by_itself() -> Patches:
    judged = rules._judged

    def hasty(pipeline: Pipeline, number: int, found: Found, fate: Any) -> Any:
        if found is Found.MARK and not rules._is_over(pipeline, number):
            return rules._fail(pipeline, number, number)
        return judged(pipeline, number, found, fate)

    return [(rules, "_judged", hasty)]


@mutant("a create that met something else is not a success", "object")
def exists_means_stored() -> Patches:
    async def create(self: Any, number: int) -> None:
        try:
            await self._objects.create(self._key(number), self._sent[number].data)
        except AlreadyExists:
            self._advance(rules.Stored(number=number))
        except Exception:  # noqa: BLE001
            self._advance(rules.Unclear(number=number))
        else:
            self._advance(rules.Stored(number=number))

    return [(ObjectSegmentWriter, "_create", create)]


@mutant("a manifest that cannot be read is unknown, never fenced", "object")
def unreadable_means_fenced() -> Patches:
    async def impatient(self: Any, number: int, ask: Any) -> Any:
        try:
            return await ask()
        except Exception:  # noqa: BLE001
            return Manifest(name="?", log_id="?", created_at_ms=0, options=None, attributes={})  # type: ignore[arg-type]

    async def judge(self: Any, number: int) -> None:
        found = await patiently(self, number, lambda: self._look(number))
        if found is None:
            return
        manifest = (
            None if found is Found.MINE else await impatient(self, number, self._read_manifest)
        )
        fate = None if manifest is None else self._fate(manifest)
        self._advance(rules.Judged(number=number, found=found, fate=fate))

    patiently = ObjectSegmentWriter._patiently
    return [(ObjectSegmentWriter, "_judge", judge)]


@mutant(
    "a live close waits until everything sent is acknowledged, and sends nothing meanwhile",
    "object",
)
def close_without_drain() -> Patches:
    step = rules.step

    async def drain(self: Any) -> None:
        return

    def lax(pipeline: Pipeline, event: rules.Event) -> Any:
        if isinstance(event, rules.Finish) and not pipeline.failed:
            return replace(pipeline, mark=event.number), (Create(number=event.number),)
        return step(pipeline, event)

    return [(pump.Pump, "drain", drain), (rules, "step", lax)]


@mutant("a live close puts its end mark before the closing CAS", "object")
def live_close_without_mark() -> Patches:
    async def finish(self: Any, end: Any) -> None:
        if self._ended is not None:
            raise self._ended

    return [(ObjectSegmentWriter, "finish", finish)]


# --- take-over -----------------------------------------------------------------------------------------


@mutant("a taker-over puts a mark before it fixes the end", "object")
def recovery_does_not_fence() -> Patches:
    def step(walk: Any, event: Any) -> Any:
        if isinstance(event, fence_walk.Listed):
            at = 0
            while at in event.blocks:
                at += 1
            return walk, fence_walk.Ended(count=at)
        return real(walk, event)

    real = fence_walk.step
    return [(fence_walk, "step", step)]


@mutant("the first mark met ends the walk, whoever put it", "object")
def foreign_mark_walked_over() -> Patches:
    looked = fence_walk._looked

    def over(walk: Any, seen: Any) -> Any:
        if seen is fence_walk.Seen.MARK and not walk.ahead:
            return replace(walk, at=walk.at + 1), fence_walk.Mark(number=walk.at + 1)
        return looked(walk, seen)

    return [(fence_walk, "_looked", over)]


@mutant("only the contiguous prefix of blocks counts", "object")
def end_behind_a_gap() -> Patches:
    step = fence_walk.step

    def lax(walk: Any, event: Any) -> Any:
        if isinstance(event, fence_walk.Listed) and event.blocks:
            at = max(event.blocks) + 1
            effect: Any = fence_walk.Mark(number=at)
            if at in event.marks:
                effect = fence_walk.Look(number=at)
            return replace(walk, at=at), effect
        return step(walk, event)

    return [(fence_walk, "step", lax)]


@mutant("E is the last block found, not one before it", "object")
def end_one_too_early() -> Patches:
    run = object_kind._Walker.run

    async def shorter(self: Any) -> int:
        return max(0, await run(self) - 1)

    return [(object_kind._Walker, "run", shorter)]


@mutant("the register is folded up to E before the first append", "object")
def register_not_folded() -> Patches:
    return [(takeover, "fold", lambda register, facts: register)]


@mutant("segment ids are never used again", "object")
def empty_segment_reused() -> Patches:
    drop = transitions._drop_empty

    def give_back(manifest: Manifest, command: Any) -> Any:
        after = drop(manifest, command)
        if isinstance(after, Manifest):
            return replace(after, next_segment_id=command.segment_id)
        return after

    return [(transitions, "_drop_empty", give_back)]


@mutant("a writer owns the log by log id, epoch and token, not by epoch alone", "object")
def owned_by_epoch_alone() -> Patches:
    def owned(self: Manifest, log_id: str, epoch: int, token: str) -> bool:
        return self.epoch == epoch

    return [(Manifest, "owned_by", owned)]


@mutant("every opener raises the epoch", "object")
def epoch_not_raised() -> Patches:
    opened = transitions._open_writer

    def same(manifest: Manifest, command: Any) -> Any:
        after = opened(manifest, command)
        if isinstance(after, Manifest) and manifest.epoch:
            return replace(after, epoch=manifest.epoch)
        return after

    return [(transitions._RULES, commands.OpenWriter, same)]


# --- compare-and-swap ----------------------------------------------------------------------------------


@mutant("a version that moved means: read again, not: fenced", "object")
def conflict_means_fenced() -> Patches:
    async def write(self: Any, after: Manifest, data: bytes, version: str | None) -> Any:
        self._sent = True
        try:
            await self._catalog.store.put(keys.manifest(self._name), data, expect=version)
        except Conflict:
            raise Fenced(f"{self._name}: somebody else changed it", outcome="unknown") from None
        except OutcomeUnknown:
            self._is_unknown = True
            raise
        return after

    return [(catalog._Change, "_write", write)]


@mutant("after a lost answer the effect in the state read back decides", "object")
def lost_answer_means_refused() -> Patches:
    return [(catalog, "took_effect", lambda manifest, command: False)]


# --- background ----------------------------------------------------------------------------------------


@mutant("end marks stay as long as their log lives", "object")
def end_mark_deleted_by_gc() -> Patches:
    drop = object_kind.ObjectSegments.drop

    async def all_of_it(self: Any, ref: SegmentRef, *, keep_fence: bool) -> None:
        await drop(self, ref, keep_fence=False)

    return [(object_kind.ObjectSegments, "drop", all_of_it)]


@mutant("blocks go only after the manifest shows their segment SEALED", "object")
def blocks_deleted_before_sealed() -> Patches:
    seal = sealing.write_sealed

    async def eager(env: Any, manifest: Manifest, segment: Any) -> Any:
        done = await seal(env, manifest, segment)
        ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
        await env.store_of(manifest, segment).drop(ref, keep_fence=True)
        return done

    return [(sealing, "write_sealed", eager)]


@mutant(
    "an object goes only if no command can ever refer to it, not when nothing names it yet",
    "object",
)
def sweep_deletes_what_is_not_named() -> Patches:
    sealed = collect_rules.Collector._sealed

    def eager(self: Any, item: Any) -> bool:
        segment = self._inline.get(item.segment_id)
        return sealed(self, item) or (segment is not None and segment.sealed is None)

    return [(collect_rules.Collector, "_sealed", eager)]


@mutant(
    "a segment is dropped only if it has no block, and one without entries is a block", "object"
)
def control_blocks_dropped() -> Patches:
    close = takeover.close_at

    async def lax(
        env: Any, name: str, manifest: Manifest, owner: Any, found: Any, *rest: Any
    ) -> Any:
        segment = manifest.open_segment
        if found.end is not None and segment is not None and found.end.seq == segment.base_seq:
            found = object_kind.NOTHING
        return await close(env, name, manifest, owner, found, *rest)

    return [(takeover, "close_at", lax)]


@mutant("retention publishes what it means to trim before it reads the cursors", "object")
def trim_without_intention() -> Patches:
    async def trim(env: Any, manifest: Manifest, before: int, visible: int) -> Manifest:
        target, _ = await retention._held(env, manifest, before)
        return await retention._change(env, manifest, target, visible)

    return [(retention, "_trim_held", trim)]


@mutant("a trim with hold goes no further than the lowest cursor", "object")
def trim_passes_cursors() -> Patches:
    async def held(env: Any, manifest: Manifest, before: int) -> tuple[int, None]:
        return before, None

    return [(retention, "_held", held)]


# --- readers and answers -------------------------------------------------------------------------------


@mutant("the tail is the end of the contiguous prefix of blocks", "object")
def tail_behind_a_gap() -> Patches:
    async def count(self: Any, known: int) -> int:
        if self._end is not None:
            return int(self._end.block + 1)
        found, prefix = known, keys.segment_prefix(self._ref.log_id, self._ref.segment.id)
        async for page in self._objects.list(prefix):
            for info in page:
                if not endmark.is_mark_size(info.size):
                    found = max(found, keys.parse_block(info.key)[2] + 1)
        return found

    return [(ObjectSource, "_count", count)]


@mutant("resolve says nothing while nobody has closed the segment", "object")
def resolve_judges_an_open_segment() -> Patches:
    judge = outcomes.judge

    def hasty(segment: Any, *, token: str, seq: int) -> outcomes.Known:
        if segment is not None and segment.state is State.OPEN:
            return outcomes.Known.NOT_WRITTEN
        return judge(segment, token=token, seq=seq)

    return [(writer, "judge", hasty)]


@mutant("what had been handed to a store is unknown, not NotWritten", "object")
def unknown_called_not_written() -> Patches:
    fenced = ObjectSegmentWriter._fenced

    def sure(self: Any, number: int, proven: int | None) -> Fenced:
        return fenced(self, number, 0)

    return [(ObjectSegmentWriter, "_fenced", sure)]


@mutant("expect_seq is judged when the seq is given out", "object")
def expect_seq_not_checked() -> Patches:
    return [(writer.LogWriter, "_check_expected", lambda self, expect_seq: None)]


@mutant("a repeated batch of a producer has the first one's result", "object")
def repeat_written_again() -> Patches:
    def forget(self: Any, mark: Any) -> None:
        return None

    return [(sessions.Sessions, "repeat_of", forget)]
