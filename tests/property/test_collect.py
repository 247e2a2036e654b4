"""No object that is referred to, or can still come to be, is ever deleted; whatever the order of steps.

Workers prepare objects and send their commands later, as stale as can be; the sweeper lists, judges by
a later manifest, and deletes later still. Mutants of the rules must be caught.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.core import collect
from woodpecker.core.collect import (
    BlockItem,
    Collector,
    FileItem,
    Item,
    PageItem,
    RegisterItem,
    SealedItem,
)
from woodpecker.core.commands import (
    CloseSegment,
    Command,
    CreateLog,
    DropSegments,
    OpenSegment,
    OpenWriter,
    Owner,
    SealSegment,
    SpillPage,
    TrimLog,
)
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import Anchor, End, Manifest, Options, PageRef, Sealed, Segment
from woodpecker.core.register import EMPTY_REGISTER
from woodpecker.core.transitions import apply, check

LOG = "a" * 32
WALKS = 3_000  # of random walks in which a mutant must fail; the hardest needs a few hundred
WALK_STEPS = 150


def pick(items: list[Any], number: int) -> Any:
    return items[number % len(items)]


class Gone(AssertionError):
    """A page that the manifest looked at names is not there."""


class World:
    """One log, its objects by key, commands under way, sweeps under way. ``arg`` decides details."""

    def __init__(self, collector: type[Collector] = Collector, *, is_stale: bool = False) -> None:
        self.collector = collector
        self.is_stale = is_stale
        self.objects: dict[object, Item] = {}
        self.pages: dict[str, tuple[Segment | PageRef, ...]] = {}
        self.blocks: dict[int, int] = {}  # written in order, by segment
        self.marks: set[object] = set()
        self.pending: list[Command] = []
        self.stale: list[Manifest] = []  # what workers have read
        self.listed: list[dict[object, Item]] = []
        self.doomed: list[list[object]] = []
        self.digests = 0

        made = apply(
            None, CreateLog(name="a", log_id=LOG, now_ms=1, options=Options(), attributes={})
        )
        assert isinstance(made, Manifest)
        self.manifest = made
        self.take_over(0)

    def digest(self) -> str:
        self.digests += 1
        return f"{self.digests:032x}"

    def commit(self, command: Command) -> bool:
        after = apply(self.manifest, command)
        if isinstance(after, Manifest):
            self.manifest = after
            return True
        return False

    @property
    def owner(self) -> Owner:
        return Owner(log_id=LOG, epoch=self.manifest.epoch, token=self.manifest.token)

    # --- the writer and its rivals ---

    def take_over(self, arg: int) -> None:
        seen = self.manifest.epoch
        assert self.commit(OpenWriter(log_id=LOG, seen_epoch=seen, token=self.digest()))

    def open_segment(self, arg: int) -> None:
        number, manifest = self.manifest.next_segment_id, self.manifest
        for token in (["overtaken"] if arg & 1 else []) + [manifest.token]:
            self.objects["file", number, token] = FileItem(segment_id=number, token=token)
        self.commit(
            OpenSegment(
                owner=self.owner,
                segment=Segment(
                    id=number, kind=Kind.FILE, state=State.OPEN, epoch=manifest.epoch,
                    token=manifest.token, base_seq=manifest.next_seq, prev_digest=manifest.digest,
                ),
            )
        )  # fmt: skip

    def write(self, arg: int) -> None:
        """The next block; or a late one that leaves a hole and is never acknowledged."""
        segment, stray = self.manifest.open_segment, max(0, arg % 5 - 2)
        if segment is None:
            return
        count = self.blocks.setdefault(segment.id, 0)
        if ("block", segment.id, count) in self.marks:
            return
        item = BlockItem(segment_id=segment.id, number=count + stray, is_mark=False)
        if ("block", segment.id, count + stray) not in self.objects:
            self.objects["block", segment.id, count + stray] = item
        self.blocks[segment.id] += stray == 0

    def prepare_close(self, arg: int) -> None:
        """Fence, make safe (perhaps by upload), store the register; the CAS comes later, or never."""
        segment, has_register, uploads = self.manifest.open_segment, arg & 1, arg & 2
        if segment is None:
            return
        count = self.blocks.get(segment.id, 0)
        while ("block", segment.id, count) in self.objects.keys() - self.marks:
            count += 1  # the walk includes a block it meets
        self.blocks[segment.id] = count
        mark = ("block", segment.id, count)
        self.marks.add(mark)
        self.objects[mark] = BlockItem(segment_id=segment.id, number=count, is_mark=True)
        key = None
        if has_register:
            key = f"end-{segment.id}-{self.digest()}"
            self.objects[key] = RegisterItem(key=key, segment_id=segment.id, is_anchor=False)
        end = End(block=count - 1, seq=segment.base_seq + count, digest=f"{segment.id:032x}")
        if uploads and count:
            self.upload(segment.id, end)
        self.pending.append(
            CloseSegment(
                owner=self.owner, segment_id=segment.id, end=end if count else None, bytes=1,
                first_timestamp_us=0, last_timestamp_us=0, now_ms=0, register=EMPTY_REGISTER,
                register_key=key,
            )
        )  # fmt: skip

    # --- background workers, as stale as can be ---

    def look(self, arg: int) -> None:
        self.stale.append(self.manifest)

    def upload(self, segment_id: int, end: End) -> str:
        key = f"sealed-{segment_id}-{end.seq}-{end.digest}"
        self.objects[key] = SealedItem(segment_id=segment_id, end_seq=end.seq, digest=end.digest)
        return key

    def seen(self, number: int) -> Manifest:
        views = [*self.stale, self.manifest]
        return views[number % len(views)]

    def prepare_seal(self, arg: int) -> None:
        """Upload; then the command. Blocks must still be there, or the upload fails."""
        closed = [s for s in self.seen(arg // 2).segments if s.state is State.CLOSED]
        if not closed:
            return
        segment = closed[0]
        assert segment.end is not None
        if arg & 1:  # of an attempt that had chosen another E
            self.upload(segment.id, End(block=0, seq=segment.end.seq, digest=self.digest()))
        if any(("block", segment.id, n) not in self.objects for n in range(segment.end.block + 1)):
            return
        key = self.upload(segment.id, segment.end)
        self.pending.append(
            SealSegment(
                log_id=LOG, segment_id=segment.id, end=segment.end,
                sealed=Sealed(key=key, size=1, checksum=""),
            )
        )  # fmt: skip

    def prepare_spill(self, arg: int) -> None:
        size = 1 + arg % 3
        items = self.seen(arg // 3).segments[:size]
        if len(items) == size and all(s.sealed is not None for s in items):
            self.store_page(0, items)

    def prepare_fold(self, arg: int) -> None:
        first, size = arg % 2, 1 + arg // 2 % 2
        items = self.seen(arg // 4).pages[first : first + size]
        if len(items) == size and len({page.level for page in items}) == 1:
            self.store_page(items[0].level + 1, items)

    def store_page(self, level: int, items: tuple[Segment | PageRef, ...]) -> None:
        first = min(i.first_segment if isinstance(i, PageRef) else i.id for i in items)
        last = max(i.last_segment if isinstance(i, PageRef) else i.id for i in items)
        key = f"page-{level}-{first}-{last}-{hash(items)}"  # named by its content
        self.objects[key] = PageItem(key=key, level=level, first_segment=first, last_segment=last)
        self.pages[key] = items
        page = PageRef(
            key=key, level=level, first_segment=first, last_segment=last,
            base_seq=items[0].base_seq, end_seq=0, bytes=1, last_timestamp_us=0, digest="",
        )  # fmt: skip
        self.pending.append(SpillPage(log_id=LOG, page=page))

    def trim(self, arg: int) -> None:
        ends = [s.end.seq for s in self.all_segments(self.manifest) if s.end is not None]
        if ends:
            before = pick(ends, arg)
            self.commit(TrimLog(log_id=LOG, before=before, visible=self.manifest.next_seq))

    def prepare_drop(self, arg: int) -> None:
        seen, has_register = self.seen(arg // 2), arg & 1
        try:
            kept = self.all_segments(seen)
        except Gone:
            return  # an old view: read the manifest again
        trimmed = [s for s in kept if s.end is not None and s.end.seq <= seen.trim_point]
        if not trimmed:
            return
        last = trimmed[-1]
        assert last.end is not None
        key = None
        if has_register:
            key = (
                f"anchor-{last.id + 1}-{last.end.digest}"  # same content, same key: may be adopted
            )
            self.objects[key] = RegisterItem(key=key, segment_id=last.id + 1, is_anchor=True)
        anchor = Anchor(
            first_segment=last.id + 1, seq=last.end.seq, digest=last.end.digest, register_key=key
        )
        self.pending.append(DropSegments(log_id=LOG, anchor=anchor))

    def send(self, arg: int) -> None:
        """One of the commands under way arrives; or arrives again."""
        if self.pending:
            self.commit(pick(self.pending, arg))

    def send_newest(self, arg: int) -> None:
        """As it mostly is."""
        if self.pending:
            self.commit(self.pending[-1])

    # --- the sweep ---

    def list_objects(self, arg: int) -> None:
        self.listed.append(dict(self.objects))

    def judge(self, arg: int) -> None:
        if not self.listed:
            return
        listed = pick(self.listed, arg // 2)
        manifest = self.seen(arg) if self.is_stale else self.manifest
        upper = self.inner_pages(manifest) if arg & 1 else None
        collector = self.collector(manifest, upper)
        self.doomed.append([key for key, item in listed.items() if collector.is_garbage(item)])

    def delete(self, arg: int) -> None:
        for key in pick(self.doomed, arg) if self.doomed else ():
            self.objects.pop(key, None)

    def sweep(self, arg: int) -> None:
        """All three at once."""
        self.list_objects(arg)
        self.listed[-1], self.listed[0] = self.listed[0], self.listed[-1]
        self.judge(arg & 1)
        self.doomed[0] = self.doomed[-1]
        self.delete(0)

    # --- what must hold ---

    def inner_pages(self, manifest: Manifest) -> dict[str, PageRef]:
        found: dict[str, PageRef] = {}
        todo = list(manifest.pages)
        while todo:
            for item in self.pages[todo.pop().key]:
                if isinstance(item, PageRef):
                    found[item.key] = item
                    todo.append(item)
        return found

    def all_segments(self, manifest: Manifest) -> list[Segment]:
        found: list[Segment] = []
        todo: list[Segment | PageRef] = [*manifest.segments[::-1], *manifest.pages[::-1]]
        while todo:
            item = todo.pop()
            if isinstance(item, PageRef):
                if item.last_segment >= manifest.anchor.first_segment:
                    if item.key not in self.objects:
                        raise Gone(item.key)
                    todo.extend(self.pages[item.key][::-1])
            elif item.id >= manifest.anchor.first_segment:
                found.append(item)
        return found

    def nothing_needed_is_gone(self) -> None:
        manifest = self.manifest
        assert check(manifest) is None
        assert self.marks <= self.objects.keys()
        for key in (manifest.register_key, manifest.anchor.register_key):
            assert key is None or key in self.objects
        for segment in self.all_segments(manifest):
            if segment.sealed is not None:
                assert segment.sealed.key in self.objects
                continue
            assert ("file", segment.id, segment.token) in self.objects
            count = self.blocks.get(segment.id, 0) if segment.end is None else segment.end.block + 1
            for number in range(count):
                assert ("block", segment.id, number) in self.objects

    def nothing_is_left_over(self) -> None:
        """Once nobody works any more, a sweep leaves only what is needed, marks, and what might
        still be prepared for an OPEN segment.
        """
        self.pending.clear()
        self.listed.clear()
        self.doomed.clear()
        self.sweep(1)
        self.nothing_needed_is_gone()
        needed = {page.key for page in self.manifest.pages} | set(self.inner_pages(self.manifest))
        for key, item in self.objects.items():
            if isinstance(item, PageItem) and item.first_segment < self.oldest_inline:
                assert key in needed, key
            is_over = getattr(item, "segment_id", 0) < self.manifest.next_segment_id
            if isinstance(item, SealedItem | FileItem) and is_over:
                assert item.segment_id in {s.id for s in self.all_segments(self.manifest)}

    @property
    def oldest_inline(self) -> int:
        inline = self.manifest.segments
        return inline[0].id if inline else self.manifest.next_segment_id

    def walk(self, steps: bytes) -> None:
        """Two bytes a step."""
        for op, arg in zip(steps[::2], steps[1::2], strict=False):
            STEPS[op % len(STEPS)](self, arg)
            self.nothing_needed_is_gone()


STEPS: list[Callable[[World, int], None]] = [
    World.take_over, *[World.open_segment] * 2, *[World.write] * 4, *[World.prepare_close] * 2,
    World.look, *[World.prepare_seal] * 2, World.prepare_spill, World.prepare_fold, World.trim,
    World.prepare_drop, *[World.send] * 3, *[World.send_newest] * 5, World.list_objects,
    World.judge, World.delete, World.sweep,
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=2 * WALK_STEPS))
def test_nothing_needed_is_ever_deleted(steps: bytes) -> None:
    world = World()
    world.walk(steps)
    world.nothing_is_left_over()


def test_walks_reach_what_they_are_about() -> None:
    """Random walks see pages in pages, dropped segments, registers, and sweeps that delete."""
    chance = random.Random(7)
    levels, anchors, deleted = set(), set(), 0
    for _ in range(600):
        world = World()
        world.walk(chance.randbytes(2 * WALK_STEPS))
        levels |= {page.level for page in world.manifest.pages}
        anchors.add(world.manifest.anchor.register_key is not None)
        deleted += sum(map(len, world.doomed))
    assert levels >= {0, 1}
    assert anchors == {False, True}
    assert deleted > 1_000


class _RegisterByReference(Collector):
    def _register(self, item: RegisterItem) -> bool:
        return item.key not in (self._manifest.register_key, self._manifest.anchor.register_key)


class _PageByReference(Collector):
    def _page(self, item: PageItem) -> bool:
        return all(page.key != item.key for page in self._manifest.pages)


class _PageSoonToBeSpilled(Collector):
    def _may_be_spilled(self, item: PageItem) -> bool:
        return False


class _SealedByReference(Collector):
    def _sealed(self, item: SealedItem) -> bool:
        return all(
            s.sealed is None or s.id != item.segment_id for s in self._manifest.segments
        ) and not self._is_paged(item.segment_id)


class _BlocksOfClosed(Collector):
    def _block(self, item: BlockItem) -> bool:
        segment = self._inline.get(item.segment_id)
        return not item.is_mark and (segment is None or segment.end is not None)


class _MarksToo(Collector):
    def _block(self, item: BlockItem) -> bool:
        return super()._block(
            collect.BlockItem(segment_id=item.segment_id, number=item.number, is_mark=False)
        )


class _FilesOfThePrepared(Collector):
    def _file(self, item: FileItem) -> bool:
        return item.segment_id not in self._inline


@pytest.mark.parametrize(
    "mutant",
    [
        _RegisterByReference, _PageByReference, _PageSoonToBeSpilled, _SealedByReference,
        _BlocksOfClosed, _MarksToo, _FilesOfThePrepared,
    ],
)  # fmt: skip
def test_a_rule_left_out_is_caught(mutant: type[Collector]) -> None:
    assert first_failure(lambda: World(mutant)) is not None


def test_the_verdict_of_an_older_manifest_is_right_too() -> None:
    """The facts used never change back, so that even a sweeper that reads too early does no harm."""
    assert first_failure(lambda: World(is_stale=True), walks=500) is None


def first_failure(make: Callable[[], World], walks: int = WALKS) -> int | None:
    """Number of the first random walk that breaks an invariant."""
    chance = random.Random(1)
    for number in range(walks):
        try:
            make().walk(chance.randbytes(2 * WALK_STEPS))
        except AssertionError:
            return number
    return None
