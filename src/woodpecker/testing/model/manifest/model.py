"""The manifest as a model: openers, writers, sealers, trimmers, deleters at once, each CAS lost or late.

``core/transitions.py`` decides what becomes of the record; ``took_effect`` what became of a CAS whose answer
was lost. Around them: the record with its version, CASes that arrive late, the loop of
``metadata/catalog.py``, and a storage of segments that can be fenced at once (how the kinds do that is for
their own models). Each block holds one entry and is acknowledged when it is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from woodpecker.core.commands import (
    BuryLog,
    Command,
    CreateLog,
    DropSegments,
    OpenSegment,
    OpenWriter,
    Refusal,
    Refused,
    SealSegment,
    TrimLog,
)
from woodpecker.core.ids import State
from woodpecker.core.manifest import Anchor, Manifest, Options, Sealed
from woodpecker.core.retention import droppable
from woodpecker.core.transitions import check
from woodpecker.testing.model.checker import Broken
from woodpecker.testing.model.manifest.state import (
    RULES,
    STALE,
    Actor,
    Change,
    Me,
    Rules,
    Sent,
    Setup,
    Values,
    World,
)
from woodpecker.testing.model.manifest.storage import (
    cell_of,
    changed,
    closing,
    lost,
    next_segment,
    overlap,
    sealed_item,
)

Move = tuple[str, World]
NAME = "log"
ENDED = "ended"
"""Where an actor stops that has done its part, was fenced, or was refused."""


class ManifestModel:
    """See the module. ``setup``: who takes part; ``rules``: those in force."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        self._setup = setup
        self._rules = rules
        self._values = Values()
        self._applied = cache(self._apply)
        self._has_effect = cache(self._took_effect)
        self._fault_of = cache(lambda number: check(self._values.manifests[number]))

    # --- as the checker sees it ---

    def starts(self) -> Iterable[World]:
        create = CreateLog(name=NAME, log_id="L0", now_ms=0, options=Options(), attributes={})
        manifest = self._applied(None, self._values.command(create))
        assert isinstance(manifest, int)
        actors = (Actor(),) * len(self._setup.cast)
        yield World(actors=actors, manifest=manifest, version=1)

    def canonical(self, state: World) -> World:
        """Versions only grow: all that matters of one is whether it is the current one."""
        if self._rules.deletion_removes_the_record:
            return state
        actors = tuple(_aged(actor, state.version) for actor in state.actors)
        awaited = {
            Sent(STALE, actor.change.after)
            for actor in actors
            if actor.change is not None and actor.change.after is not None
        }
        sent = frozenset(Sent(0, m.after) for m in state.sent if m.version == state.version)
        landed = frozenset(Sent(STALE, message.after) for message in state.landed) & awaited
        return state._replace(actors=actors, version=0, sent=sent, landed=landed)

    def tell(self, before: World, move: str, after: World) -> str:
        return move

    def moves(self, state: World) -> Iterator[Move]:
        for index, actor in enumerate(state.actors):
            who = self._who(index)
            if actor.change is not None:
                yield from self._changes(state, index, actor, actor.change, who)
                if self._rules.writes_after_choosing_end and actor.at == "closed":
                    yield from self._appends(state, index, actor, who)
            elif actor.at != ENDED:
                yield from self._acts(state, index, actor, who)
        for message in sorted(state.sent):
            if message.version == state.version:
                landed = state._replace(
                    manifest=message.after,
                    version=state.version + 1,
                    sent=state.sent - {message},
                    landed=state.landed | {message},
                )
                yield "a CAS lands", landed

    def fault(self, state: World) -> str | None:
        if state.manifest is None:
            return None
        broken = self._fault_of(state.manifest)
        if broken is not None:
            return f"the manifest contradicts itself: {broken}"
        manifest = self._values.manifests[state.manifest]
        for cell in state.cells:
            text = lost(manifest, cell) or overlap(cell, state.cells)
            if text is not None:
                return text
        for segment in manifest.segments:
            if segment.sealed is not None and sealed_item(segment) not in state.objects:
                return f"the manifest names an object of segment {segment.id} that is not there"
        return None

    def _who(self, index: int) -> str:
        return f"{self._setup.cast[index]} {index}"

    # --- a change, as metadata/catalog.py makes it ---

    def _changes(
        self, world: World, index: int, actor: Actor, change: Change, who: str
    ) -> Iterator[Move]:
        if not change.is_sent:
            yield self._looks(world, index, actor, change, who)
            return
        assert change.version is not None and change.after is not None
        message = Sent(change.version, change.after)
        if message in world.landed:
            yield (
                f"{who} hears that its CAS was applied",
                self._done(world, index, actor, change.after),
            )
        elif world.version != change.version:
            if self._rules.conflict_is_fenced:
                gone = actor._replace(at="fenced", change=None)
                yield f"{who} hears of a conflict: fenced", _with(world, index, gone)
            else:
                again = actor._replace(change=change._replace(is_sent=False))
                yield f"{who} hears of a conflict", _with(world, index, again)
        waiting = actor._replace(change=change._replace(is_sent=False))
        yield f"{who} gets no answer to its CAS", _with(world, index, waiting)

    def _looks(self, world: World, index: int, actor: Actor, change: Change, who: str) -> Move:
        """Read, then decide by effect, else send: the same bytes while the version stands."""
        manifest = world.manifest
        if change.version is not None and self._has_effect(manifest, change.command):
            assert manifest is not None
            return f"{who} reads the effect of its CAS", self._done(world, index, actor, manifest)
        if change.version != world.version:
            after = self._applied(manifest, change.command)
            if isinstance(after, Refusal):
                return f"{who} is refused: {after.detail}", self._refused(
                    world, index, actor, after
                )
            if after == manifest:
                return f"{who} finds nothing to change", self._done(world, index, actor, after)
            change = change._replace(version=world.version, after=after)
        assert change.version is not None and change.after is not None
        sent = world._replace(sent=world.sent | {Sent(change.version, change.after)})
        waiting = actor._replace(change=change._replace(is_sent=True))
        return f"{who} sends its CAS", _with(sent, index, waiting)

    def _apply(self, manifest: int | None, command: int) -> int | Refusal:
        before = None if manifest is None else self._values.manifests[manifest]
        after = self._rules.apply(before, self._values.commands[command])
        return after if isinstance(after, Refusal) else self._values.manifest(after)

    def _took_effect(self, manifest: int | None, command: int) -> bool:
        state = None if manifest is None else self._values.manifests[manifest]
        return self._rules.took_effect(state, self._values.commands[command])

    def _done(self, world: World, index: int, actor: Actor, manifest: int) -> World:
        """The change is made; ``manifest`` shows it."""
        if actor.at == "closed" and actor.opened == self._setup.segments:
            actor = actor._replace(at=ENDED)
        return _with(world, index, actor._replace(change=None, manifest=manifest))

    def _refused(self, world: World, index: int, actor: Actor, refusal: Refusal) -> World:
        if refusal.why is Refused.BROKEN:
            raise Broken(f"refused as contradictory: {refusal.detail[:60]}", move="refused")
        return _with(world, index, actor._replace(change=None, at=ENDED))

    def _begin(self, world: World, index: int, actor: Actor, command: Command, at: str) -> World:
        """Begin a change; the actor goes on at ``at`` once it is made."""
        change = Change(self._values.command(command))
        return _with(world, index, actor._replace(change=change, at=at))

    # --- the parts ---

    def _acts(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        part = self._setup.cast[index]
        if part == "writer":
            yield from self._writes(world, index, actor, who)
        elif part == "deleter":
            yield from self._deletes(world, index, actor, who)
        elif part == "collector":
            yield from self._collects(world, index, actor, who)
        elif part == "creator":
            yield from self._creates(world, index, actor, who)
        elif actor.at == "start" and world.manifest is not None:
            manifest = self._values.manifests[world.manifest]
            steps = {"sealer": self._seals, "trimmer": self._trims, "dropper": self._drops}
            yield from steps[part](world, index, actor, who, manifest)

    def _writes(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        match actor.at:
            case "start":
                yield from self._opens(world, index, actor, who, to_delete=False)
            case "opened":
                yield self._takes_over(world, index, actor, who, "closed")
            case "closed":
                if actor.opened < self._setup.segments:
                    assert actor.manifest is not None and actor.me is not None
                    manifest = self._values.manifests[actor.manifest]
                    segment = next_segment(manifest, actor.me)
                    begun = actor._replace(segment=segment.id, base=segment.base_seq, written=0)
                    command = OpenSegment(owner=actor.me.owner(), segment=segment)
                    yield (
                        f"{who} wants to open segment {segment.id}",
                        self._begin(world, index, begun, command, "writing"),
                    )
            case "writing":
                yield from self._appends(world, index, actor, who)
                yield from self._closes(world, index, actor, who)
            case "fenced":
                yield self._is_told_fenced(world, index, actor, who)

    def _opens(
        self, world: World, index: int, actor: Actor, who: str, *, to_delete: bool
    ) -> Iterator[Move]:
        if world.manifest is None:
            return
        manifest = self._values.manifests[world.manifest]
        if manifest.is_tombstone:
            return
        token = self._rules.token(who)
        me = Me(manifest.log_id, manifest.epoch + 1, token)
        command = OpenWriter(
            log_id=manifest.log_id, seen_epoch=manifest.epoch, token=token, to_delete=to_delete
        )
        begun = actor._replace(me=me)
        yield (
            f"{who} reads the manifest and wants epoch {me.epoch}",
            self._begin(world, index, begun, command, "opened"),
        )

    def _takes_over(self, world: World, index: int, actor: Actor, who: str, at: str) -> Move:
        """Fence the OPEN segment and find its end; then the closing CAS."""
        assert actor.manifest is not None and actor.me is not None
        manifest = self._values.manifests[actor.manifest]
        segment = manifest.open_segment
        if segment is None:
            return f"{who} finds no OPEN segment", _with(world, index, actor._replace(at=at))
        cell = cell_of(world, manifest.log_id, segment.id)
        count = 0 if cell is None else cell.held
        fenced = world
        if count or self._rules.fences_empty_segments:
            fenced = changed(world, manifest.log_id, segment.id, segment.base_seq, is_fenced=True)
        command = closing(actor.me, segment, count)
        return (
            f"{who} fences segment {segment.id}, which has {count} blocks",
            self._begin(fenced, index, actor, command, at),
        )

    def _appends(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        me, segment = actor.me, actor.segment
        if me is None or segment is None or actor.written >= self._setup.blocks:
            return
        cell = cell_of(world, me.log_id, segment)
        if cell is not None and cell.is_fenced:
            gone = actor._replace(at=ENDED, change=None)
            yield f"{who} finds its segment fenced", _with(world, index, gone)
            return
        if cell is not None and cell.writer not in ("", who):
            raise Broken(
                f"{who} writes to segment {segment}, where {cell.writer} has written",
                move=f"{who} writes block {actor.written} of segment {segment}",
            )
        stored = changed(world, me.log_id, segment, actor.base, writer=who, held=actor.written + 1)
        written = actor._replace(written=actor.written + 1)
        yield (
            f"{who} stores block {actor.written} of segment {segment}: acknowledged",
            _with(stored, index, written),
        )

    def _closes(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        """A live close; the last block has been acknowledged, and nothing is sent any more."""
        if not actor.written:
            return
        assert actor.manifest is not None and actor.me is not None
        manifest = self._values.manifests[actor.manifest]
        segment = manifest.open_segment
        assert segment is not None and segment.id == actor.segment
        closed = actor._replace(opened=actor.opened + 1)
        command = closing(actor.me, segment, actor.written)
        move = f"{who} chooses end {actor.written} for segment {segment.id}"
        yield move, self._begin(world, index, closed, command, "closed")
        if closed.opened < self._setup.segments:
            assert command.end is not None
            following = replace(
                segment,
                id=manifest.next_segment_id,
                base_seq=command.end.seq,
                prev_digest=command.end.digest,
            )
            rolled = closed._replace(segment=following.id, base=following.base_seq, written=0)
            roll = replace(command, next=following)
            yield f"{move}, and rolls", self._begin(world, index, rolled, roll, "writing")

    def _is_told_fenced(self, world: World, index: int, actor: Actor, who: str) -> Move:
        assert world.manifest is not None and actor.me is not None
        manifest = self._values.manifests[world.manifest]
        move = f"{who} reports Fenced"
        if manifest.owned_by(*actor.me):
            raise Broken("a writer gave up as fenced, and the log is its own", move=move)
        return move, _with(world, index, actor._replace(at=ENDED))

    def _deletes(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        match actor.at:
            case "start":
                yield from self._opens(world, index, actor, who, to_delete=True)
            case "opened":
                yield self._takes_over(world, index, actor, who, "closed")
            case "closed":
                assert actor.me is not None
                command = BuryLog(owner=actor.me.owner(), now_ms=0)
                yield f"{who} wants to bury it", self._begin(world, index, actor, command, "buried")
            case "buried" if self._rules.deletion_removes_the_record:
                removed = world._replace(manifest=None, version=0)
                yield f"{who} removes the record", _with(removed, index, actor._replace(at=ENDED))

    def _creates(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        now = None if world.manifest is None else self._values.manifests[world.manifest]
        if actor.at == "start" and (now is None or now.is_tombstone):
            command = CreateLog(name=NAME, log_id="L1", now_ms=0, options=Options(), attributes={})
            yield f"{who} creates the log anew", self._begin(world, index, actor, command, ENDED)

    def _seals(
        self, world: World, index: int, actor: Actor, who: str, manifest: Manifest
    ) -> Iterator[Move]:
        for segment in manifest.segments:
            if segment.state is State.CLOSED:
                assert segment.end is not None
                item = sealed_item(segment)
                sealed = Sealed(key=f"{segment.id}", size=1, checksum="0")
                command = SealSegment(
                    log_id=manifest.log_id, segment_id=segment.id, end=segment.end, sealed=sealed
                )
                uploaded = world._replace(objects=world.objects | {item})
                yield (
                    f"{who} uploads segment {segment.id}",
                    self._begin(uploaded, index, actor, command, ENDED),
                )

    def _trims(
        self, world: World, index: int, actor: Actor, who: str, manifest: Manifest
    ) -> Iterator[Move]:
        """Up to the tail that it has seen as readable."""
        segment = manifest.open_segment
        cell = segment and cell_of(world, manifest.log_id, segment.id)
        visible = manifest.next_seq + (cell.held if cell else 0)
        if visible and not manifest.is_tombstone:
            command = TrimLog(log_id=manifest.log_id, before=visible, visible=visible)
            move = f"{who} wants to trim up to {visible}"
            yield move, self._begin(world, index, actor, command, ENDED)

    def _drops(
        self, world: World, index: int, actor: Actor, who: str, manifest: Manifest
    ) -> Iterator[Move]:
        dropped = droppable(manifest)
        if dropped:
            last = dropped[-1]
            assert last.end is not None
            anchor = Anchor(first_segment=last.id + 1, seq=last.end.seq, digest=last.end.digest)
            command = DropSegments(log_id=manifest.log_id, anchor=anchor)
            move = f"{who} wants to forget segments below {anchor.first_segment}"
            yield move, self._begin(world, index, actor, command, ENDED)

    def _collects(self, world: World, index: int, actor: Actor, who: str) -> Iterator[Move]:
        """List first, then read the manifest, then delete."""
        if actor.at == "start":
            if world.objects:
                listed = actor._replace(at="listed", listed=world.objects)
                yield f"{who} lists {len(world.objects)} objects", _with(world, index, listed)
            return
        assert world.manifest is not None
        if actor.at == "listed":
            read = actor._replace(at="read", manifest=world.manifest)
            yield f"{who} reads the manifest", _with(world, index, read)
        elif actor.at == "read":
            assert actor.manifest is not None
            manifest = self._values.manifests[actor.manifest]
            done = _with(world, index, actor._replace(at=ENDED))
            if not manifest.is_tombstone and not manifest.deleting:
                doomed = {i for i in actor.listed if self._rules.deletes(manifest, i)}
                done = done._replace(objects=done.objects - doomed)
                yield f"{who} deletes {len(doomed)} objects", done


def _aged(actor: Actor, version: int) -> Actor:
    """The actor with versions as the current one (0) or a stale one; with no past once it has ended."""
    if actor.change is None:
        return Actor(at=ENDED) if actor.at == ENDED else actor
    known = actor.change.version
    if known is None:
        return actor
    return actor._replace(change=actor.change._replace(version=0 if known == version else STALE))


def _with(world: World, index: int, actor: Actor) -> World:
    return world._replace(actors=(*world.actors[:index], actor, *world.actors[index + 1 :]))
