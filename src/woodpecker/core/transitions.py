"""Transitions of the manifest: ``apply(manifest, command) -> manifest | refusal`` (protocol, section 1).

Every change of a log's metadata is one of these, written by one compare-and-swap. Theory:

- A writer owns the log iff (log id, epoch, token) are its own. A version that moved means nothing.
- Segment ids are never used twice; a segment is dropped only if it has no block at all.
- Only the CAS that closes a segment fixes its end E; what follows starts there.
- ``took_effect`` decides about a CAS whose answer was lost: by what the state shows, never by version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from woodpecker.core.commands import (
    AlterLog,
    BuryLog,
    CloseSegment,
    Command,
    CreateLog,
    DropSegments,
    ImportLog,
    OpenSegment,
    OpenWriter,
    Owner,
    Refusal,
    Refused,
    RemoveGrave,
    SealSegment,
    SetTrimPending,
    SpillPage,
    TrimLog,
)
from woodpecker.core.ids import State
from woodpecker.core.manifest import Grave, Manifest, PageRef, Segment
from woodpecker.core.register import EMPTY_REGISTER

Answer = Manifest | Refusal


def apply(manifest: Manifest | None, command: Command) -> Answer:
    """Carry out one command on the state read; the answer is the whole new state, or a refusal."""
    if isinstance(command, CreateLog):
        return _create(manifest, command)
    if isinstance(command, ImportLog):
        return _import(manifest, command)
    if manifest is None:
        return Refusal(why=Refused.NOT_FOUND, detail="no such log")
    if isinstance(command, RemoveGrave):
        return _remove_grave(manifest, command)
    if manifest.is_tombstone:
        return Refusal(why=Refused.NOT_FOUND, detail="the log was deleted")
    owner = _owner_of(command)
    if owner is not None and not manifest.owned_by(owner.log_id, owner.epoch, owner.token):
        return Refusal(
            why=Refused.FENCED,
            detail=f"epoch {manifest.epoch} owns the log, not epoch {owner.epoch}",
        )
    if owner is None and manifest.log_id != getattr(command, "log_id", None):
        return Refusal(why=Refused.NOT_FOUND, detail="the name now belongs to another log")
    return _RULES[type(command)](manifest, command)


def took_effect(manifest: Manifest | None, command: Command) -> bool:
    """Whether ``manifest`` shows the effect of ``command``, sent before by the asker.

    False means "not applied" only if the version has moved since the command's condition was read.
    """
    if manifest is None:
        return False
    effect = _EFFECTS.get(type(command))
    if effect is not None:
        return effect(manifest, command)
    return apply(manifest, command) == manifest  # repeating it would change nothing


def _is_created(manifest: Manifest, command: CreateLog) -> bool:
    return manifest.log_id == command.log_id


def _is_opened(manifest: Manifest, command: OpenWriter) -> bool:
    return manifest.log_id == command.log_id and manifest.token == command.token


def _is_segment_open(manifest: Manifest, command: OpenSegment) -> bool:
    return _owned(manifest, command.owner) and manifest.next_segment_id > command.segment.id


def _is_closed_as_told(manifest: Manifest, command: CloseSegment) -> bool:
    """Only the owner closes, and the owner asks: not OPEN any more means closed as told."""
    if not _owned(manifest, command.owner):
        return False
    for segment in manifest.segments:
        if segment.id == command.segment_id:
            return segment.end is not None and segment.end == command.end
    return command.segment_id < manifest.next_segment_id


def _is_buried(manifest: Manifest, command: BuryLog) -> bool:
    return any(grave.log_id == command.owner.log_id for grave in manifest.graves)


def check(manifest: Manifest) -> str | None:
    """First broken invariant of a manifest in words, or None. Used by tests, verify and the checker."""
    previous: Segment | None = None
    for segment in manifest.segments:
        is_open = segment.state is State.OPEN
        if is_open != (segment.end is None) or (segment.state is State.SEALED) != bool(
            segment.sealed
        ):
            return (
                f"segment {segment.id}: state {segment.state} does not fit its end or sealed object"
            )
        if is_open and segment is not manifest.segments[-1]:
            return f"segment {segment.id} is OPEN but not the last"
        if segment.id >= manifest.next_segment_id or segment.epoch > manifest.epoch:
            return f"segment {segment.id} is from the future"
        if previous is not None and (
            segment.id <= previous.id
            or previous.end is None
            or (segment.base_seq, segment.prev_digest) != (previous.end.seq, previous.end.digest)
        ):
            return f"segment {segment.id} does not follow segment {previous.id}"
        previous = segment
    return _check_tail(manifest)


def _check_tail(manifest: Manifest) -> str | None:
    closed = [s for s in manifest.segments if s.end is not None]
    last = closed[-1].end if closed else None
    if last is not None and (last.seq, last.digest) != (manifest.next_seq, manifest.digest):
        return "next_seq and digest differ from the end of the last closed segment"
    tail = manifest.open_segment
    if tail is not None and tail.base_seq != manifest.next_seq:
        return "the OPEN segment does not start at next_seq"
    if tail is None and manifest.trim_point > manifest.next_seq:
        return "the trim point lies above the end of the log"
    if manifest.anchor.seq > max(manifest.trim_point, 0):
        return "segments above the trim point were dropped"
    return None


# --- the writer's commands -------------------------------------------------------------------------


def _create(manifest: Manifest | None, command: CreateLog) -> Answer:
    if manifest is not None and not manifest.is_tombstone:
        return Refusal(why=Refused.EXISTS, detail=f"log {command.name!r} exists")
    return Manifest(
        name=command.name,
        log_id=command.log_id,
        created_at_ms=command.now_ms,
        options=command.options,
        attributes=dict(command.attributes),
        storages=(command.storage,),
        graves=manifest.graves if manifest is not None else (),
    )


def _import(manifest: Manifest | None, command: ImportLog) -> Answer:
    """The whole manifest was built elsewhere: only its place must be free, and it must be sound."""
    new = command.manifest
    if manifest is not None and not manifest.is_tombstone and not _is_reserved(manifest, new):
        return Refusal(why=Refused.EXISTS, detail=f"log {new.name!r} exists")
    fault = check(new)
    if fault is not None or new.log_id != command.log_id or new.open_segment is not None:
        return Refusal(why=Refused.BROKEN, detail=f"the log to import is not sound: {fault}")
    return replace(new, graves=manifest.graves if manifest is not None else ())


def _is_reserved(manifest: Manifest, new: Manifest) -> bool:
    """An import first writes an empty manifest that counts as being deleted: should it be killed, the
    deletion is finished by whoever finds it. It differs from a real deletion by its epoch, 0.
    """
    return manifest.log_id == new.log_id and manifest.deleting and manifest.epoch == 0


def _open_writer(manifest: Manifest, command: OpenWriter) -> Answer:
    if manifest.epoch != command.seen_epoch:
        return Refusal(
            why=Refused.FENCED, detail=f"another opener took epoch {manifest.epoch} meanwhile"
        )
    if manifest.deleting and not command.to_delete:
        return Refusal(why=Refused.NOT_FOUND, detail="the log is being deleted")
    if manifest.ended and not command.to_delete:
        return Refusal(why=Refused.ENDED, detail=f"the log ended at seq {manifest.next_seq}")
    if not command.to_delete and not _claim_allows(manifest, command):
        return Refusal(
            why=Refused.CLAIM, detail=f"claim {manifest.claim} stands against {command.claim}"
        )
    return replace(
        manifest,
        epoch=manifest.epoch + 1,
        token=command.token,
        claim=command.claim or manifest.claim,
        deleting=manifest.deleting or command.to_delete,
    )


def _claim_allows(manifest: Manifest, command: OpenWriter) -> bool:
    """A claim may not fall, nor pass to another holder at the same number; none is no claim at all."""
    standing, new = manifest.claim, command.claim
    if standing is None or new is None:
        return standing is None or new is not None
    return new.number > standing.number or new == standing


def _open_segment(manifest: Manifest, command: OpenSegment) -> Answer:
    if manifest.open_segment is not None:
        return Refusal(why=Refused.BROKEN, detail="a segment is OPEN already")
    return _append_segment(manifest, command.segment)


def _append_segment(manifest: Manifest, segment: Segment) -> Answer:
    if manifest.ended:
        return Refusal(why=Refused.ENDED, detail=f"the log ended at seq {manifest.next_seq}")
    expected = (manifest.next_segment_id, manifest.next_seq, manifest.digest, manifest.epoch)
    if (segment.id, segment.base_seq, segment.prev_digest, segment.epoch) != expected:
        return Refusal(why=Refused.BROKEN, detail=f"segment {segment} does not follow {expected}")
    if manifest.trim_point > manifest.next_seq:
        return Refusal(
            why=Refused.BROKEN,
            detail=f"trim point {manifest.trim_point} is above next seq {manifest.next_seq}",
        )
    return replace(
        manifest,
        next_segment_id=segment.id + 1,
        segments=(*manifest.segments, replace(segment, state=State.OPEN)),
    )


def _close_segment(manifest: Manifest, command: CloseSegment) -> Answer:
    segment = manifest.open_segment
    if segment is None or segment.id != command.segment_id:
        return Refusal(why=Refused.BROKEN, detail=f"segment {command.segment_id} is not OPEN")
    closed = _drop_empty(manifest, command) if command.end is None else _close_at(manifest, command)
    if isinstance(closed, Refusal) or command.next is None:
        return closed
    return _append_segment(closed, command.next)


def _drop_empty(manifest: Manifest, command: CloseSegment) -> Answer:
    if manifest.trim_point > manifest.next_seq and command.loss is None:
        return Refusal(why=Refused.BROKEN, detail="visible entries vanished from the OPEN segment")
    return replace(
        manifest,
        segments=manifest.segments[:-1],
        trim_point=min(manifest.trim_point, manifest.next_seq),
        losses=manifest.losses + ((command.loss,) if command.loss else ()),
    )


def _close_at(manifest: Manifest, command: CloseSegment) -> Answer:
    segment, end = manifest.segments[-1], command.end
    assert end is not None
    if end.seq < segment.base_seq or (manifest.trim_point > end.seq and command.loss is None):
        return Refusal(
            why=Refused.BROKEN, detail=f"end {end} of {segment} lies below what was seen"
        )
    closed = replace(
        segment,
        state=State.CLOSED,
        end=end,
        bytes=command.bytes,
        first_timestamp_us=command.first_timestamp_us,
        last_timestamp_us=command.last_timestamp_us,
        closed_at_ms=command.now_ms,
    )
    return replace(
        manifest,
        segments=(*manifest.segments[:-1], closed),
        next_seq=end.seq,
        digest=end.digest,
        timestamp_us=max(manifest.timestamp_us, command.last_timestamp_us),
        register=EMPTY_REGISTER if command.register_key else command.register,
        register_key=command.register_key,
        ended=manifest.ended or command.ended,
        trim_point=min(manifest.trim_point, end.seq),
        losses=manifest.losses + ((command.loss,) if command.loss else ()),
    )


def _bury(manifest: Manifest, command: BuryLog) -> Answer:
    if not manifest.deleting:
        return Refusal(why=Refused.BROKEN, detail="a log is buried only by its deletion")
    if manifest.open_segment is not None and not command.forced:
        return Refusal(why=Refused.BROKEN, detail="the OPEN segment is not fenced yet")
    grave = Grave(log_id=manifest.log_id, deleted_at_ms=command.now_ms, storages=manifest.storages)
    return Manifest(
        name=manifest.name,
        log_id=manifest.log_id,
        created_at_ms=manifest.created_at_ms,
        epoch=manifest.epoch,
        token=manifest.token,
        storages=manifest.storages,
        next_segment_id=manifest.next_segment_id,
        next_seq=manifest.next_seq,
        deleting=True,
        deleted_at_ms=command.now_ms,
        graves=(*manifest.graves, grave),
    )


# --- background and administration -----------------------------------------------------------------


def _seal(manifest: Manifest, command: SealSegment) -> Answer:
    for index, segment in enumerate(manifest.segments):
        if segment.id == command.segment_id:
            return _seal_at(manifest, index, command)
        if segment.state is not State.SEALED:
            return Refusal(why=Refused.STALE, detail=f"segment {segment.id} comes first")
    return Refusal(why=Refused.STALE, detail=f"segment {command.segment_id} is gone")


def _seal_at(manifest: Manifest, index: int, command: SealSegment) -> Answer:
    segment = manifest.segments[index]
    if segment.end != command.end:
        return Refusal(why=Refused.STALE, detail=f"segment {segment.id} ends at {segment.end}")
    if segment.state is State.SEALED:
        return manifest  # somebody else did it; its object has the same content
    sealed = replace(segment, state=State.SEALED, sealed=command.sealed)
    return replace(
        manifest, segments=(*manifest.segments[:index], sealed, *manifest.segments[index + 1 :])
    )


def _set_trim_pending(manifest: Manifest, command: SetTrimPending) -> Answer:
    if command.before <= manifest.trim_point:
        return manifest
    return replace(manifest, trim_pending=command.before, trim_token=command.token)


def _trim(manifest: Manifest, command: TrimLog) -> Answer:
    if command.before > max(manifest.next_seq, command.visible):
        return Refusal(
            why=Refused.BROKEN, detail=f"seq {command.before} was not seen as readable yet"
        )
    if command.token is not None and command.token != manifest.trim_token:
        return Refusal(why=Refused.STALE, detail="another retention run has begun meanwhile")
    trim_point = max(manifest.trim_point, command.before)
    trimmed = replace(manifest, trim_point=trim_point)
    pending = manifest.trim_pending
    if command.token is None and (pending is None or pending > trim_point):
        return trimmed
    return replace(trimmed, trim_pending=None, trim_token="")


def _drop_segments(manifest: Manifest, command: DropSegments) -> Answer:
    first = command.anchor.first_segment
    if first <= manifest.anchor.first_segment:
        return manifest
    kept = tuple(s for s in manifest.segments if s.id >= first)
    dropped = manifest.segments[: len(manifest.segments) - len(kept)]
    if command.anchor.seq > manifest.trim_point or any(s.end is None for s in dropped):
        return Refusal(why=Refused.BROKEN, detail="only trimmed, closed segments can be dropped")
    pages = tuple(p for p in manifest.pages if p.last_segment >= first)
    return replace(manifest, anchor=command.anchor, segments=kept, pages=pages)


def _spill(manifest: Manifest, command: SpillPage) -> Answer:
    page = command.page
    if any(p.key == page.key for p in manifest.pages):
        return manifest
    if page.level > 0:
        return _spill_pages(manifest, page)
    covered = [s for s in manifest.segments if page.first_segment <= s.id <= page.last_segment]
    if (
        not covered
        or covered[0] is not manifest.segments[0]
        or covered[0].id != page.first_segment
        or covered[-1].id != page.last_segment
        or any(s.state is not State.SEALED for s in covered)
    ):
        return Refusal(why=Refused.STALE, detail="the page does not cover the oldest segments")
    return replace(
        manifest, pages=(*manifest.pages, page), segments=manifest.segments[len(covered) :]
    )


def _spill_pages(manifest: Manifest, page: PageRef) -> Answer:
    """Fold a run of pages into one of the next level; the run must be exactly what it covers."""
    run = [
        i
        for i, p in enumerate(manifest.pages)
        if page.first_segment <= p.first_segment and p.last_segment <= page.last_segment
    ]
    if (
        not run
        or manifest.pages[run[0]].first_segment != page.first_segment
        or manifest.pages[run[-1]].last_segment != page.last_segment
        or any(manifest.pages[i].level >= page.level for i in run)
    ):
        return Refusal(why=Refused.STALE, detail="the page does not cover a run of pages")
    pages = (*manifest.pages[: run[0]], page, *manifest.pages[run[-1] + 1 :])
    return replace(manifest, pages=pages)


def _alter(manifest: Manifest, command: AlterLog) -> Answer:
    storages, storage = manifest.storages, manifest.storage
    if command.storage is not None:
        if command.storage not in storages:
            storages = (*storages, command.storage)
        storage = storages.index(command.storage)
    return replace(
        manifest,
        options=command.options,
        attributes=dict(command.attributes),
        storages=storages,
        storage=storage,
    )


def _remove_grave(manifest: Manifest, command: RemoveGrave) -> Answer:
    return replace(manifest, graves=tuple(g for g in manifest.graves if g.log_id != command.log_id))


# --- helpers ---------------------------------------------------------------------------------------


def _owner_of(command: Command) -> Owner | None:
    match command:
        case OpenSegment(owner=owner) | CloseSegment(owner=owner) | BuryLog(owner=owner):
            return owner
        case _:
            return None


def _owned(manifest: Manifest, owner: Owner) -> bool:
    return manifest.owned_by(owner.log_id, owner.epoch, owner.token)


_RULES: dict[type[Any], Callable[[Manifest, Any], Answer]] = {
    OpenWriter: _open_writer,
    OpenSegment: _open_segment,
    CloseSegment: _close_segment,
    SealSegment: _seal,
    SetTrimPending: _set_trim_pending,
    TrimLog: _trim,
    DropSegments: _drop_segments,
    SpillPage: _spill,
    AlterLog: _alter,
    BuryLog: _bury,
}

_EFFECTS: dict[type[Any], Callable[[Manifest, Any], bool]] = {
    CreateLog: _is_created,
    OpenWriter: _is_opened,
    OpenSegment: _is_segment_open,
    CloseSegment: _is_closed_as_told,
    BuryLog: _is_buried,
}
