"""Reader of a segment of kind ``quorum`` while it is OPEN or CLOSED, from any of its members.

A member in the same zone is asked first, another one when it does not answer, lacks what is wanted or
sends what fails its checks; the place is kept. Nothing above the LAC, or E, is shown. "Not here" says
nothing about the end: that comes from the manifest alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass

from woodpecker.codec.block import Block
from woodpecker.codec.messages import Blocks, Find, Found, Read
from woodpecker.core.ids import NO_BLOCK
from woodpecker.errors import Closed, Corrupt, NotFound, Unavailable, WoodpeckerError
from woodpecker.rpc.base import Answer
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.quorum_copies import Copies
from woodpecker.segments.quorum_links import Links
from woodpecker.segments.quorum_watch import Watch
from woodpecker.segments.quorum_writer import QuorumSegmentWriter

FIRST_BYTES = (
    256 << 10
)  # of the first answer; doubles up to the next, so that small reads stay small
MOST_BYTES = 4 << 20  # one such answer is used while the next one comes
TAIL_BYTES = 256 << 10  # with the answer to a long wait
READ_MS = 5_000  # for an answer; then another member is asked
POLL_MS = 5_000  # the longest wait at one member
ORDER_MS = 10_000.0  # after this long the best member is looked for again
KNOWN_SEGMENTS = 4096


class Confirmed:
    """What this client has seen to be confirmed, by segment: so that it never goes back."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], tuple[int, int]] = OrderedDict()

    def see(self, key: tuple[str, int], number: int, end_seq: int) -> None:
        """Block ``number`` is confirmed, and the seq after it is ``end_seq``."""
        if number > self._known.get(key, (NO_BLOCK, 0))[0]:
            self._known[key] = number, end_seq
            self._known.move_to_end(key)
            if len(self._known) > KNOWN_SEGMENTS:
                self._known.popitem(last=False)

    def of(self, key: tuple[str, int]) -> tuple[int, int] | None:
        """(last block known to be confirmed, the seq after it); None: none is."""
        return self._known.get(key)


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a member showed: blocks, and the last one it could show now."""

    blocks: list[Block]
    last: int


class QuorumSource:
    """BlockSource over the members of one segment.

    Args:
        zone: of this client; "" if unknown.
    """

    def __init__(
        self,
        links: Links,
        watch: Watch,
        confirmed: Confirmed,
        runtime: Runtime,
        ref: SegmentRef,
        *,
        zone: str,
    ) -> None:
        self._links = links
        self._watch = watch
        self._confirmed = confirmed
        self._runtime = runtime
        self._copies = Copies(links, ref)
        self._key = ref.log_id, ref.segment.id
        self._base_seq = ref.segment.base_seq
        self._end = ref.segment.end
        self._zone = zone
        self._order: list[int] = []  # members, the one to ask first at the front
        self._ordered_ms = 0.0
        self._next = 0  # where the last reading stopped: block number, and its base seq
        self._next_seq = self._base_seq
        self._before: bytes | None = bytes.fromhex(
            ref.segment.prev_digest
        )  # digest before ``_next``
        self._ahead: _Shown | None = None  # came with a wait: from block ``_next`` on

    # --- the port ---

    async def blocks(self, seq: int) -> AsyncIterator[Block]:
        """See the port."""
        if seq == self._next_seq:
            first = self._next
        else:
            first, self._ahead, self._before = NO_BLOCK, None, None
        shown, self._ahead = self._ahead, None
        max_bytes = FIRST_BYTES
        if shown is None:
            shown = await self._fetch(first, seq, self._before, max_bytes)
        while shown.blocks:
            last = shown.blocks[-1].header
            max_bytes = min(2 * max_bytes, MOST_BYTES)
            coming: asyncio.Task[_Shown] | None = None
            if last.number < self._last(shown):
                work = self._fetch(last.number + 1, last.end_seq, last.digest, max_bytes)
                coming = self._runtime.spawn(work, "prefetch")
            try:
                for block in shown.blocks:
                    self._take(block)
                    yield block
                if coming is None:
                    return
                shown = await coming
            finally:
                if coming is not None:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)

    async def visible_end(self) -> int:
        """See the port."""
        if self._end is not None:
            return self._end.seq
        writer = self._writer
        if writer is not None:
            return writer.visible_seq
        shown = await self._look()
        known = self._confirmed.of(self._key)
        return max(shown, known[1] if known else shown)

    async def wait_visible(self, seq: int, timeout_ms: int) -> None:
        """See the port. A member answers as soon as it may show more."""
        until_ms = self._runtime.monotonic_ms() + timeout_ms
        if self._ahead is not None and self._ahead.blocks:
            return
        if self._end is not None:
            if seq >= self._end.seq:
                await self._runtime.sleep_ms(timeout_ms)
            return
        while (left_ms := until_ms - self._runtime.monotonic_ms()) > 0:
            moved = None if self._writer is None else self._writer.moved()
            if self._writer is not None and moved is not None:
                if self._writer.visible_seq > seq or not await self._in_time(moved, left_ms):
                    return
            elif await self._poll(seq, max(1, min(int(left_ms), POLL_MS))):
                return

    async def seq_at(self, timestamp_us: int) -> int:
        """See the port."""
        failures: list[str] = []
        for index in self._members():
            try:
                found = await self._seq_at(index, timestamp_us)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                failures.append(str(error))
                self._demote(index)
            else:
                if found is not None:
                    return found
                failures.append(f"{self._copies.peers[index]} has not all of it")
        raise Unavailable(f"{self._copies}: no member could look: {'; '.join(failures)}")

    async def check_rest(self) -> None:
        """Nothing lies beside the blocks that a reader could see."""

    async def close(self) -> None:
        """Nothing is held but the links, which are the store's."""
        self._ahead = None

    # --- what may be shown ---

    @property
    def _writer(self) -> QuorumSegmentWriter | None:
        """The segment's writer, if it is in this process: it knows best what is confirmed."""
        writer = self._watch.writers.get(self._key)
        return writer if isinstance(writer, QuorumSegmentWriter) else None

    @property
    def _limit(self) -> int | None:
        """Last block that may be shown, where that is known here; None: the member says."""
        if self._end is not None:
            return self._end.block
        writer = self._writer
        return None if writer is None else writer.pipeline.lac

    def _is_shown(self, first: int, seq: int) -> bool:
        """Whether some member must have what is asked for, so that one without it is not the last word."""
        if self._end is not None:
            return True
        writer = self._writer
        known = self._confirmed.of(self._key)
        if writer is not None:
            known = writer.pipeline.lac, writer.visible_seq
        return known is not None and (known[0] >= first if first != NO_BLOCK else known[1] > seq)

    def _last(self, shown: _Shown) -> int:
        """Last block that some member can show, after what one of them has shown."""
        if self._end is not None:
            return self._end.block
        known, limit = self._confirmed.of(self._key), self._limit
        seen = NO_BLOCK if known is None else known[0]
        return max(shown.last, seen, NO_BLOCK if limit is None else limit)

    def _note(self, message: Blocks) -> None:
        if self._end is None and message.visible is not None and message.last != NO_BLOCK:
            self._confirmed.see(self._key, message.last, message.visible)

    # --- members ---

    def _members(self) -> list[int]:
        """Who to ask, in this order."""
        now_ms = self._runtime.monotonic_ms()
        if not self._order or now_ms - self._ordered_ms >= ORDER_MS:
            chances = {index: self._runtime.random() for index in range(len(self._copies.peers))}
            self._order = sorted(chances, key=lambda index: (self._rank(index), chances[index]))
            self._ordered_ms = now_ms
        return list(self._order)

    def _rank(self, index: int) -> tuple[bool, bool]:
        peer = self._copies.peers[index]
        is_near = self._zone != "" and self._links.nodes.zone_of(peer.member.node) == self._zone
        return peer.is_in_doubt(self._runtime.monotonic_ms()), not is_near

    def _demote(self, index: int) -> None:
        """Ask this member last from now on."""
        if index in self._order:
            self._order.remove(index)
            self._order.append(index)

    # --- reading ---

    async def _fetch(self, first: int, seq: int, before: bytes | None, max_bytes: int) -> _Shown:
        """Blocks from number ``first`` (NO_BLOCK: by ``seq``) on, from whoever has them.

        ``before``: digest of the block before, if it is known.
        """
        if self._end is not None and first > self._end.block:
            return _Shown([], self._end.block)
        lacking, failed = 0, []
        damage: Corrupt | None = None
        for index in self._members():
            try:
                shown = await self._fetch_from(index, first, seq, before, max_bytes)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                damage = error if isinstance(error, Corrupt) else damage
                lacking += isinstance(error, Unavailable) and not error.retryable
                failed.append(str(error))
                self._demote(index)
                continue
            if shown.blocks or not self._is_shown(first, seq) or self._has_all(shown):
                return shown
            lacking += 1
            self._demote(index)
        if damage is not None:
            raise damage
        return self._nothing(lacking, failed)

    async def _fetch_from(
        self, index: int, first: int, seq: int, before: bytes | None, max_bytes: int
    ) -> _Shown:
        request = Read(
            target=self._copies.targets[index],
            first=first,
            seq=seq,
            limit=self._limit,
            max_bytes=max_bytes,
        )
        answer = await self._copies.ask(index, request, timeout_ms=READ_MS)
        return self._shown(index, answer, first, before)

    def _shown(self, index: int, answer: Answer, first: int, before: bytes | None) -> _Shown:
        """What one answer shows, if it fits the chain. Raises: Corrupt."""
        blocks = self._copies.blocks_in(index, answer, first=first)
        message = answer.message
        assert isinstance(message, Blocks)
        if blocks:
            fits = before is None or blocks[0].header.prev_digest == before
            last, end = blocks[-1].header, self._end
            if end is not None and last.number >= end.block:
                fits = fits and (last.number, last.digest.hex()) == (end.block, end.digest)
            if not fits:
                where = blocks[0].where
                raise Corrupt(f"{where}: its blocks are not those of the chain", where=where)
        self._note(message)
        return _Shown(blocks, message.last)

    def _has_all(self, shown: _Shown) -> bool:
        """Whether a member that has nothing to show has everything there is."""
        return self._end is not None and shown.last >= self._end.block

    def _nothing(self, lacking: int, failed: list[str]) -> _Shown:
        """No member has it: is that an answer?"""
        if self._end is None and len(failed) < len(self._copies.peers):
            return _Shown([], NO_BLOCK)
        if lacking == len(self._copies.peers):
            raise NotFound(f"{self._copies}: no member has it any more")
        raise Unavailable(f"{self._copies}: {'; '.join(failed) or 'its members lack blocks'}")

    def _take(self, block: Block) -> None:
        """Go on behind ``block``."""
        header = block.header
        self._next, self._next_seq, self._before = header.number + 1, header.end_seq, header.digest

    # --- looking and waiting ---

    async def _look(self) -> int:
        """The seq after the last visible entry, as the first member says that answers."""
        failed = []
        for index in self._members():
            try:
                return await self._visible_at(index)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                failed.append(str(error))
                self._demote(index)
        raise Unavailable(f"{self._copies}: {'; '.join(failed)}")

    async def _poll(self, seq: int, wait_ms: int) -> bool:
        """Wait at one member; whether there may be more now. Raises: Unavailable: nobody answers."""
        first = self._next if seq == self._next_seq else NO_BLOCK
        failed = []
        for index in self._members():
            request = Read(
                target=self._copies.targets[index],
                first=first,
                seq=seq,
                max_bytes=TAIL_BYTES if first != NO_BLOCK else 0,
                wait_ms=wait_ms,
            )
            try:
                answer = await self._copies.ask(index, request, timeout_ms=wait_ms + READ_MS)
                shown = self._shown(index, answer, first, self._before)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                failed.append(str(error))
                self._demote(index)
                continue
            if shown.blocks:
                self._ahead = shown
                return True
            message = answer.message
            assert isinstance(message, Blocks)
            return (message.visible or 0) > seq or await self._is_behind(index, seq)
        raise Unavailable(f"{self._copies}: {'; '.join(failed)}")

    async def _is_behind(self, index: int, seq: int) -> bool:
        """A wait at one member came to nothing: do the others show more?"""
        others = [other for other in self._members() if other != index]
        shown = await asyncio.gather(
            *(self._visible_at(other) for other in others), return_exceptions=True
        )
        for answer in shown:
            if isinstance(answer, NotFound | Closed):
                raise answer
            if isinstance(answer, BaseException) and not isinstance(answer, WoodpeckerError):
                raise answer
        is_behind = any(isinstance(visible, int) and visible > seq for visible in shown)
        if is_behind:
            self._demote(index)
        return is_behind

    async def _visible_at(self, index: int) -> int:
        """The seq after the last visible entry, as one member says. Raises: as ``Copies.ask``."""
        request = Read(target=self._copies.targets[index], first=self._next)
        message = (await self._copies.ask(index, request, timeout_ms=READ_MS)).message
        assert isinstance(message, Blocks)
        self._note(message)
        return self._base_seq if message.visible is None else message.visible

    async def _in_time(self, moved: asyncio.Future[None], left_ms: float) -> bool:
        try:
            async with asyncio.timeout(left_ms / 1000):
                await asyncio.shield(moved)
        except TimeoutError:
            return False
        return True

    # --- times ---

    async def _seq_at(self, index: int, timestamp_us: int) -> int | None:
        """What one member finds; None: it lacks blocks of a closed segment."""
        target, limit = self._copies.targets[index], self._limit
        look = Read(target=target, first=self._next, limit=limit)
        shown = (await self._copies.ask(index, look)).message
        assert isinstance(shown, Blocks)
        if self._end is not None and shown.last < self._end.block:
            return None
        limit = shown.last if limit is None else limit
        find = Find(target=target, timestamp_us=timestamp_us, limit=limit)
        found = (await self._copies.ask(index, find)).message
        assert isinstance(found, Found)
        if found.number == NO_BLOCK:
            return self._base_seq if shown.visible is None else shown.visible
        blocks = await self._copies.read(index, found.number, limit=limit, max_bytes=1)
        if not blocks:
            return None
        return blocks[0].header.base_seq + blocks[0].index_at(timestamp_us)
