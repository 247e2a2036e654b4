"""The suite of disks, on the real one and on the simulated one."""

from __future__ import annotations

import os
import random

import pytest

from woodpecker.direct_file import DataFile
from woodpecker.logstore.disk_files import DirectoryDisk
from woodpecker.testing.conformance.disk import DiskSuite
from woodpecker.testing.sim_disk import SimDisk


class TestDirectory(DiskSuite):
    @pytest.fixture
    def open_disk(self, tmp_path):
        return lambda: DirectoryDisk(tmp_path / "node")


class TestDirectoryWithoutDirectWrites(DiskSuite):
    """As on file systems that refuse O_DIRECT."""

    @pytest.fixture
    def open_disk(self, tmp_path, monkeypatch):
        real = vars(DataFile)["open"].__func__
        monkeypatch.setattr(
            DataFile,
            "open",
            classmethod(lambda cls, path, flags, **_: real(cls, path, flags, direct=False)),
        )
        return lambda: DirectoryDisk(tmp_path / "node")


class TestSimulated(DiskSuite):
    @pytest.fixture
    def open_disk(self):
        disk = SimDisk(random.Random(1), sync_ms=(0.0, 0.1))
        return disk.open


async def test_a_file_never_finished_is_dropped(tmp_path):
    (tmp_path / "000000000007.journal.new").write_bytes(b"half")
    (tmp_path / "identity.new").write_bytes(b"half")
    disk = DirectoryDisk(tmp_path)
    await disk.close()
    assert sorted(os.listdir(tmp_path)) == ["lock"]
