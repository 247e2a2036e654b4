"""Garbage collection: which objects of a living log can never be needed again (log protocol, section 8).

The sweeper lists the objects FIRST and reads the manifest THEN; so whatever was listed was written, or
begun, before that manifest. An object is garbage only if the manifest does not refer to it **and every
command that could still refer to it is refused for ever**. All facts used below are monotone: segment
ids are never used twice, E of a closed segment never changes, a segment that is gone stays gone, the
anchor only moves up. So a verdict stays right however late it is carried out, and age is no reason.

What could refer to what:
- a block: its segment while OPEN or CLOSED. Blocks above E of a closed one were never acknowledged.
- a sealed object: ``SealSegment`` of a CLOSED segment whose E is the one in the key.
- a page: ``SpillPage``, while its first segment is inline or its first page stands in the manifest.
- a register: ``CloseSegment`` of the OPEN segment in its key; ``DropSegments`` up to the anchor in it.
End marks, objects of layers above, and keys this version does not know are never garbage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from woodpecker.core.ids import State
from woodpecker.core.manifest import Manifest, PageRef, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockItem:
    """A listed block or, told by its size, an end mark."""

    segment_id: int
    number: int
    is_mark: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedItem:
    """A listed sealed object; (end_seq, digest) is the E it was made for."""

    segment_id: int
    end_seq: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageItem:
    """A listed page."""

    key: str
    level: int
    first_segment: int
    last_segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterItem:
    """A listed register: at the end of a segment, or (anchor) before the first kept one."""

    key: str
    segment_id: int
    is_anchor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileItem:
    """A file of a segment, found in a buffer directory; ``token`` of the writer that prepared it."""

    segment_id: int
    token: str


Item = BlockItem | SealedItem | PageItem | RegisterItem | FileItem


class Collector:
    """Judges items against one manifest, read after they were listed.

    Args:
        manifest: of a living log (no tombstone, no deletion under way).
        upper: references inside the pages of higher levels that the manifest names, by key. A page
            in the range of such a page counts as needed unless it was looked up here.
        paged: segments inside pages, as far as they were looked up, by id. Sealed objects of others
            count as needed.
    """

    def __init__(
        self,
        manifest: Manifest,
        upper: Mapping[str, PageRef] | None = None,
        paged: Mapping[int, Segment] | None = None,
    ) -> None:
        assert not (manifest.is_tombstone or manifest.deleting), "that is for the deletion to judge"
        self._manifest = manifest
        self._upper = upper
        self._inline = {segment.id: segment for segment in manifest.segments}
        self._paged = paged or {}

    def is_from_the_future(self, item: Item) -> bool:
        """Whether ``item`` proves that this manifest is older than the data beside it.

        Blocks and sealed objects are written only after the CAS that opened their segment, and were
        listed before the manifest was read: somebody put an old copy of the metadata in place.
        """
        if not isinstance(item, BlockItem | SealedItem):
            return False
        return item.segment_id >= self._manifest.next_segment_id

    def is_garbage(self, item: Item) -> bool:
        """Whether nothing refers to ``item`` and nothing ever can."""
        match item:
            case BlockItem():
                return self._block(item)
            case SealedItem():
                return self._sealed(item)
            case PageItem():
                return self._page(item)
            case RegisterItem():
                return self._register(item)
            case FileItem():
                return self._file(item)

    def _is_over(self, segment_id: int) -> bool:
        """The segment can be neither OPEN nor CLOSED, now or later: paged, dropped or never opened."""
        return segment_id < self._manifest.next_segment_id and segment_id not in self._inline

    def _block(self, item: BlockItem) -> bool:
        if item.is_mark:
            return False
        segment = self._inline.get(item.segment_id)
        if segment is None:
            return self._is_over(item.segment_id)
        return _is_done_with(segment) or (
            segment.end is not None and item.number > segment.end.block
        )

    def _file(self, item: FileItem) -> bool:
        segment = self._inline.get(item.segment_id)
        if segment is None:
            return self._is_over(item.segment_id)
        # prepared by an opener that another one overtook: its segment can never be opened
        return _is_done_with(segment) or item.token != segment.token

    def _sealed(self, item: SealedItem) -> bool:
        segment = self._inline.get(item.segment_id) or self._paged.get(item.segment_id)
        if segment is None:
            return self._is_over(item.segment_id) and not self._is_paged(item.segment_id)
        if segment.end is None:
            return False  # a taker-over may make E safe by uploading before its CAS
        return (item.end_seq, item.digest) != (segment.end.seq, segment.end.digest)

    def doubtful(self, items: Iterable[Item]) -> set[int]:
        """Paged segments with several sealed objects among ``items``: they should be looked up.

        The manifest names one of each; others were uploaded by take-overs that came to another E.
        """
        counts = Counter(item.segment_id for item in items if isinstance(item, SealedItem))
        return {
            segment_id
            for segment_id, count in counts.items()
            if count > 1 and segment_id not in self._inline and self._is_paged(segment_id)
        }

    def _is_paged(self, segment_id: int) -> bool:
        """Whether a page refers to the segment."""
        return segment_id >= self._manifest.anchor.first_segment and any(
            page.first_segment <= segment_id <= page.last_segment for page in self._manifest.pages
        )

    def _page(self, item: PageItem) -> bool:
        if any(page.key == item.key for page in self._manifest.pages):
            return False
        if item.last_segment < self._manifest.anchor.first_segment:
            return True
        return not self._is_inside_upper(item) and not self._may_be_spilled(item)

    def _is_inside_upper(self, item: PageItem) -> bool:
        inside = any(
            page.level > item.level
            and page.first_segment <= item.first_segment
            and item.last_segment <= page.last_segment
            for page in self._manifest.pages
        )
        return inside and (self._upper is None or item.key in self._upper)

    def _may_be_spilled(self, item: PageItem) -> bool:
        """Whether SpillPage of it may still be accepted; it begins with the page's first segment."""
        first = item.first_segment
        return (
            first in self._inline
            or first >= self._manifest.next_segment_id
            or any(
                page.first_segment == first and page.level < item.level
                for page in self._manifest.pages
            )
        )

    def _register(self, item: RegisterItem) -> bool:
        manifest = self._manifest
        if item.key in (manifest.register_key, manifest.anchor.register_key):
            return False
        if item.is_anchor:
            return item.segment_id <= manifest.anchor.first_segment
        segment = self._inline.get(item.segment_id)
        if segment is None:
            return item.segment_id < manifest.next_segment_id
        return segment.state is not State.OPEN


def _is_done_with(segment: Segment) -> bool:
    """Its blocks lie in the sealed object, which was read back before the manifest named it."""
    return segment.state is State.SEALED
