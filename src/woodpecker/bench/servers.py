"""Object stores that bench can start by itself, on loopback, for as long as the run lasts."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from woodpecker.bench.processes import HOST, free_port, serving
from woodpecker.errors import InvalidRequest

BUCKET = "bench"
SERVERS = ("seaweed", "localbucket")


@dataclass(frozen=True, slots=True)
class Place:
    """Store URL, and the bucket for segments where metadata has to lie elsewhere."""

    store: str
    storage: str | None = None


@asynccontextmanager
async def started(name: str) -> AsyncIterator[Place]:
    """Start server ``name``; its credentials go into this process's environment."""
    directory = Path(tempfile.mkdtemp(prefix="woodpecker-bench-"))
    try:
        serve = {"seaweed": _seaweed, "localbucket": _localbucket}.get(name)
        if serve is None:
            raise InvalidRequest(f"server {name!r}: one of {', '.join(SERVERS)}")
        async with serve(directory) as place:
            yield place
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _seaweed(directory: Path) -> AsyncIterator[Place]:
    """A real S3 server that syncs nothing and hashes much."""
    try:
        from woodpecker.testing.servers.seaweed import SeaweedServer  # noqa: PLC0415  an extra
    except ImportError as error:
        raise InvalidRequest(
            f"seaweed needs an extra: pip install 'woodpecker-wal[testing]' ({error})"
        ) from error
    server = SeaweedServer(directory, buckets=(BUCKET,))
    await server.start()
    os.environ.update(server.credentials)
    try:
        yield Place(server.url(BUCKET))
    finally:
        await server.stop()


@asynccontextmanager
async def _localbucket(directory: Path) -> AsyncIterator[Place]:
    """The quickest S3 server that pip installs. It cannot compare and swap: metadata lies elsewhere."""
    if find_spec("localbucket") is None:
        raise InvalidRequest("localbucket is not installed: pip install localbucket==1.2.1")
    (directory / BUCKET).mkdir()
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "woodpecker.bench.fast_server",
        str(directory),
        "--port",
        str(port),
    ]
    os.environ.update({"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"})
    async with serving(argv, port, directory / "server.log"):
        yield Place(str(directory / "store"), f"s3://{BUCKET}/?endpoint=http://{HOST}:{port}")
