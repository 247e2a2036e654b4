"""Which file system a path lies on: locks and syncs are trusted on known local ones only."""

from __future__ import annotations

import sys
from pathlib import Path

# allow-list: everything else (nfs, cifs, fuse, 9p, virtiofs, ...) is treated as a network file system
LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "bcachefs"}
)
MOUNTS = Path("/proc/self/mounts")


def is_network(path: Path) -> bool:
    """Whether ``path`` (or where it would be made) is not known to be on a local file system."""
    if sys.platform != "linux":
        return False  # written for, not tested: APFS and HFS+ are local
    return file_system_of(path) not in LOCAL


def file_system_of(path: Path) -> str:
    """Name of the file system type, "" if it cannot be told."""
    target = path.expanduser().absolute()
    while not target.exists() and target != target.parent:
        target = target.parent
    target = target.resolve()
    best, name = -1, ""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        mount = Path(fields[1].replace("\\040", " "))
        if target.is_relative_to(mount) and len(str(mount)) >= best:
            best, name = len(str(mount)), fields[2]
    return name
