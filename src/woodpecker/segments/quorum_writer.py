"""Writer of one segment of kind ``quorum``: carries out the effects of ``core/quorum_append.py``.

It has no task and no timer of its own: answers drive it, and ``quorum_watch.py`` looks after all writers
of a client. A block is kept until every member that is not lost has it; what the slowest members lack
is bounded in bytes, then they are given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from woodpecker.codec.block import PackedBlock
from woodpecker.core import quorum_append as rules
from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.manifest import End, Ensemble, Manifest, Segment
from woodpecker.core.object_append import Fate
from woodpecker.core.replica import Target
from woodpecker.errors import (
    Closed,
    Fenced,
    NotWritten,
    OutcomeUnknown,
    Overloaded,
    WoodpeckerError,
)
from woodpecker.segments.base import ReadManifest
from woodpecker.segments.quorum_links import Peer
from woodpecker.segments.quorum_pipe import Pipe
from woodpecker.segments.quorum_watch import Watch

CUT_BYTES = 512 << 10  # half of that costs a tenth of the throughput, twice that gains nothing
WINDOW_BYTES = 16 << 20  # not acknowledged
PRESSED_WINDOW_BYTES = 1 << 20  # ... where a member is above its soft watermark: slow down
WINDOW_BLOCKS = 512
BEHIND_BYTES = 32 << 20  # acknowledged, and kept for members that lack them
SMALL_SEGMENT_BYTES = 64 << 20  # of two members: not much should depend on so few
PRESSED_SEGMENT_BYTES = 8 << 20  # where a member is above its soft watermark: seal early
LATE_MS = 3_000.0  # a member that has left a block unanswered for so long is to be replaced
NO_LIMIT_BYTES = 1 << 62


@dataclass(slots=True)
class _Block:
    """A block that some member may still lack."""

    buffer: memoryview
    future: asyncio.Future[None]
    end_seq: int
    since_ms: float


class QuorumSegmentWriter:
    """See the port, ``SegmentWriter``.

    Attributes:
        ensemble: its members, by the index that ``pipeline`` uses.
        manifest: the log's, without its segments: what placement needs to know.
        pipeline: state by the rules.
        visible_seq: the seq after the last entry that is confirmed.
    """

    cut_bytes = CUT_BYTES
    partial_slots = 2
    bytes_left = NO_LIMIT_BYTES

    def __init__(
        self,
        watch: Watch,
        peers: tuple[Peer, ...],
        *,
        manifest: Manifest,
        segment: Segment,
        ensemble: Ensemble,
        read_manifest: ReadManifest,
        timeout_ms: int,
    ) -> None:
        self.name = manifest.name
        self.log_id = manifest.log_id
        self.ensemble = ensemble
        self.manifest = replace(manifest, segments=(), pages=())
        self.pipeline = rules.start(len(peers), ensemble.acks)
        self.visible_seq = segment.base_seq
        self.on_roll: Callable[[], None] | None = None
        self._watch = watch
        self._segment = segment
        self._read_manifest = read_manifest
        self._timeout_ms = timeout_ms
        self._pipes = tuple(
            Pipe(self, index, peer, self._target(index)) for index, peer in enumerate(peers)
        )
        self._blocks: dict[int, _Block] = {}  # kept, by number; consecutive up to ``pipeline.sent``
        self._first = 0  # number of the first one kept
        self._resolved = NO_BLOCK  # number of the last one whose future is done
        self._kept_bytes = 0
        self._open_bytes = 0  # of these, not acknowledged
        self._behind_bytes = 0  # the others, as the watch counts them
        self._total_bytes = 0  # ever submitted
        self._sent_ms = 0.0  # when the last block was submitted
        self._missing = frozenset(pipe.index for pipe in self._pipes if not pipe.is_up)
        self._has_begun = False
        self._is_leaving = False  # the watch wants the segment closed
        self._why = ""  # what ended it
        self._ended: WoodpeckerError | None = None  # what blocks submitted later fail with
        self._judging: asyncio.Task[None] | None = None
        self._moved: asyncio.Future[None] | None = (
            None  # somebody waits for the next confirmed block
        )

    def _target(self, index: int) -> Target:
        return Target(
            log_id=self.log_id,
            segment_id=self._segment.id,
            epoch=self._segment.epoch,
            incarnation=self.ensemble.members[index].incarnation,
        )

    # --- the port ---

    def begin(self, segment: Segment) -> None:
        """The segment is ours: hold on to its members."""
        self._segment = segment
        self.visible_seq = segment.base_seq
        self._has_begun = True
        self._watch.add(self)
        for pipe in self._pipes:
            if pipe.peer.is_gone:
                pipe.gone()
            else:
                pipe.peer.join(pipe)
                if pipe.peer.link is not None:
                    pipe.linked(pipe.peer.link)
        if not all(pipe.is_up for pipe in self._pipes):
            self.suspect()

    @property
    def key(self) -> tuple[str, int]:
        """(log id, segment id)."""
        return self.log_id, self._segment.id

    @property
    def slots(self) -> int:
        """Blocks that may be in flight: as many as fit in the window; 0 once none can be confirmed."""
        pipeline = self.pipeline
        count = pipeline.sent - pipeline.lac
        if not count:
            return 0 if self._is_doomed() else 1
        window = PRESSED_WINDOW_BYTES if self._is_pressed() else WINDOW_BYTES
        has_room = self._open_bytes + self.cut_bytes <= window and count < WINDOW_BLOCKS
        if pipeline.lost and self._is_doomed():
            return count
        return count + 1 if has_room else count

    @property
    def wants_roll(self) -> bool:
        """Whether the segment should be closed and go on elsewhere; not begun: whether it got worse."""
        if not self._has_begun:
            return any(not p.is_up and p.index not in self._missing for p in self._pipes)
        return self._is_leaving

    def allocate(self, size_bytes: int) -> memoryview | None:
        """The packer's own buffer serves: it is sent to all members as it is."""
        return None

    def reserve(self, size_bytes: int) -> None:
        """Raises: Overloaded: too few members have room on their disks."""
        full = [pipe for pipe in self._pipes if pipe.peer.pressure and pipe.peer.is_full()]
        if not full or self._ended is not None:
            return
        usable = sum(not pipe.is_lost for pipe in self._pipes) - sum(not p.is_lost for p in full)
        if usable < self.ensemble.acks:
            nodes = ", ".join(pipe.peer.member.node for pipe in full)
            raise Overloaded(
                f"{self._where()}: the disks of {nodes} are full, so that no {self.ensemble.acks} "
                "members can take a block; append again once older segments are sealed, or add nodes"
            )

    def submit(self, block: PackedBlock) -> asyncio.Future[None]:
        """Send the next block to all members (see the port)."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._ended is not None:
            future.set_exception(self._ended)  # it is not handed to any node
            return future
        header, size = block.header, len(block.buffer)
        now_ms = self._sent_ms = self._watch.now_ms()
        self._blocks[header.number] = _Block(block.buffer, future, header.end_seq, now_ms)
        self._kept_bytes += size
        self._open_bytes += size
        self._total_bytes += size
        self._watch.begin_work(self)
        self._advance(rules.Submit(number=header.number))
        if len(self._pipes) == 2 and self._total_bytes >= SMALL_SEGMENT_BYTES:
            self._is_leaving = True
        return future

    async def finish(self, end: End) -> None:
        """Nothing was sent behind E, and nothing will be: no other writer has our epoch."""
        if self._ended is not None:
            raise self._ended
        assert self.pipeline.lac == self.pipeline.sent == end.block, "finish() comes after the last"
        self._watch.announce(self.name, (pipe.peer for pipe in self._pipes))
        await self._leave(Closed(f"{self._where()} is closed at seq {end.seq}"))

    async def abandon(self) -> None:
        """Stop; blocks under way may still take effect."""
        self._why = self._why or "the writer was abandoned before an answer came"
        await self._leave(NotWritten(f"{self._where()}: the writer was abandoned"))

    async def _leave(self, ended: WoodpeckerError) -> None:
        self._ended = self._ended or ended
        self._advance(rules.TimedOut())
        self._let_go()
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.gather(self._judging, return_exceptions=True)

    def _let_go(self) -> None:
        """Nothing more will be sent. Idempotent."""
        for pipe in self._pipes:
            pipe.stop()
        self._blocks.clear()
        self._kept_bytes = self._open_bytes = 0
        self._count_behind()
        self._watch.remove(self)
        self._wake()

    # --- effects ---

    def _advance(self, event: rules.Event) -> None:
        self.pipeline, effects = rules.step(self.pipeline, event)
        for effect in effects:
            match effect:
                case rules.Send():
                    for pipe in self._pipes:
                        pipe.pump()
                case rules.Acknowledge(number=number):
                    self._acknowledge(number)
                case rules.Judge(member=member):
                    work = self._judge(member)
                    self._judging = self._watch.runtime.spawn(work, f"judge {self._where()}")
                case rules.Fail():
                    self._fail(effect)

    def _acknowledge(self, number: int) -> None:
        """All blocks up to ``number`` are confirmed."""
        for each in range(self._resolved + 1, number + 1):
            block = self._blocks[each]
            self._open_bytes -= len(block.buffer)
            self.visible_seq = block.end_seq
            if not block.future.done():
                block.future.set_result(None)
        self._resolved = number
        self._watch.tell_soon(self)
        self._wake()

    def _fail(self, effect: rules.Fail) -> None:
        fenced = f"{self._where()}: another writer took the log over; open a new writer to go on"
        why = f"{self._where()}: {self._why}"
        if self._ended is None:
            self._ended = (
                Fenced(fenced, outcome="not_written")
                if effect.fenced
                else NotWritten(f"{why}; nothing later was sent")
            )
        for number in range(effect.first, self.pipeline.sent + 1):
            error: WoodpeckerError
            if not effect.fenced:
                error = OutcomeUnknown(f"{why}; ask writer.resolve() what became of the entries")
            elif effect.not_written_from is not None and number >= effect.not_written_from:
                error = Fenced(fenced, outcome="not_written")
            else:
                error = Fenced(fenced, outcome="unknown")
            future = self._blocks[number].future
            if not future.done():
                future.set_exception(error)
                future.exception()  # a writer that is being dropped need not look at each
        self._let_go()

    # --- judging ---

    async def _judge(self, member: int) -> None:
        """A member refuses us for good: what does the manifest say, read after that?"""
        attempt = 0
        while not self.pipeline.has_ended:
            try:
                fate = self._fate(await self._read_manifest())
            except Fenced:
                fate = Fate(state=None, mine=False)
            except Closed:
                self.end("the client was closed before its writer")
                return
            except WoodpeckerError as error:  # unreadable is unknown, never an answer
                self._why = f"the manifest cannot be read: {error}"
                attempt += 1
                await self._watch.runtime.sleep_ms(delay_ms(attempt, self.chance()))
                continue
            self._advance(
                rules.Judged(
                    member=member, state=fate.state, mine=fate.mine, end_block=fate.end_block
                )
            )
            self._stop_lost()
            return

    def _fate(self, manifest: Manifest) -> Fate:
        mine = manifest.owned_by(self.log_id, self._segment.epoch, self._segment.token)
        if manifest.log_id == self.log_id and not manifest.is_tombstone:
            for segment in manifest.segments:
                if segment.id == self._segment.id:
                    end = None if segment.end is None else segment.end.block
                    return Fate(state=segment.state, mine=mine, end_block=end)
        return Fate(state=None, mine=False)

    def _stop_lost(self) -> None:
        """The rules have given a member up."""
        for pipe in self._pipes:
            if pipe.index in self.pipeline.lost and not pipe.is_lost:
                pipe.peer.trouble = "somebody ended the segment there"
                self._part_from(pipe)

    # --- members (``quorum_pipe.Owner``) ---

    def buffer(self, number: int) -> memoryview | None:
        block = self._blocks.get(number)
        return None if block is None else block.buffer

    def acknowledged(self, pipe: Pipe, number: int) -> None:
        if pipe.index in self.pipeline.lost:
            return  # it may have forgotten it since
        self._advance(rules.Acked(member=pipe.index, number=number))
        self._release()

    def stopped(self, pipe: Pipe) -> None:
        self._advance(rules.Stopped(member=pipe.index))

    def lose(self, pipe: Pipe, *, has_forgotten: bool) -> None:
        if pipe.index in self.pipeline.lost:
            return
        self._why = f"too few members are left ({pipe.peer.why})"
        self._advance(rules.Lost(member=pipe.index, has_forgotten=has_forgotten))
        self._part_from(pipe)

    def _part_from(self, pipe: Pipe) -> None:
        pipe.stop()
        self._release()
        if self._is_doomed():
            self.leave()
        else:
            self.suspect()

    def linked(self, pipe: Pipe) -> None:
        if self.pipeline.lac != NO_BLOCK:
            self._watch.tell_soon(self)

    def suspect(self) -> None:
        if self._has_begun and self._ended is None:
            self._watch.suspect(self)

    def chance(self) -> float:
        return self._watch.runtime.random()

    def _release(self) -> None:
        """Forget blocks that every member has that is not lost."""
        pipeline = self.pipeline
        until = pipeline.lac
        for index, acked in enumerate(pipeline.acked):
            if acked < until and index not in pipeline.lost:
                until = acked
        while self._first <= until and self._blocks:
            self._kept_bytes -= len(self._blocks.pop(self._first).buffer)
            self._first += 1
        self._count_behind()
        if not self._blocks:
            self._watch.end_work(self)

    def _count_behind(self) -> None:
        behind = self._kept_bytes - self._open_bytes
        if behind != self._behind_bytes:
            self._watch.count_behind(behind - self._behind_bytes)
            self._behind_bytes = behind
            if behind > BEHIND_BYTES:
                self.give_up_slowest()

    @property
    def behind_bytes(self) -> int:
        """Bytes of acknowledged blocks that are kept for members that lack them."""
        return self._behind_bytes

    def give_up_slowest(self) -> None:
        """Keep no more blocks for the member that lacks most, unless it is needed for a quorum."""
        pipeline = self.pipeline
        slow = [pipe for pipe in self._pipes if pipe.index not in pipeline.lost]
        slow.sort(key=lambda pipe: pipeline.acked[pipe.index])
        if slow and pipeline.acked[slow[0].index] < pipeline.lac:
            without = replace(pipeline, lost=pipeline.lost | {slow[0].index})
            if rules.can_confirm(without, pipeline.sent + 1):
                self.lose(slow[0], has_forgotten=False)

    # --- looked after (``quorum_watch.py``) ---

    def look(self, now_ms: float) -> None:
        """Now and then while blocks are kept: is one overdue?"""
        oldest = self._blocks.get(self.pipeline.lac + 1)
        if oldest is not None and now_ms - oldest.since_ms >= self._timeout_ms:
            missing = "; ".join(pipe.peer.why for pipe in self._pipes if not pipe.is_up)
            self.end(
                f"no {self.ensemble.acks} members had a block within {self._timeout_ms} ms"
                + (f"; {missing}" if missing else "")
            )
        elif any(self._is_late(pipe, now_ms) for pipe in self._pipes):
            self.suspect()

    def bad_nodes(self, now_ms: float) -> frozenset[str]:
        """Nodes that the next segment should do without."""
        return frozenset(
            pipe.peer.member.node
            for pipe in self._pipes
            if pipe.is_lost or self._is_late(pipe, now_ms) or pipe.peer.is_full()
        )

    def _is_late(self, pipe: Pipe, now_ms: float) -> bool:
        """Whether a member has been away, or has left a block unanswered, for too long."""
        if pipe.is_lost:
            return False
        if pipe.peer.is_away(now_ms):
            return True
        waiting = self._blocks.get(self.pipeline.acked[pipe.index] + 1)
        return waiting is not None and now_ms - waiting.since_ms >= LATE_MS

    @property
    def is_heavy(self) -> bool:
        """Whether it should be sealed early: a member is short of room; when it has none, for any block."""
        if not self._is_pressed():
            return False
        is_full = any(pipe.peer.is_full() and not pipe.is_lost for pipe in self._pipes)
        return self._total_bytes >= (1 if is_full else PRESSED_SEGMENT_BYTES)

    @property
    def is_busy(self) -> bool:
        """Whether it has blocks that are not acknowledged."""
        return self._open_bytes > 0

    def leave(self) -> None:
        """Have the segment closed and go on elsewhere."""
        if not self._is_leaving and self._ended is None:
            self._is_leaving = True
            if self.on_roll is not None:
                self.on_roll()

    def end(self, why: str) -> None:
        """Write nothing any more; the outcome of what is under way is unknown."""
        self._why = why
        self._advance(rules.TimedOut())

    def tell(self, now_ms: float, pause_ms: float) -> bool:
        """Tell the members the LAC unless blocks do; False: later."""
        if now_ms - self._sent_ms < pause_ms:
            return False  # where one block was just sent another follows soon, and carries it
        for pipe in self._pipes:
            pipe.tell()
        return True

    def moved(self) -> asyncio.Future[None] | None:
        """Done at the next confirmed block, or when the writer ends; None: it has. Not to be cancelled."""
        if self._ended is not None:
            return None
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        return self._moved

    def _wake(self) -> None:
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set_result(None)

    def _is_doomed(self) -> bool:
        """Whether the next block could never be confirmed."""
        return not rules.can_confirm(self.pipeline, self.pipeline.sent + 1)

    def _is_pressed(self) -> bool:
        return any(pipe.peer.pressure and not pipe.is_lost for pipe in self._pipes)

    def _where(self) -> str:
        return f"log {self.name!r} segment {self._segment.id}"
