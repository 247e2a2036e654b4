"""Which file system a path lies on: locks, direct writes and syncs are trusted on known local ones only."""

from __future__ import annotations

import os
from pathlib import Path

# Where O_DIRECT, flock, mmap and fsync mean what section 6 of the protocol needs. Network, FUSE and
# stacked file systems are left out on purpose: some of them lose one of these silently.
LOCAL_FILE_SYSTEMS = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "tmpfs", "xfs", "zfs"}
)
UNKNOWN = "unknown"
_MOUNTS = Path("/proc/self/mountinfo")  # Linux only; elsewhere nothing is known


def is_local(path: Path) -> bool:
    """Whether ``path`` (which need not exist yet) is on a local file system that is known to behave."""
    return file_system_of(path) in LOCAL_FILE_SYSTEMS


def file_system_of(path: Path) -> str:
    """Type of the file system that holds ``path`` (which need not exist yet); "unknown" if hidden."""
    real = os.path.realpath(path)
    best, kind = "", UNKNOWN
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return kind
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount = fields.split()[4].encode().decode("unicode_escape")
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, rest.split()[0]
    return kind
