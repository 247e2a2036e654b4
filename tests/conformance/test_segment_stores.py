"""The suite of segment stores, on all of ours."""

from __future__ import annotations

import pytest

from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.segments.file import FileSegments
from woodpecker.segments.object import ObjectSegments
from woodpecker.storage.memory import MemoryBucket, MemoryObjectStore
from woodpecker.testing.conformance.segment_store import SegmentStoreSuite

RUNTIME = SystemRuntime()


class TestFile(SegmentStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        return lambda: FileSegments(tmp_path / "buffer", RUNTIME)


class TestObject(SegmentStoreSuite):
    @pytest.fixture
    def open_store(self):
        bucket = MemoryBucket()
        return lambda: ObjectSegments(MemoryObjectStore(bucket, RUNTIME), RUNTIME)
