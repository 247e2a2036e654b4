"""What spilled out of the manifest: pages of old segments, and registers too big for the record.

Both are immutable objects under the log id in the log's first storage, named by their content.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator

from woodpecker.codec import keys, records
from woodpecker.core.backoff import delay_ms
from woodpecker.core.manifest import Manifest, PageRef, Segment
from woodpecker.core.register import Register
from woodpecker.errors import AlreadyExists, Corrupt, OutcomeUnknown, Unavailable
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.base import ObjectStore

CACHED_PAGES = 64
REGISTER_INLINE_BYTES = 32 << 10
CREATE_TRIES = 8


class History:
    """Segments of a log, inline and paged, oldest first."""

    def __init__(self, objects: ObjectStore, runtime: Runtime) -> None:
        self._objects = objects
        self._runtime = runtime
        self._pages: OrderedDict[str, tuple[Segment | PageRef, ...]] = OrderedDict()

    async def segments(
        self, manifest: Manifest, *, from_seq: int = 0, from_us: int = 0
    ) -> AsyncIterator[Segment]:
        """Kept segments that end at or above ``from_seq`` and ``from_us``, in order; an OPEN one always.

        Raises: NotFound: a page is gone, read the manifest again. Corrupt, Unavailable.
        """
        items: tuple[PageRef | Segment, ...] = (*manifest.pages, *manifest.segments)
        for item in items:
            async for segment in self._from(item, manifest.anchor.first_segment, from_seq, from_us):
                yield segment

    async def _from(
        self, item: Segment | PageRef, first: int, from_seq: int, from_us: int
    ) -> AsyncIterator[Segment]:
        last_id = item.last_segment if isinstance(item, PageRef) else item.id
        is_open = isinstance(item, Segment) and item.end is None
        reaches = is_open or (_end_seq(item) >= from_seq and item.last_timestamp_us >= from_us)
        if last_id < first or not reaches:
            return
        if isinstance(item, Segment):
            yield item
            return
        for part in await self._load(item):
            async for segment in self._from(part, first, from_seq, from_us):
                yield segment

    async def _load(self, page: PageRef) -> tuple[Segment | PageRef, ...]:
        if page.key in self._pages:
            self._pages.move_to_end(page.key)
            return self._pages[page.key]
        data, _ = await self._objects.get(page.key)
        where = f"{self._objects.url}/{page.key}"
        if records.digest_of(data) != page.digest:
            raise Corrupt(f"{where}: not the page that the manifest names", where=where)
        items = records.decode_page(data, where=where)
        self._pages[page.key] = items
        while len(self._pages) > CACHED_PAGES:
            self._pages.popitem(last=False)
        return items

    async def kept_bytes(self, manifest: Manifest) -> int:
        """Bytes of closed segments that reach above the trim point; few pages are read for it."""
        todo: list[Segment | PageRef] = [*manifest.pages, *manifest.segments]
        total = 0
        while todo:
            item = todo.pop()
            if isinstance(item, PageRef) and item.base_seq < manifest.trim_point < item.end_seq:
                todo.extend(await self._load(item))
            elif isinstance(item, PageRef) or item.end is not None:
                total += item.bytes if _end_seq(item) > manifest.trim_point else 0
        return total

    async def inner_pages(self, manifest: Manifest) -> AsyncIterator[PageRef]:
        """References that lie inside pages (not those in the manifest itself). Raises: as above.

        Those that are wholly before the first kept segment are left out: their pages may be gone.
        """
        first_kept = manifest.anchor.first_segment
        todo = [page for page in manifest.pages if page.level > 0]
        while todo:
            for item in await self._load(todo.pop()):
                if isinstance(item, PageRef) and item.last_segment >= first_kept:
                    yield item
                    if item.level > 0:
                        todo.append(item)

    async def store_page(
        self, log_id: str, level: int, items: tuple[Segment | PageRef, ...]
    ) -> PageRef:
        """Write a page over ``items``; the reference to it is to be put in the manifest by SpillPage."""
        first, last = items[0], items[-1]
        data = records.encode_page(items)
        digest = records.digest_of(data)
        first_id = first.first_segment if isinstance(first, PageRef) else first.id
        last_id = last.last_segment if isinstance(last, PageRef) else last.id
        key = keys.page(log_id, level, first_id, last_id, digest)
        await self._create(key, data)
        return PageRef(
            key=key,
            level=level,
            first_segment=first_id,
            last_segment=last_id,
            base_seq=first.base_seq,
            end_seq=max(_end_seq(item) for item in items),
            bytes=sum(item.bytes for item in items),
            last_timestamp_us=max(item.last_timestamp_us for item in items),
            digest=digest,
        )

    async def load_register(self, inline: Register, key: str | None) -> Register:
        """The register itself, wherever it lies."""
        if key is None:
            return inline
        data, _ = await self._objects.get(key)
        return records.decode_register(bytes(data), where=f"{self._objects.url}/{key}")

    async def store_register(
        self, log_id: str, segment_id: int, register: Register, *, is_anchor: bool = False
    ) -> tuple[Register, str | None]:
        """What to put in a manifest for ``register``: itself, or the key of an object it was put in.

        ``segment_id``: the segment that is closed with it, or (``is_anchor``) the first one kept.
        """
        data = records.encode_register(register)
        if len(data) <= REGISTER_INLINE_BYTES:
            return register, None
        key = keys.register(log_id, segment_id, records.digest_of(data), is_anchor=is_anchor)
        await self._create(key, data)
        return Register(), key

    async def _create(self, key: str, data: bytes) -> None:
        for attempt in range(1, CREATE_TRIES + 1):
            try:
                await self._objects.create(key, data)
            except AlreadyExists:
                return  # named by its content: somebody (perhaps our last try) wrote the same
            except (OutcomeUnknown, Unavailable):
                if attempt == CREATE_TRIES:
                    raise
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))
            else:
                return


def _end_seq(item: Segment | PageRef) -> int:
    if isinstance(item, PageRef):
        return item.end_seq
    assert item.end is not None
    return item.end.seq
