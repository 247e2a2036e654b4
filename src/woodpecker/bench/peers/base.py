"""What a peer has to offer, and what its driver may need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from woodpecker.errors import WoodpeckerError


class NotHere(WoodpeckerError):
    """A peer that cannot be measured here; the text says what is missing."""

    code = "not_here"


class PeerLog(Protocol):
    """One log of a peer. Both return once the peer has acknowledged; order is that of the calls."""

    async def append(self, payload: bytes) -> object:
        """One entry."""

    async def append_many(self, payloads: Sequence[bytes]) -> object:
        """Several entries, in the quickest way the client has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running peer: ``settings`` say what its acknowledgement is worth; ``pids`` are its servers."""

    name: str
    settings: str
    log: PeerLog
    pids: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPlace:
    """Where a peer may work: a scratch directory, a cache that stays, addresses of running brokers."""

    directory: Path
    cache: Path
    kafka: str | None = None
    pulsar: str | None = None


Starter = Callable[[PeerPlace], AbstractAsyncContextManager[Sequence[Peer]]]
"""Starts a peer, in one or more settings. Raises: NotHere."""


def server_version(program: str) -> str:
    """What a server says of itself. Raises: NotHere: it does not run here."""
    try:
        done = subprocess.run(  # noqa: S603  a program that was found on PATH
            [program, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHere(f"{program} does not run: {error}") from error
    return done.stdout.strip()


def find_program(name: str, package: str) -> str:
    """Path of a server, on PATH or beside this interpreter. Raises: NotHere."""
    beside = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    found = shutil.which(name, path=beside)
    if found is None:
        raise NotHere(f"its server is not installed: {package}")
    return found


def client_library(module: str, package: str) -> Any:  # noqa: ANN401  whatever it is
    """Import the client of a peer. Raises: NotHere."""
    try:
        return import_module(module)
    except ImportError as error:
        raise NotHere(f"its client is not installed: pip install {package}") from error
