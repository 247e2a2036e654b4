"""What this process and machine use: processor time, memory, descriptors, load."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
OWN = "self"


def now() -> float:
    """Seconds, monotonic, the same clock in every process of this machine."""
    return time.monotonic()


def cpu_seconds() -> float:
    """Processor time of this process so far, all threads."""
    return time.process_time()


def cpu_seconds_of(pid: int) -> float:
    """Processor time of another process so far; 0 where the system does not tell."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def load_average() -> tuple[float, float, float]:
    """Over 1, 5 and 15 minutes."""
    return os.getloadavg()


def forget_peak(pid: int | str = OWN) -> None:
    """Let ``peak_rss_mb`` count from now on, where the system can."""
    with suppress(OSError):
        (_PROC / str(pid) / "clear_refs").write_text("5")


def peak_rss_mb(pid: int | str = OWN) -> float:
    """Most memory (10^6 bytes) the process had resident since ``forget_peak``."""
    value = _status(pid, "VmHWM")
    if value or pid != OWN:
        return value
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def rss_mb(pid: int | str = OWN) -> float:
    """Resident memory now, 10^6 bytes."""
    return _status(pid, "VmRSS")


def open_descriptors(pid: int | str = OWN) -> int:
    """Descriptors of the process, where the system tells; else 0."""
    try:
        return len(os.listdir(_PROC / str(pid) / "fd"))
    except OSError:
        return 0


def _status(pid: int | str, name: str) -> float:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
