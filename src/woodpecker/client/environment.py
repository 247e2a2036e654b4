"""What the drivers of one client share: ports, runtime, observer, and who to wake.

``app.py`` builds it; nothing here picks an adapter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.history import History
from woodpecker.observability.base import Observer
from woodpecker.observability.levels import Levels
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import BlockSource, SegmentRef, SegmentStore
from woodpecker.segments.sealed import SealedSource
from woodpecker.storage.base import ObjectStore


class Places(Protocol):
    """Finds the stores that a manifest names. ``storage`` is a URL of ``Manifest.storages``."""

    def objects(self, storage: str) -> ObjectStore:
        """The object store at ``storage`` ("": the store's own). Raises: InvalidRequest."""

    def segments(self, kind: Kind, storage: str) -> SegmentStore:
        """The store of segments of ``kind`` whose sealed objects go to ``storage``."""

    @property
    def default_kind(self) -> Kind:
        """Kind of new logs, following the store's URL."""

    def check_kind(self, kind: Kind, storage: str) -> None:
        """Raises: InvalidRequest: segments of ``kind`` cannot be kept for ``storage`` here."""

    async def admit(self, storage: str) -> str:
        """Check another storage for a log (reachable, fences); return its URL without secrets."""


class Hub:
    """Wakes this process's readers and workers when a log's manifest or tail moves."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self.dirty: set[str] = set()  # names of logs with something to seal, trim or collect
        self.has_work = asyncio.Event()

    def moved(self, log_id: str) -> None:
        """The manifest of the log changed."""
        event = self._events.pop(log_id, None)
        if event is not None:
            event.set()

    def changed(self, log_id: str) -> asyncio.Event:
        """Set at the next ``moved``; one event serves all who wait."""
        return self._events.setdefault(log_id, asyncio.Event())

    def work(self, name: str) -> None:
        """The log ``name`` has something for the background worker."""
        self.dirty.add(name)
        self.has_work.set()


@dataclass(slots=True, kw_only=True)
class Environment:
    """Shared by a client and all its handles."""

    url: str
    runtime: Runtime
    observer: Observer
    catalog: Catalog
    places: Places
    read_only: bool = False
    has_rights: bool = True  # False: sealed data is read through nodes, nothing is written
    is_closed: bool = False
    hub: Hub = field(default_factory=Hub)
    levels: Levels = field(init=False)

    def __post_init__(self) -> None:
        self.levels = Levels(self.observer)

    def history(self, manifest: Manifest) -> History:
        """Pages and registers of a log; they lie in its first storage."""
        return History(self.places.objects(manifest.storages[0]), self.runtime)

    def store_of(self, manifest: Manifest, segment: Segment) -> SegmentStore:
        """Where the blocks of a segment are."""
        return self.places.segments(segment.kind, manifest.storages[segment.storage])

    def objects_of(self, manifest: Manifest, segment: Segment) -> ObjectStore:
        """Where the sealed object of a segment is, or goes."""
        return self.places.objects(manifest.storages[segment.storage])

    def source(self, manifest: Manifest, segment: Segment) -> BlockSource:
        """Reader of one segment, in whatever state the manifest shows it."""
        ref = SegmentRef(log_id=manifest.log_id, segment=segment, name=manifest.name)
        if segment.sealed is not None:
            return SealedSource(self.objects_of(manifest, segment), self.runtime, ref)
        return self.store_of(manifest, segment).source(ref)

    async def segments(
        self, manifest: Manifest, *, from_seq: int = 0, from_us: int = 0
    ) -> AsyncIterator[Segment]:
        """Kept segments that end at or above ``from_seq`` and ``from_us``, oldest first."""
        history = self.history(manifest)
        async for segment in history.segments(manifest, from_seq=from_seq, from_us=from_us):
            yield segment
