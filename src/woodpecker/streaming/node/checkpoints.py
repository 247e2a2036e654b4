"""Checkpoints of a pchannel: the fold at an acknowledged border, as an immutable object of its log.

The object is durable and was read back before the record names it. The record keeps the two newest; its
seq only grows, so a stale owner's checkpoint, true but older, changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from woodpecker import Log
from woodpecker.errors import Corrupt, NotFound, OutOfRange, WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.codec.checkpoint import decoding, digest_of, encoding
from woodpecker.streaming.codec.records import CHECKPOINTS
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.records import CheckpointRef, CheckpointsRecord
from woodpecker.streaming.metadata.store import StreamRecords
from woodpecker.streaming.node.pieces import pieces_of

KEPT = 2
PREFIX = "checkpoints/"
Done = TypeVar("Done")

_log = logging.getLogger("woodpecker.streaming")


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far an opening has come, in entries of the log."""

    done: int = 0
    total: int = 0


async def in_steps(runtime: Runtime, work: Generator[None, None, Done]) -> Done:
    """What ``work`` returns; others have their turn after each of its steps."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            done: Done = end.value
            return done
        await runtime.sleep_ms(0)


async def load_checkpoint(records: StreamRecords, log: Log, runtime: Runtime) -> Fold:
    """The newest checkpoint that can be read; an empty fold if there never was one.

    Raises: Corrupt: there are some, and none can be read. Unavailable, InvalidRequest (a newer version).
    """
    for _ in range(2):  # a newer one may have replaced what the record said
        record = (await records.load(CHECKPOINTS.key(log.log_id))).record
        if record is None or not record.checkpoints:
            return Fold()
        for ref in record.checkpoints:
            try:
                data = await _read(log, ref)
                return await in_steps(runtime, _decoding(data, log, ref))
            except (Corrupt, NotFound) as error:
                _log.error("log %s: a checkpoint cannot be used: %s", log.name, error)
    raise Corrupt(f"log {log.name!r}: none of its checkpoints can be read", where=log.name)


async def _read(log: Log, ref: CheckpointRef) -> memoryview:
    """Its bytes as they were written. Raises: Corrupt, NotFound, Unavailable."""
    data = memoryview(await log.objects.get(ref.object))
    if digest_of(data) != ref.digest:
        where = _where(log, ref)
        raise Corrupt(f"{where}: its bytes are not those that were written", where=where)
    return data


def _decoding(data: memoryview, log: Log, ref: CheckpointRef) -> Generator[None, None, Fold]:
    where = _where(log, ref)
    fold = yield from decoding(data, where=where)
    if fold.next_seq != ref.seq:
        raise Corrupt(f"{where} is of seq {fold.next_seq}, not {ref.seq}", where=where)
    return fold


def _where(log: Log, ref: CheckpointRef) -> str:
    return f"log {log.name!r} checkpoint {ref.object}"


async def fold_rest(log: Log, fold: Fold, end: int, progress: Progress) -> None:
    """Fold what the log holds above the checkpoint, up to ``end``. Columns are read, payloads not looked at.

    Raises: Corrupt: it does not follow, or the log was trimmed above the checkpoint: never an empty table. **P**
    Unavailable, InvalidRequest (a newer version).
    """
    begin = fold.next_seq
    progress.total = end - begin
    if begin == end:
        return
    try:
        async with log.read_batches(begin, end, follow=True) as batches:
            async for batch in batches:
                for piece in pieces_of(batch, log.name):
                    fold.apply(piece.facts)
                progress.done = fold.next_seq - begin
    except OutOfRange as error:
        raise Corrupt(
            f"log {log.name!r} was trimmed up to seq {error.earliest}, its newest checkpoint is of seq "
            f"{begin}: what was between is lost",
            where=log.name,
        ) from error
    if fold.next_seq != end:
        raise Corrupt(
            f"log {log.name!r} ends at seq {end}, its batches at {fold.next_seq}", where=log.name
        )


def name_of(seq: int, token: str) -> str:
    """Name of the object of a checkpoint; ``token``: never used before."""
    return f"{PREFIX}{seq:020d}-{token}"


async def sweep_checkpoints(log: Log, record: CheckpointsRecord) -> None:
    """Delete objects of openers that died before the record named them, or after it forgot them.

    Only below the oldest checkpoint named: whoever still writes one there is refused by its seq.
    Raises: Unavailable and the like.
    """
    named = {ref.object for ref in record.checkpoints}
    if len(named) < KEPT:
        return
    bound = name_of(record.checkpoints[-1].seq, "")
    found = [one.name for one in await log.objects.list(PREFIX)]
    await log.objects.delete(*(name for name in found if name < bound and name not in named))


async def _unreadable(records: StreamRecords, log: Log) -> str:
    """The object of the newest checkpoint, if it cannot be read: as the older one it would be of no use. **P**"""
    record = (await records.load(CHECKPOINTS.key(log.log_id))).record
    if record is None or not record.checkpoints:
        return ""
    try:
        await _read(log, record.checkpoints[0])
    except (Corrupt, NotFound):
        return record.checkpoints[0].object
    return ""


async def write_checkpoint(
    records: StreamRecords, log: Log, runtime: Runtime, fold: Fold, name: str, *, is_first: bool
) -> CheckpointsRecord:
    """Make ``fold``, which nobody else changes, the newest checkpoint.

    Args:
        name: of an object that never was there.
        is_first: of this life: what the one before left as its newest is read again.

    Raises: Unavailable, OutcomeUnknown: try again later. Corrupt: it could not be read back.
    """
    data = await in_steps(runtime, encoding(fold))
    ref = CheckpointRef(
        seq=fold.next_seq,
        low=fold.low,
        object=name,
        digest=digest_of(data),
        size=len(data),
        term=fold.term,
    )
    await log.objects.put(name, data)
    await _read(log, ref)
    bad = await _unreadable(records, log) if is_first else ""
    dropped: tuple[CheckpointRef, ...] = ()

    def decide(found: CheckpointsRecord | None) -> CheckpointsRecord:
        nonlocal dropped
        kept = () if found is None else found.checkpoints
        if any(other.object == name for other in kept):
            assert found is not None
            return found
        if kept and kept[0].seq >= ref.seq:
            dropped = (ref,)  # a newer owner's is there
            assert found is not None
            return found
        kept = tuple(sorted(kept, key=lambda other: other.object == bad))  # a bad one goes first
        dropped = kept[KEPT - 1 :]
        return CheckpointsRecord(checkpoints=(ref, *kept[: KEPT - 1]))

    written = await records.change(CHECKPOINTS.key(log.log_id), decide)
    try:
        await log.objects.delete(*(other.object for other in dropped))
    except WoodpeckerError as error:
        _log.warning("log %s: old checkpoints stay for now: %s", log.name, error)
    return written.record
