"""Work on the kept segments of a log, beside workers that trim and seal it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from woodpecker.client.environment import Environment
from woodpecker.core.manifest import Manifest
from woodpecker.errors import Corrupt, NotFound

T = TypeVar("T")


async def on_kept(
    env: Environment, manifest: Manifest, work: Callable[[Manifest], Awaitable[T]]
) -> T:
    """The result of ``work`` on ``manifest``, or on a newer one if that was overtaken.

    ``work`` may be begun several times: what was trimmed goes with its pages and registers, and blocks go
    when they are sealed.
    Raises:
        NotFound: the log is gone. Corrupt: what the newest manifest names is not there.
        What ``work`` raises, but for NotFound. Unavailable.
    """
    while True:
        try:
            return await work(manifest)
        except NotFound as error:
            now = await env.catalog.read(manifest.name, log_id=manifest.log_id)
            if now == manifest:
                where = f"log {manifest.name!r}"
                raise Corrupt(
                    f"{where}: what the manifest names is not there: {error}", where=where
                ) from error
            manifest = now
