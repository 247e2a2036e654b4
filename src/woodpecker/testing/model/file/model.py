"""Kind ``file`` as a model: a writer that may be stopped, parked or dead, takers, sealing, power failure.

``core/file_rules.py`` gives the order of a write and the plan of a take-over. Around them: one file whose
blocks may be in the page cache, in the cache of the drive, or on the disk; the two words of the side file;
the lock; a manifest. All numbers count blocks: "written 2" means that blocks 0 and 1 are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from woodpecker.core import file_rules
from woodpecker.core.file_rules import UNIT_BYTES, Act, Position, Step
from woodpecker.core.ids import State

Move = tuple[str, "World"]
NOBODY, WRITER, SEALER = "", "writer", "sealer"
IDLE, DEAD, PARKED = "idle", "dead", "parked"
RETURN = ("file", "lock", "side file", "fence")  # what a parked writer looks at, in this order


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Each rule that the model can be run without."""

    first_step: Step = Step.WRITE
    after: Callable[..., Step] = file_rules.after
    takeover_plan: Callable[..., tuple[Act, ...] | None] = file_rules.takeover_plan
    cuts_published: Callable[[Position, int], bool] = file_rules.cuts_published
    scans_page_cache: bool = False
    seals_in_place_without_lock: bool = False
    looks_when_it_returns: tuple[str, ...] = RETURN
    retries_sync: bool = False


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How big the world is, and what may happen in it."""

    blocks: int = 2
    takers: int = 1
    parks: bool = False  # the writer may let go of its files
    failures: int = 0  # syncs that fail
    power_cuts: int = 0
    damages: int = 0  # newest blocks that become unreadable, while the machine runs
    side_file_lost: bool = False  # somebody removes it

    def __str__(self) -> str:
        parts = [f"{self.blocks} blocks, {self.takers} taker{'' if self.takers == 1 else 's'}"]
        parts += ["parking"] if self.parks else []
        parts += [f"{self.failures} failed sync"] if self.failures else []
        parts += ["a power cut"] if self.power_cuts else []
        parts += ["a damaged block"] if self.damages else []
        parts += ["side file removed"] if self.side_file_lost else []
        return ", ".join(parts)


class Writer(NamedTuple):
    """``step``: where it is in writing block ``acked``; or IDLE, PARKED, DEAD; or what it looks at."""

    step: str = IDLE
    acked: int = 0


class Taker(NamedTuple):
    """``plan``: acts left; None before it has one. ``found``: blocks in its scan."""

    phase: str = IDLE  # idle, taken, acting, closing, done
    plan: tuple[Act, ...] | None = None
    published: int = 0  # as read before the scan
    found: int = 0


class World(NamedTuple):
    """Everything. ``written`` >= ``on_drive`` >= ``durable``."""

    takers: tuple[Taker, ...]
    writer: Writer = Writer()
    written: int = 0
    on_drive: int = 0
    durable: int = 0
    is_clean: bool = (
        False  # a sync failed: what is written only is clean, and never reaches the drive
    )
    fence: bool = False
    published: int = 0
    has_side_file: bool = True
    lock: str = WRITER
    boots: int = 0
    failures: int = 0
    damages: int = 0
    shown: int = 0
    owner: str = WRITER
    state: State | None = State.OPEN
    end: int | None = None
    is_sealed_in_place: bool = False
    is_destroyed: bool = False  # the sealed object was written over


class FileModel:
    """See the module. ``setup``: how big; ``rules``: those in force."""

    def __init__(self, setup: Setup, rules: Rules = RULES) -> None:
        self._setup = setup
        self._rules = rules

    # --- as the checker sees it ---

    def starts(self) -> Iterable[World]:
        yield World(takers=(Taker(),) * self._setup.takers)

    def canonical(self, state: World) -> World:
        return state

    def tell(self, before: World, move: str, after: World) -> str:
        return move

    def moves(self, state: World) -> Iterator[Move]:
        yield from self._writer(state)
        for index, taker in enumerate(state.takers):
            yield from self._taker(state, index, taker)
            if taker.phase == IDLE:
                break  # they are alike: let them begin in order
        yield from self._afterwards(state)
        yield from self._faults(state)

    def fault(self, state: World) -> str | None:
        if state.is_destroyed:
            return "the sealed object was written over"
        acked = state.writer.acked
        if not state.damages and acked > state.durable:
            return f"{acked} blocks were acknowledged, {state.durable} are on the disk"
        if state.end is None:
            return None
        if acked > state.end:
            return f"{acked} blocks were acknowledged, the log has {state.end}"
        if state.shown > state.end:
            return f"{state.shown} blocks were shown to readers, the log has {state.end}"
        if state.durable < state.end:
            return f"the log has {state.end} blocks, {state.durable} are on the disk"
        return None

    # --- the writer ---

    def _writer(self, world: World) -> Iterator[Move]:
        writer, parks = world.writer, self._setup.parks
        match writer.step:
            case "dead":
                return
            case "idle":
                if writer.acked < self._setup.blocks:
                    begun = writer._replace(step=self._rules.first_step)
                    yield f"the writer begins block {writer.acked}", world._replace(writer=begun)
                if parks:
                    parked = writer._replace(step=PARKED)
                    yield "the writer parks", world._replace(writer=parked, lock=NOBODY)
            case "parked":
                looks = self._rules.looks_when_it_returns
                back = writer._replace(step=looks[0] if looks else IDLE)
                yield "the parked writer wants to write", world._replace(writer=back)
            case step if step in RETURN:
                yield self._returns(world, step)
            case step:
                yield from self._writes(world, Step(step))
        yield "the writer is killed", _killed(world)

    def _returns(self, world: World, look: str) -> Move:
        """One look of a parked writer that comes back."""
        is_good = {
            "file": True,
            "lock": world.lock == NOBODY,
            "side file": world.has_side_file,
            "fence": not world.fence,
        }[look]
        if not is_good:
            return f"the writer looks at its {look}: it is fenced", _killed(world)
        looks = self._rules.looks_when_it_returns
        following = [*looks, IDLE][looks.index(look) + 1]
        after = world._replace(writer=world.writer._replace(step=following))
        if look == "lock":
            after = after._replace(lock=WRITER)
        return f"the writer looks at its {look}: all is well", after

    def _writes(self, world: World, step: Step) -> Iterator[Move]:
        """One step of writing a block, and what may go wrong with it."""
        number = world.writer.acked
        after = self._rules.after
        match step:
            case Step.WRITE:
                done = world._replace(written=max(world.written, number + 1))
                if world.is_sealed_in_place:
                    done = done._replace(is_destroyed=True)
                yield f"block {number} is written", _at(done, after(step, ok=True))
            case Step.SYNC:
                on_drive = world.on_drive if world.is_clean else world.written
                synced = world._replace(on_drive=on_drive, durable=on_drive)
                yield f"block {number} is synced", _at(synced, after(step, ok=True))
                if world.failures < self._setup.failures:
                    failed = world._replace(failures=world.failures + 1, is_clean=True)
                    again = Step.SYNC if self._rules.retries_sync else after(step, ok=False)
                    yield f"the sync of block {number} fails", _at(failed, again)
            case Step.LOOK:
                word = "fenced" if world.fence else "clear"
                yield f"the fence word is {word}", _at(world, after(step, ok=not world.fence))
            case Step.PUBLISH:
                shown = world._replace(published=number + 1)
                yield f"block {number} is published", _at(shown, after(step, ok=True))

    # --- takers ---

    def _taker(self, world: World, index: int, taker: Taker) -> Iterator[Move]:
        name = "AB"[index]
        match taker.phase:
            case "idle" if world.state is State.OPEN:
                begun = taker._replace(phase="taken")
                yield f"taker {name} raises the epoch", _with(world, index, begun, owner=name)
            case "taken":
                yield self._plans(world, index, taker, name)
            case "acting":
                assert taker.plan
                yield from self._acts(world, index, taker, name)
            case "closing":
                done = _with(world, index, taker._replace(phase="done"))
                if done.lock == name:
                    done = done._replace(lock=NOBODY)
                if done.owner == name and done.state is State.OPEN:
                    state = State.CLOSED if taker.found else None
                    done = done._replace(state=state, end=taker.found)
                yield f"the CAS of taker {name}: {taker.found} blocks", done

    def _plans(self, world: World, index: int, taker: Taker, name: str) -> Move:
        is_locked = world.lock == NOBODY
        plan = self._rules.takeover_plan(
            is_locked=is_locked, is_same_boot=not world.boots, is_side_sound=world.has_side_file
        )
        if plan is None:
            after = taker._replace(phase="done")
            return f"taker {name} cannot fence the writer from here", _with(world, index, after)
        after = taker._replace(phase="acting", plan=plan)
        locked = world._replace(lock=name) if is_locked else world
        lock = "has the lock" if is_locked else "has no lock"
        return f"taker {name} {lock}, and will {', '.join(plan)}", _with(locked, index, after)

    def _acts(self, world: World, index: int, taker: Taker, name: str) -> Iterator[Move]:
        assert taker.plan
        act, rest = taker.plan[0], taker.plan[1:]
        after = taker._replace(plan=rest, phase="acting" if rest else "closing")
        match act:
            case Act.FENCE:
                world = world._replace(fence=True)
            case Act.BARRIER:
                pass
            case Act.SCAN:
                yield from self._scans(world, index, after, name)
                return
            case Act.SYNC:
                if world.failures < self._setup.failures:
                    failed = world._replace(failures=world.failures + 1, is_clean=True)
                    gone = _with(failed, index, taker._replace(phase="done"))
                    yield f"the sync of taker {name} fails: it gives up", gone
                world = world._replace(durable=world.on_drive)
        yield f"taker {name}: {act}", _with(world, index, after)

    def _scans(self, world: World, index: int, after: Taker, name: str) -> Iterator[Move]:
        """Reading past the page cache: the kernel first writes out what is dirty."""
        published = world.published if world.has_side_file and not world.boots else 0
        if not world.is_clean:
            world = world._replace(on_drive=world.written)
        found = world.written if self._rules.scans_page_cache else world.on_drive
        place = Position(offset=found * UNIT_BYTES, block=found, seq=found, digest=b"")
        if self._rules.cuts_published(place, published * UNIT_BYTES):
            refused = _with(world, index, after._replace(phase="done"))
            yield f"taker {name} finds {found} blocks, fewer than were published: Corrupt", refused
            return
        yield f"taker {name} finds {found} blocks", _with(world, index, after._replace(found=found))

    # --- readers, sealing, and what may go wrong ---

    def _afterwards(self, world: World) -> Iterator[Move]:
        shown = min(world.published, world.written)
        if not world.boots and shown > world.shown:
            yield f"a reader is shown {shown} blocks", world._replace(shown=shown)
        if world.state is State.CLOSED:
            is_free = world.lock == NOBODY or self._rules.seals_in_place_without_lock
            sealed = world._replace(state=State.SEALED, is_sealed_in_place=is_free)
            how = "in place" if is_free else "by copying"
            yield f"the segment is sealed {how}", sealed

    def _faults(self, world: World) -> Iterator[Move]:
        setup = self._setup
        if world.boots < setup.power_cuts:
            for left in range(world.durable, world.on_drive + 1):
                yield f"the power fails; {left} blocks are on the disk", self._rebooted(world, left)
        is_unread = all(taker.phase in (IDLE, "taken") for taker in world.takers)
        is_published = (
            0 < world.durable <= world.published
        )  # nothing else is promised to be noticed
        if world.damages < setup.damages and is_published and is_unread:
            left = world.durable - 1
            yield (
                f"block {left} becomes unreadable",
                world._replace(
                    damages=world.damages + 1, written=left, on_drive=left, durable=left
                ),
            )
        if setup.side_file_lost and world.has_side_file:
            yield "somebody removes the side file", world._replace(has_side_file=False)

    def _rebooted(self, world: World, left: int) -> World:
        """Nobody lives, both words are void, takers begin again."""
        takers = tuple(
            taker if taker.phase in (IDLE, "done") else Taker(phase="done")
            for taker in world.takers
        )
        return world._replace(
            boots=world.boots + 1,
            writer=world.writer._replace(step=DEAD),
            takers=takers,
            written=left,
            on_drive=left,
            durable=left,
            is_clean=False,
            lock=NOBODY,
        )


def _at(world: World, step: Step) -> World:
    """The world with the writer at a step; at the last one the block is acknowledged, or it ends."""
    writer = world.writer
    if step is Step.ACKNOWLEDGED:
        return world._replace(writer=Writer(step=IDLE, acked=writer.acked + 1))
    if step.is_end:
        return _killed(world)
    return world._replace(writer=writer._replace(step=step))


def _killed(world: World) -> World:
    """The writer is gone, and its lock with it."""
    lock = NOBODY if world.lock == WRITER else world.lock
    return world._replace(writer=world.writer._replace(step=DEAD), lock=lock)


def _with(world: World, index: int, taker: Taker, **changes: object) -> World:
    takers = (*world.takers[:index], taker, *world.takers[index + 1 :])
    return world._replace(takers=takers, **changes)  # type: ignore[arg-type]
