"""Who holds the lock of a SQLite database, for an error text that says whom to look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def lock_holders(database: Path) -> str:
    """Name the processes that hold a write lock on the database, as far as the system tells.

    Linux shows locks in ``/proc/locks`` (proc(5)): by inode, with the holder's pid in our namespace.
    """
    inodes = set(_inodes(database))
    try:
        lines = (PROC / "locks").read_text().splitlines()
    except OSError:
        lines = []
    holders = []
    for line in lines:
        fields = line.split()
        if len(fields) == 8 and fields[3] == "WRITE" and fields[5].rpartition(":")[2] in inodes:
            holders.append(_describe(fields[4]))
    return ", ".join(sorted(set(holders))) or "another process"


def _inodes(database: Path) -> Iterator[str]:
    for path in (database, database.with_name(database.name + "-shm")):
        try:
            yield str(path.stat().st_ino)
        except OSError:
            continue


def _describe(pid: str) -> str:
    if not pid.isdecimal() or pid == "0":
        return "a process of another container"
    try:
        name, _, rest = (PROC / pid / "stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return f"process {pid}"
    stopped = ", stopped" if rest.split()[:1] in (["T"], ["t"]) else ""
    return f"process {pid} ({name}{stopped})"
