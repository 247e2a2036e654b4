"""What looks after all quorum writers of one client: one timer for thousands of them.

A few times a second: is a block overdue, has a member been away for too long, does a better ensemble
exist? Writers that make trouble are looked at singly, the others in slices. Where nothing is written
nothing is done but that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Protocol

from woodpecker.core.manifest import Ensemble, Manifest
from woodpecker.core.rolling import MOVE_EVERY_MS, MOVES_AT_ONCE, Moves, moved
from woodpecker.errors import WoodpeckerError
from woodpecker.rpc.base import Answer
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.quorum_links import Links, Peer

TICK_MS = 250.0
SWEEP_TICKS = 120  # ticks in which every writer is asked whether better nodes are there
SWEEP_LEAST = 8  # writers of each tick
MOVES_A_TICK = 64  # segments that begin to move in one tick: thousands together would trample
TELL_MS = 1.0  # after an acknowledgement: then no block has followed that tells readers
TELL_AGAIN_MS = 2.0
NEWS_MS = 500.0  # after a segment was ended: then the closing CAS has come through, most likely
LAST_NEWS_S = 1.0
BEHIND_BYTES = 128 << 20  # acknowledged, and kept for slow members, of all writers


class Writer(Protocol):
    """A quorum writer, as it is looked after (``quorum_writer.py``)."""

    log_id: str
    ensemble: Ensemble
    manifest: Manifest

    @property
    def key(self) -> tuple[str, int]:
        """(log id, segment id)."""

    @property
    def is_heavy(self) -> bool:
        """Whether it should be sealed early."""

    @property
    def is_busy(self) -> bool:
        """Whether it has blocks that are not acknowledged."""

    @property
    def wants_roll(self) -> bool:
        """Whether it was told to ``leave``."""

    @property
    def behind_bytes(self) -> int:
        """Kept for slow members."""

    def look(self, now_ms: float) -> None:
        """See whether a block is overdue."""

    def bad_nodes(self, now_ms: float) -> AbstractSet[str]:
        """Nodes that it should do without."""

    def leave(self) -> None:
        """Have the segment closed and go on elsewhere."""

    def end(self, why: str) -> None:
        """Write nothing any more; the outcome of what is under way is unknown."""

    def tell(self, now_ms: float, pause_ms: float) -> bool:
        """Tell the members the LAC."""

    def give_up_slowest(self) -> None:
        """Keep no more blocks for the slowest member."""


class Watch:
    """See the module. One event loop.

    Attributes:
        writers: all that are open, by log and segment.
    """

    def __init__(self, links: Links, runtime: Runtime) -> None:
        self.runtime = runtime
        self.writers: dict[tuple[str, int], Writer] = {}
        self._links = links
        self._busy: dict[Writer, None] = {}  # with blocks that some member may lack
        self._suspects: dict[Writer, int] = {}  # and how often they were looked at in vain
        self._to_sweep: list[tuple[str, int]] = []
        self._moves: dict[str, Moves] = {}  # by log id: those that moved lately
        self._behind_bytes = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._judging: asyncio.Task[None] | None = None
        self._to_tell: dict[Writer, None] = {}
        self._teller: asyncio.TimerHandle | None = None
        self._news: dict[tuple[str, Peer], None] = {}  # log and node to be told of its manifest
        self._newsboy: asyncio.TimerHandle | None = None

    def now_ms(self) -> float:
        """Of the runtime's clock."""
        return self.runtime.monotonic_ms()

    # --- writers come and go ---

    def add(self, writer: Writer) -> None:
        """A segment was opened."""
        self.writers[writer.key] = writer
        if self._ticker is None:
            self._arm()

    def remove(self, writer: Writer) -> None:
        """It writes no more. Idempotent."""
        if self.writers.get(writer.key) is writer:
            del self.writers[writer.key]
        self._busy.pop(writer, None)
        self._suspects.pop(writer, None)
        self._to_tell.pop(writer, None)

    def begin_work(self, writer: Writer) -> None:
        """It has blocks that somebody may lack."""
        self._busy[writer] = None

    def end_work(self, writer: Writer) -> None:
        """Everybody has everything."""
        self._busy.pop(writer, None)

    def suspect(self, writer: Writer) -> None:
        """A member of its ensemble makes trouble."""
        self._suspects.setdefault(writer, 0)

    def count_behind(self, change_bytes: int) -> None:
        """Bytes kept for slow members have become more, or less."""
        self._behind_bytes += change_bytes
        if change_bytes > 0 and self._behind_bytes > BEHIND_BYTES:
            max(self._busy, key=lambda writer: writer.behind_bytes).give_up_slowest()

    async def close(self) -> None:
        """Look after nothing any more; writers that are still there end."""
        for writer in list(self.writers.values()):
            writer.end("the client was closed before its writer")
        for timer in (self._ticker, self._teller, self._newsboy):
            if timer is not None:
                timer.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_NEWS_S):
                await asyncio.gather(*self._spread_news(), return_exceptions=True)
        if self._judging is not None:
            self._judging.cancel()
            await asyncio.gather(self._judging, return_exceptions=True)

    def bad_nodes(self, manifest: Manifest) -> AbstractSet[str]:
        """Nodes that the writer of the log's OPEN segment, if it is here, would do without."""
        segment = manifest.open_segment
        writer = None if segment is None else self.writers.get((manifest.log_id, segment.id))
        return frozenset() if writer is None else writer.bad_nodes(self.now_ms())

    # --- telling the LAC ---

    def tell_soon(self, writer: Writer) -> None:
        """Its LAC has moved: the members must hear of it even if no block follows."""
        self._to_tell[writer] = None
        if self._teller is None:
            self._arm_teller(TELL_MS)

    def _arm_teller(self, pause_ms: float) -> None:
        loop = asyncio.get_running_loop()
        self._teller = loop.call_later(pause_ms / 1000, self._tell, pause_ms)

    def _tell(self, pause_ms: float) -> None:
        self._teller = None
        writers, self._to_tell = self._to_tell, {}
        now_ms = self.now_ms()
        for writer in writers:
            if not writer.tell(now_ms, pause_ms):
                self._to_tell[writer] = None
        if self._to_tell:
            self._arm_teller(TELL_AGAIN_MS)

    # --- telling of manifests ---

    def announce(self, name: str, peers: Iterable[Peer]) -> None:
        """The manifest of log ``name`` is about to move: tell nodes a little later, or when all ends.

        Nodes that seal it soon make redundancy whole again; those that do not hear of it look by themselves,
        much later.
        """
        self._news |= dict.fromkeys((name, peer) for peer in peers)
        if self._newsboy is None and self._news:
            loop = asyncio.get_running_loop()
            self._newsboy = loop.call_later(NEWS_MS / 1000, self._spread_news)

    def _spread_news(self) -> list[asyncio.Future[Answer]]:
        self._newsboy = None
        news, self._news = self._news, {}
        told = [peer.tell(name) for name, peer in news]
        return [future for future in told if future is not None]

    # --- ticks ---

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._ticker = loop.call_later(TICK_MS / 1000, self._tick)

    def _tick(self) -> None:
        self._ticker = None
        if self.writers:
            self._arm()
        now_ms = self.now_ms()
        for writer in list(self._busy):
            writer.look(now_ms)
        self._links.look(now_ms)
        self._sweep(now_ms)
        if self._suspects and (self._judging is None or self._judging.done()):
            self._judging = self.runtime.spawn(self._judge(), "quorum: better nodes")

    def _sweep(self, now_ms: float) -> None:
        """A slice of the writers: would others be better?"""
        if not self._to_sweep:
            self._to_sweep = list(self.writers)
            self._forget_moves(now_ms)
        count = max(SWEEP_LEAST, len(self.writers) // SWEEP_TICKS)
        batch, self._to_sweep = self._to_sweep[:count], self._to_sweep[count:]
        for key in batch:
            writer = self.writers.get(key)
            if writer is None or writer.wants_roll:
                continue
            if writer.is_heavy or self._links.nodes.wanted(writer.ensemble, writer.manifest):
                self._move(writer, now_ms)

    async def _judge(self) -> None:
        """Writers with bad members: can they do without them? Those looked at least come first."""
        now_ms = self.now_ms()
        order = sorted(self._suspects.items(), key=lambda item: (item[1], not item[0].is_busy))
        for writer, tries in order[:MOVES_A_TICK]:
            bad = writer.bad_nodes(now_ms)
            if not bad or writer.wants_roll or await self._try_to_move(writer, bad, now_ms):
                self._suspects.pop(writer, None)
            elif writer in self._suspects:
                self._suspects[writer] = tries + 1

    async def _try_to_move(self, writer: Writer, bad: AbstractSet[str], now_ms: float) -> bool:
        try:
            better = await self._links.nodes.choose(writer.manifest, avoid=bad)
        except WoodpeckerError:
            return False
        if any(member.node in bad for member in better.members):
            return False
        return self._move(writer, now_ms)

    def _move(self, writer: Writer, now_ms: float) -> bool:
        """Have it go on elsewhere, unless it did so too often lately."""
        moves = moved(self._moves.get(writer.log_id, Moves(at_ms=now_ms)), now_ms)
        if moves is None:
            return False
        self._moves[writer.log_id] = moves
        writer.leave()
        return True

    def _forget_moves(self, now_ms: float) -> None:
        for log_id, moves in list(self._moves.items()):
            if now_ms - moves.at_ms > MOVES_AT_ONCE * MOVE_EVERY_MS:
                del self._moves[log_id]
