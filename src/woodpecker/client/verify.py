"""``verify``: walk the chain of a log, or of a range of it, and look at every byte (protocol, I6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import gt

from woodpecker.client.chain import ChainScan
from woodpecker.client.checkpoints import last_closed, register_before
from woodpecker.client.environment import Environment
from woodpecker.client.repair import repair_segment
from woodpecker.client.sealed_objects import check_sealed
from woodpecker.codec import keys
from woodpecker.codec.block import Block
from woodpecker.core.ids import ZERO_DIGEST
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.core.register import Register
from woodpecker.core.transitions import check
from woodpecker.errors import Corrupt, InvalidRequest, NotFound
from woodpecker.observability.names import Event, Span
from woodpecker.segments.prefetch import closing

MOVED_TRIES = 8  # re-reads of the manifest without any progress

Progress = Callable[[int, int], None]
"""(entries verified, entries to verify); called now and then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was found sound. ``digest`` is the chain digest at ``next_seq``."""

    digest: str
    entries: int
    blocks: int
    bytes: int
    segments: int
    first_seq: int
    next_seq: int
    repaired: tuple[str, ...]


async def verify_log(
    env: Environment,
    name: str,
    log_id: str,
    *,
    start: int | None = None,
    end: int | None = None,
    repair: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check manifest, pages, blocks, chain, index, footers, registers, padding; whole segments.

    Args:
        start, end: only segments that hold seqs in [start, end); None: from the first kept, to the
            visible tail as it is now.
        repair: mend what can be mended without losing anything acknowledged; say what is lost else.
    Raises:
        Corrupt(where=): the first damage, by object or file and place in it.
        NotFound: no such log. InvalidRequest: no range. Unavailable.
    Cancellation: safe at any time.
    """
    for bound in (start, end):
        if bound is not None and (isinstance(bound, bool) or bound < 0):
            raise InvalidRequest(f"verify: {bound!r} is not a seq")
    if repair and env.read_only:
        raise InvalidRequest("this client was opened read_only=True: nothing can be repaired")
    walk = _Walk(env, name, log_id, start=start or 0, end=end, repair=repair, progress=progress)
    with env.observer.span(Span.VERIFY, log=name):
        try:
            return await walk.run()
        except Corrupt as error:
            env.observer.event(Event.CORRUPT, log=name, where=error.where)
            raise


class _Walk:
    """State of one walk: what has been verified so far."""

    def __init__(
        self,
        env: Environment,
        name: str,
        log_id: str,
        *,
        start: int,
        end: int | None,
        repair: bool,
        progress: Progress | None,
    ) -> None:
        self._env = env
        self._name = name
        self._log_id = log_id
        self._start = start
        self._end = end
        self._repair = repair
        self._progress = progress
        self._register: Register | None = None
        self._last: tuple[int, int, str] | None = None  # id, end seq, digest of the last segment
        self._first_seq: int | None = None
        self._entries = self._blocks = self._bytes = self._segments = 0
        self._repaired: list[str] = []
        self._timestamp_us = 0

    async def run(self) -> VerifyReport:
        tries = 0
        while True:
            manifest = await self._manifest()
            before = self._last
            try:
                await self._segments_of(manifest)
                return self._report(manifest)
            except NotFound as error:  # sealed, spilled or trimmed meanwhile
                tries = 0 if self._last != before else tries + 1
                if tries == MOVED_TRIES:
                    where = f"log {self._name!r}"
                    raise Corrupt(f"{where}: what the manifest names is not there: {error}", where=where) from error  # fmt: skip

    async def _manifest(self) -> Manifest:
        manifest = await self._env.catalog.read(self._name, log_id=self._log_id)
        fault = check(manifest)
        if fault is not None:
            where = f"{self._env.catalog.store.url}#{keys.manifest(self._name)}"
            raise Corrupt(f"{where}: {fault}", where=where)
        return manifest

    async def _segments_of(self, manifest: Manifest) -> None:
        self._link_from(manifest)
        segments = self._env.segments(manifest, from_seq=self._start)
        async with closing(segments) as kept:
            async for segment in kept:
                if self._last is not None and segment.id <= self._last[0]:
                    continue
                if self._end is not None and segment.base_seq >= self._end:
                    return
                await self._one(manifest, segment)

    def _link_from(self, manifest: Manifest) -> None:
        """Where the walk begins: at the anchor, unless it is in the middle already."""
        if self._last is not None and self._last[0] < manifest.anchor.first_segment - 1:
            self._last = self._register = None  # trimmed past us: go on at the anchor
        anchor = manifest.anchor
        if self._last is None and self._start <= anchor.seq:
            self._last = (anchor.first_segment - 1, anchor.seq, anchor.digest)

    async def _one(self, manifest: Manifest, segment: Segment) -> None:
        where = f"log {self._name!r} segment {segment.id}"
        link = (segment.base_seq, segment.prev_digest)
        if self._last is not None and self._last[1:] != link:
            raise Corrupt(f"{where} does not follow what is before it", where=where)
        if self._register is None:
            self._register = await register_before(self._env, manifest, segment)
        counts = self._entries, self._timestamp_us
        try:
            scan = await self._scan(manifest, segment)
            register = scan.register(self._register)
            if segment == last_closed(manifest):
                await self._check_checkpoint(manifest, register)
        except NotFound:
            self._entries, self._timestamp_us = counts  # it is walked again
            raise
        self._register = register
        digest = scan.headers[-1].digest.hex() if scan.headers else segment.prev_digest
        self._last = (segment.id, scan.next_seq, digest)
        self._first_seq = segment.base_seq if self._first_seq is None else self._first_seq
        self._segments += 1
        self._blocks += len(scan.headers)
        self._bytes += scan.bytes

    async def _scan(self, manifest: Manifest, segment: Segment) -> ChainScan:
        if segment.sealed is None:
            return await self._scan_blocks(manifest, segment)
        counts = self._entries, self._timestamp_us
        try:
            return await self._scan_sealed(manifest, segment)
        except (Corrupt, NotFound) as error:
            if not self._repair:
                raise
            await repair_segment(self._env, manifest, segment, error)
        self._repaired.append(segment.sealed.key)
        self._entries, self._timestamp_us = counts
        return await self._scan_sealed(manifest, segment)

    async def _scan_sealed(self, manifest: Manifest, segment: Segment) -> ChainScan:
        sealed = segment.sealed
        assert sealed is not None and self._register is not None
        objects = self._env.objects_of(manifest, segment)
        found = await check_sealed(
            objects, sealed.key, manifest.log_id, segment, on_block=self._on_block
        )
        where = f"{objects.url}/{sealed.key}"
        if found.sealed != sealed:
            raise Corrupt(
                f"{where}: size and checksum {found.sealed.size}, {found.sealed.checksum} are not "
                f"the manifest's {sealed.size}, {sealed.checksum}",
                where=where,
            )
        if found.scan.register(self._register) != found.register:
            raise Corrupt(f"{where}: the register is not the fold of the blocks", where=where)
        return found.scan

    async def _scan_blocks(self, manifest: Manifest, segment: Segment) -> ChainScan:
        """Blocks of a CLOSED segment up to E, or of the OPEN one as far as is visible."""
        scan = ChainScan(manifest.log_id, segment, f"log {self._name!r} segment {segment.id}")
        source = self._env.source(manifest, segment)
        try:
            async with closing(source.blocks(segment.base_seq)) as blocks:
                async for block in blocks:
                    scan.add(block)
                    self._on_block(block)
                    if scan.is_complete:
                        break
            await source.check_rest()
        finally:
            await source.close()
        if segment.end is not None:
            scan.finish()
        return scan

    def _on_block(self, block: Block) -> None:
        where = block.where
        _ = block.lengths  # must add up; decompresses the body
        times = block.timestamps
        first, last = block.first_timestamp_us, block.last_timestamp_us
        falls = times is not None and any(map(gt, times, times[1:]))
        if block.count and (falls or first < self._timestamp_us):
            raise Corrupt(f"{where}: timestamps fall", where=where)
        self._timestamp_us = max(self._timestamp_us, last) if block.count else self._timestamp_us
        self._entries += block.count
        if self._progress is not None:
            self._progress(self._entries, self._total)

    @property
    def _total(self) -> int:
        return max(self._entries, (self._end or 0) - self._start)

    async def _check_checkpoint(self, manifest: Manifest, register: Register) -> None:
        history = self._env.history(manifest)
        expected = await history.load_register(manifest.register, manifest.register_key)
        if register != expected:
            where = f"{self._env.catalog.store.url}#{keys.manifest(self._name)}"
            raise Corrupt(f"{where}: the register is not the fold of the blocks", where=where)

    def _report(self, manifest: Manifest) -> VerifyReport:
        last = self._last or (0, manifest.anchor.seq, ZERO_DIGEST)
        return VerifyReport(
            digest=last[2],
            entries=self._entries,
            blocks=self._blocks,
            bytes=self._bytes,
            segments=self._segments,
            first_seq=last[1] if self._first_seq is None else self._first_seq,
            next_seq=last[1],
            repaired=tuple(self._repaired),
        )
