"""What this process and machine use: processor time, memory, descriptors, load."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_DESCRIPTORS = Path("/proc/self/fd")


def now() -> float:
    """Seconds, monotonic, the same clock in every process of this machine."""
    return time.monotonic()


def cpu_seconds() -> float:
    """Processor time of this process so far, all threads."""
    return time.process_time()


def load_average() -> tuple[float, float, float]:
    """Over 1, 5 and 15 minutes."""
    return os.getloadavg()


def forget_peak() -> None:
    """Let ``peak_rss_mb`` count from now on, where the system can."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def peak_rss_mb() -> float:
    """Most memory (10^6 bytes) this process had resident since ``forget_peak``."""
    value = _status("VmHWM")
    return value or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def rss_mb() -> float:
    """Resident memory now, 10^6 bytes."""
    return _status("VmRSS")


def open_descriptors() -> int:
    """Descriptors of this process, where the system tells; else 0."""
    try:
        return len(os.listdir(_DESCRIPTORS))
    except OSError:
        return 0


def _status(name: str) -> float:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
