"""Looks over the shoulder of the stores: every manifest written, every object deleted, every seal.

It knows what only the world can know (the state at this very moment), so it finds a broken rule when it
is broken, and not only when somebody reads. Its rules are stated anew, not borrowed from the drivers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from woodpecker.client.batch import Batch
from woodpecker.codec import endmark, keys, records
from woodpecker.codec.block import Block, parse_header
from woodpecker.core.ids import Kind, State
from woodpecker.core.manifest import End, Manifest, Segment
from woodpecker.core.transitions import check
from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.storage.memory import MemoryBucket
from woodpecker.testing.faults.payloads import item_of
from woodpecker.testing.history import Began, Event, Seen

GRAVE_MS = 30 * 86_400_000
AFTER_NS = 1 << 62  # the archive is read when the run is over
_ORDER = {State.OPEN: 0, State.CLOSED: 1, State.SEALED: 2}


class Witness:
    """See the module.

    Attributes:
        copies_of: synced blocks on each member that serves, and how many do not (kind quorum).
        archive: by log id, the entries of every segment as it was closed, as views of readers.
        unseen: ids of logs with a segment that is not in the archive: closed while its members were
            down, and trimmed before they came back.
    """

    def __init__(
        self,
        bucket: MemoryBucket,
        runtime: Runtime,
        fail: Callable[[str, str], None],
        coverage: Counter[str],
    ) -> None:
        self._bucket = bucket
        self._runtime = runtime
        self._fail = fail
        self._coverage = coverage
        self.copies_of: Callable[[str, Segment], tuple[list[list[bytes]], int]] | None = None
        self._last: dict[str, Manifest] = {}  # by log id
        self._ends: dict[tuple[str, int], End] = {}  # by log id and segment
        self._kept: dict[str, set[int]] = {}  # by log id: segments in the archive
        self.archive: dict[str, list[Event]] = {}
        self.unseen: set[str] = set()

    # --- manifests ---

    def after_put(self, key: str, value: bytes) -> None:
        """A record was written."""
        if not key.startswith(keys.LOGS):
            return
        try:
            manifest = records.decode_manifest(value, where=key)
        except WoodpeckerError as error:
            self._fail("manifest", f"{key} cannot be read: {error}")
            return
        fault = check(manifest)
        if fault is not None:
            self._fail("manifest", f"{manifest.name}: {fault}")
        before = self._last.get(manifest.log_id)
        self._last[manifest.log_id] = manifest
        if before is not None and not manifest.is_tombstone:
            self._compare(before, manifest)

    def _compare(self, before: Manifest, after: Manifest) -> None:
        for name in ("epoch", "next_segment_id", "next_seq", "trim_point"):
            if getattr(after, name) < getattr(before, name):
                self._fail("manifest", f"{after.name}: {name} went back: {before} -> {after}")
        if after.epoch == before.epoch and after.token != before.token:
            self._fail("I4", f"{after.name}: epoch {after.epoch} changed hands")
        now = {segment.id: segment for segment in after.segments}
        for segment in before.segments:
            self._step(segment, now.get(segment.id), after)
        for name, has_moved in (
            ("trimmed", after.trim_point > before.trim_point),
            ("segments dropped", after.anchor != before.anchor),
            ("paged", len(after.pages) > len(before.pages)),
            ("epoch raised", after.epoch > before.epoch),
            ("rolled", before.open_segment is not None and after.next_segment_id > before.next_segment_id),
            ("log ended", after.ended and not before.ended),
        ):  # fmt: skip
            self._coverage[f"manifest: {name}"] += has_moved

    def _step(self, before: Segment, after: Segment | None, manifest: Manifest) -> None:
        """What became of one segment."""
        if after is None:
            is_paged = any(p.first_segment <= before.id <= p.last_segment for p in manifest.pages)
            is_dropped = before.id < manifest.anchor.first_segment
            if before.state is State.OPEN:
                self._coverage["manifest: empty segment dropped"] += 1
                first = self._bucket.objects.get(keys.block(manifest.log_id, before.id, 0))
                if first is not None and not endmark.is_mark_size(len(first.data)):
                    self._fail("I1", f"{manifest.name}: segment {before.id} dropped with a block")
            elif not is_paged and not is_dropped:
                self._fail("manifest", f"{manifest.name}: segment {before.id} vanished")
            elif before.id not in self._kept.get(manifest.log_id, ()):
                self.unseen.add(manifest.log_id)
            return
        if _ORDER[after.state] < _ORDER[before.state] or (before.end and before.end != after.end):
            self._fail("manifest", f"{manifest.name}: {before} became {after}")
        if before.state is State.OPEN and after.state is State.CLOSED:
            who = "its writer" if manifest.epoch == before.epoch else "a stranger"
            self._coverage[f"manifest: closed by {who}"] += 1
            assert after.end is not None
            self._ends[manifest.log_id, after.id] = after.end
            if after.kind is Kind.OBJECT:
                self._closed(manifest, after)
            elif after.kind is Kind.QUORUM and self.copies_of is not None:
                self._closed_on_nodes(manifest, after)
        if before.state is not State.SEALED and after.state is State.SEALED:
            self._coverage["manifest: sealed"] += 1
            self._sealed(manifest, after)

    # --- what is closed and sealed ---

    def _closed(self, manifest: Manifest, segment: Segment) -> None:
        """From now on E is fixed: every block up to it must be there."""
        assert segment.end is not None
        where = f"{manifest.name} segment {segment.id}, closed at {segment.end.seq}"
        parts = []
        for number in range(segment.end.block + 1):
            stored = self._bucket.objects.get(keys.block(manifest.log_id, segment.id, number))
            if stored is None:
                self._fail("I1", f"{where}: block {number} is not there")
                return
            parts.append(stored.data)
        mark = self._bucket.objects.get(
            keys.block(manifest.log_id, segment.id, segment.end.block + 1)
        )
        if mark is None or not endmark.is_mark_size(len(mark.data)):
            self._fail("I4", f"{where}: no mark stops its writer")
        self._keep(manifest, segment, b"".join(parts), where)

    def _closed_on_nodes(self, manifest: Manifest, segment: Segment) -> None:
        """Before the CAS so many members hold everything up to E, or the sealed object is there."""
        assert segment.end is not None and segment.ensemble is not None
        assert self.copies_of is not None
        end = segment.end
        where = f"{manifest.name} segment {segment.id}, closed at {end.seq}"
        copies, unknown = self.copies_of(manifest.log_id, segment)
        whole = [copy for copy in copies if len(copy) > end.block]
        key = keys.sealed(manifest.log_id, segment.id, end.seq, end.digest)
        if len(whole) + unknown < segment.ensemble.acks and key not in self._bucket.objects:
            counts = [len(copy) for copy in copies]
            self._fail("I1", f"{where}: {len(whole)} nodes hold it whole, the others {counts}")
        for copy in whole:
            self._keep(manifest, segment, b"".join(copy[: end.block + 1]), where)

    def _sealed(self, manifest: Manifest, segment: Segment) -> None:
        """The object must be there, whole, the chain unbroken."""
        assert segment.sealed is not None
        where = f"{manifest.name} segment {segment.id}, sealed"
        stored = self._bucket.objects.get(segment.sealed.key)
        if stored is None or len(stored.data) != segment.sealed.size:
            self._fail("I9", f"{where}: the object is not there, or not whole")
        elif records.digest_of(stored.data) != segment.sealed.checksum:
            self._fail("I6", f"{where}: the object has another checksum than the manifest")
        else:
            self._keep(manifest, segment, stored.data, where)

    def _keep(self, manifest: Manifest, segment: Segment, data: bytes, where: str) -> None:
        """Check the chain; remember its entries for the judge, whatever becomes of the segment."""
        try:
            blocks = _blocks(memoryview(data), segment, where)
        except WoodpeckerError as error:
            self._fail("I6", f"{where}: {error}")
            return
        known = self._kept.setdefault(manifest.log_id, set())
        if segment.id in known:
            return  # its digest is the same, so its entries are
        known.add(segment.id)
        name = str(segment.id)
        events = self.archive.setdefault(manifest.log_id, [])
        events.append(Began(process="archive", reader=name, at_ns=0, start=segment.base_seq))
        for block in blocks:
            if block.count:
                items = tuple(item_of(entry) for entry in Batch(block, 0, block.count))
                first = block.header.base_seq
                events.append(
                    Seen(process="archive", reader=name, at_ns=AFTER_NS, first=first, items=items)
                )

    # --- deletions ---

    def before_delete(self, key: str) -> None:
        """An object is about to go: nothing may need it, now or ever."""
        stored, place = self._bucket.objects.get(key), keys.parse_object(key)
        if stored is None or place is None:
            return
        manifest = self._last.get(place.log_id)
        if manifest is None:
            return  # never named by any manifest: an import that failed
        match place:
            case keys.BlockKey() if endmark.is_mark_size(len(stored.data)):
                why = self._why_keep_mark(manifest, place)
            case keys.BlockKey(segment_id=segment_id, number=number):
                why = self._why_keep_block(manifest, segment_id, number)
            case _:
                named = {s.sealed.key for s in manifest.segments if s.sealed is not None}
                named |= {page.key for page in manifest.pages}
                named |= {manifest.register_key or "", manifest.anchor.register_key or ""}
                why = "the manifest names it" if key in named else ""
        if why:
            self._fail("I9", f"{key} of {manifest.name} was deleted, although {why}")

    def _why_keep_mark(self, manifest: Manifest, place: keys.BlockKey) -> str:
        end = self._ends.get((place.log_id, place.segment_id))
        if end is not None and place.number != end.block + 1:
            return ""  # put by a beaten opener, into a segment that was cleaned before
        if not manifest.is_tombstone:
            return "the log lives: a writer that slept would not meet the mark"
        if self._runtime.now_us() // 1000 - (manifest.deleted_at_ms or 0) < GRAVE_MS * 0.99:
            return "its log was deleted less than 30 days ago"
        return ""

    def _why_keep_block(self, manifest: Manifest, segment_id: int, number: int) -> str:
        if manifest.is_tombstone or manifest.deleting:
            return ""
        for segment in manifest.segments:
            if segment.id != segment_id or segment.state is State.SEALED:
                continue
            if segment.end is None:
                return "its segment is OPEN"
            if number <= segment.end.block:
                return "its segment is only CLOSED"
        if segment_id >= manifest.next_segment_id:
            return "its segment is still to be opened"
        return ""


def _blocks(data: memoryview, segment: Segment, name: str) -> list[Block]:
    """All blocks of a sealed object. Raises: Corrupt; AssertionError never."""
    assert segment.end is not None
    blocks: list[Block] = []
    digest, offset, seq = bytes.fromhex(segment.prev_digest), 0, segment.base_seq
    while len(blocks) <= segment.end.block:
        where = f"{name} at {offset}"
        header = parse_header(data[offset:], where=where)
        block = Block.parse(data[offset : offset + header.size_bytes], where=where)
        if header.prev_digest != digest or header.base_seq != seq:
            raise WoodpeckerError(f"block {len(blocks)} does not continue the chain")
        blocks.append(block)
        digest, seq = header.digest, header.end_seq
        offset += header.size_bytes
    if digest.hex() != segment.end.digest or seq != segment.end.seq:
        raise WoodpeckerError("it does not end where the manifest says")
    return blocks
