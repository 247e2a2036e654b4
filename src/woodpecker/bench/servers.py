"""Object stores that bench can start by itself, on loopback, for as long as the run lasts."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from woodpecker.bench.processes import child_environment
from woodpecker.errors import InvalidRequest, Unavailable

BUCKET = "bench"
START_TRIES, TRY_S = 200, 0.05
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
    port = _free_port()
    with (directory / "server.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "woodpecker.bench.fast_server", str(directory), "--port", str(port),
            stdout=output, stderr=output, env=child_environment(),
        )  # fmt: skip
    os.environ.update({"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"})
    try:
        await _answering(port)
        bucket = f"s3://{BUCKET}/?endpoint=http://127.0.0.1:{port}"
        yield Place(str(directory / "store"), bucket)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _answering(port: int) -> None:
    for _ in range(START_TRIES):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(TRY_S)
    raise Unavailable(f"the server on port {port} does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
