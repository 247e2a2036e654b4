"""Where a read begins and ends, and where the tail is: positions turned into seqs."""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.client.environment import Environment
from woodpecker.client.patience import PATIENCE_MS, Patience
from woodpecker.core.manifest import Manifest
from woodpecker.core.reading import AtSeq, AtTime, BeforeTail, Earliest, EndSpot, Spot, beyond_tail
from woodpecker.errors import NotFound, OutOfRange, Unavailable
from woodpecker.segments.prefetch import closing


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is to be read: from ``start`` to ``end_seq`` and before ``end_us``; None: no such end."""

    start: int
    end_seq: int | None
    end_us: int | None


async def tail(env: Environment, name: str, log_id: str) -> int:
    """The next seq to be written, as far as is visible from here: all below it can be read.

    May lag behind appends of other processes, never behind what is promised to readers.
    Raises: NotFound: the log is gone. Unavailable: stores were away for a minute. Corrupt.
    """
    return await _Finder(env, name, log_id).tail()


async def seq_at(env: Environment, name: str, log_id: str, timestamp_us: int) -> int:
    """Seq of the first readable entry with that timestamp or a later one; the tail if there is none.

    Raises: as ``tail``.
    """
    return await _Finder(env, name, log_id).resolve(AtTime(timestamp_us=timestamp_us))


async def resolve_start(env: Environment, name: str, log_id: str, start: Spot) -> int:
    """The seq that ``start`` means now; it may lie outside of what can be read.

    Raises: as ``tail``.
    """
    return await _Finder(env, name, log_id).resolve(start)


async def resolve_range(
    env: Environment,
    name: str,
    log_id: str,
    *,
    start: Spot,
    end: EndSpot | None,
    follow: bool,
) -> Range:
    """The range that a reader opened now has to read.

    Without ``follow`` it never reaches beyond the tail as it is now.
    Raises: OutOfRange: it begins below the trim point or, without ``follow``, beyond the tail; and as ``tail``.
    """
    finder = _Finder(env, name, log_id)
    tail_seq: int | None = None
    if not follow or isinstance(start, BeforeTail) or isinstance(end, BeforeTail):
        tail_seq = await finder.tail()
    seq = await finder.resolve(start, tail_seq)
    manifest = await finder.manifest()
    if seq < manifest.trim_point:
        raise OutOfRange(
            f"log {name!r}: seq {seq} was trimmed; the earliest is {manifest.trim_point}",
            earliest=manifest.trim_point,
        )
    end_seq = end.seq if isinstance(end, AtSeq) else None
    if not follow or isinstance(end, BeforeTail):
        assert tail_seq is not None
        if seq > tail_seq and not follow:
            raise beyond_tail(name, seq, tail_seq)
        end_seq = tail_seq if end_seq is None else min(end_seq, tail_seq)
    end_us = end.timestamp_us if isinstance(end, AtTime) else None
    return Range(start=seq, end_seq=end_seq, end_us=end_us)


class _Finder:
    """Looks positions up; a source that lost its blocks means: read the manifest again."""

    def __init__(self, env: Environment, name: str, log_id: str) -> None:
        self._env = env
        self._name = name
        self._log_id = log_id
        self._patience = Patience(env.runtime, f"log {name!r}", PATIENCE_MS)

    async def manifest(self) -> Manifest:
        while True:
            try:
                return await self._env.catalog.read(self._name, log_id=self._log_id)
            except Unavailable as error:
                await self._patience.bear(error)

    async def tail(self) -> int:
        while True:
            manifest = await self.manifest()
            try:
                return await self._visible_end(manifest)
            except (NotFound, Unavailable) as error:
                await self._patience.bear(error)

    async def resolve(self, spot: Spot, tail_seq: int | None = None) -> int:
        match spot:
            case AtSeq(seq=seq):
                return seq
            case Earliest():
                return (await self.manifest()).trim_point
            case BeforeTail(count=count):
                end = await self.tail() if tail_seq is None else tail_seq
                return max(end - count, (await self.manifest()).trim_point)
            case AtTime(timestamp_us=timestamp_us):
                return await self._seq_at(timestamp_us)

    async def _visible_end(self, manifest: Manifest) -> int:
        segment = manifest.open_segment
        if segment is None:
            return manifest.next_seq
        source = self._env.source(manifest, segment)
        try:
            visible = await source.visible_end()
        finally:
            await source.close()
        now = await self.manifest()
        if now.open_segment is None or now.open_segment.id != segment.id:
            visible = max(visible, now.next_seq)  # sealed meanwhile, its blocks perhaps deleted
        # whoever trimmed had seen the trim point as readable
        return max(visible, segment.base_seq, manifest.trim_point)

    async def _seq_at(self, timestamp_us: int) -> int:
        while True:
            manifest = await self.manifest()
            try:
                found = await self._search(manifest, timestamp_us)
            except (NotFound, Unavailable) as error:
                await self._patience.bear(error)
                continue
            return max(found, manifest.trim_point)

    async def _search(self, manifest: Manifest, timestamp_us: int) -> int:
        segments = self._env.segments(manifest, from_us=timestamp_us)
        async with closing(segments):
            async for segment in segments:  # the first is the one: times never fall along the log
                source = self._env.source(manifest, segment)
                try:
                    return await source.seq_at(timestamp_us)
                finally:
                    await source.close()
        return manifest.next_seq
