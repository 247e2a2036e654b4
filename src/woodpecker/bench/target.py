"""What a bench run works on: a scratch store of its own inside the place it was given.

Nothing that was there before is touched, and all of it is removed afterwards.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from woodpecker.app import connect
from woodpecker.bench.nodes import Nodes, started_nodes
from woodpecker.bench.raw_object import RawStore
from woodpecker.bench.requests import Requests
from woodpecker.client.client import Client
from woodpecker.client.log import Log
from woodpecker.errors import InvalidRequest, WoodpeckerError
from woodpecker.observability.base import SILENT
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.cloud import CloudObjectStore
from woodpecker.storage.url import StoreSettings, parse_store_url

NEVER_FULL: dict[str, Any] = {"segment_max_bytes": 16 << 30, "segment_max_blocks": 1_000_000}


class Target:
    """The scratch store.

    Attributes:
        directory: where it lies on this machine; None for a bucket.
        storage: URL of a bucket that gets the segments while metadata stays in the directory, else None.
        nodes: LogStore nodes that run for this store; logs are of kind quorum then.
    """

    def __init__(self, url: str, directory: Path | None, storage: str | None = None) -> None:
        self.url = url
        self.directory = directory
        self.storage = storage
        self.nodes: Nodes | None = None
        self.settings: StoreSettings = parse_store_url(storage or url)
        self.requests = Requests()

    @property
    def is_file(self) -> bool:
        """Whether open segments are local files."""
        return self.directory is not None and self.storage is None and self.nodes is None

    @property
    def counts_requests(self) -> bool:
        """Whether this process asks an object store that bills requests."""
        return self.nodes is None and not self.is_file

    def connect(self, *, background: bool = True) -> Client:
        """A client of the scratch store, not open yet."""
        observer = self.requests if self.counts_requests else SILENT
        return connect(self.url, background=background, observer=observer)

    async def create_log(self, client: Client, name: str, *, may_roll: bool = True) -> Log:
        """A new log that keeps its segments where they are to be measured.

        ``may_roll``: nodes seal each full segment at once; without, none gets full.
        """
        if self.nodes is not None:
            limits = {} if may_roll else NEVER_FULL
            return await client.create_log(name, mode="quorum", **limits)
        log = await client.create_log(name)
        if self.storage is not None:
            await log.alter(mode="object", storage=self.storage)
        return log

    def raw(self) -> RawStore:
        """The same bucket without any log."""
        return RawStore(self.settings, os.environ)

    async def remove(self) -> None:
        """Delete everything the run has written, as far as the store can."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
        if self.settings.scheme == "file":
            return
        objects = CloudObjectStore(self.settings, SystemRuntime())
        with suppress(WoodpeckerError):  # a store without deletion keeps the scratch objects
            async for page in objects.list(""):
                await objects.delete([info.key for info in page])
        await objects.close()


@asynccontextmanager
async def open_target(
    url: str, storage: str | None = None, *, nodes: int = 0
) -> AsyncIterator[Target]:
    """A scratch store below ``url``, with LogStore nodes if wanted.

    Raises: InvalidRequest: not a directory or bucket; nodes elsewhere than on a directory.
    """
    target = make_target(url, storage)
    try:
        if not nodes:
            yield target
        elif target.directory is None or storage is not None:
            raise InvalidRequest("--nodes needs a directory: give --store DIR")
        else:
            async with started_nodes(target.directory, nodes) as target.nodes:
                target.url = target.nodes.url
                yield target
    finally:
        await target.remove()


def make_target(url: str, storage: str | None = None) -> Target:
    """Name a scratch store below ``url``, its segments below ``storage`` if that is given."""
    name = f"bench-{secrets.token_hex(4)}"
    if "://" not in url or url.startswith("file://"):
        base = (
            Path(parse_store_url(url).path) if "://" in url else Path(url).expanduser().absolute()
        )
        directory = base / name
        directory.mkdir(parents=True)
        below = None if storage is None else _below(storage, name)
        return Target(directory.as_uri(), directory, below)
    if url.startswith(("memory:", "wp:")):
        raise InvalidRequest(f"bench measures directories and buckets, not {url}")
    return Target(_below(url, name), None)


def _below(url: str, name: str) -> str:
    path, mark, query = url.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{query}"
