"""Old segments move out of the manifest into pages, and pages into pages, so that it stays small."""

from __future__ import annotations

from woodpecker.client.environment import Environment
from woodpecker.core.commands import SpillPage
from woodpecker.core.retention import fold_due, spill_due
from woodpecker.errors import Conflict


async def spill(env: Environment, name: str, *, log_id: str | None = None) -> int:
    """Write the pages that are due; returns how many.

    A page that lost its race lies around until the sweep.
    Raises: NotFound, Unavailable, OutcomeUnknown.
    """
    count = 0
    while True:
        manifest = await env.catalog.read(name, log_id=log_id)
        history = env.history(manifest)
        run = fold_due(manifest)
        segments = spill_due(manifest)
        if segments:
            page = await history.store_page(manifest.log_id, 0, segments)
        elif run is not None:
            level, first, end = run
            page = await history.store_page(manifest.log_id, level + 1, manifest.pages[first:end])
        else:
            return count
        try:
            await env.catalog.change(name, SpillPage(log_id=manifest.log_id, page=page))
        except Conflict:
            continue  # trimmed, or spilled by another worker
        env.hub.moved(manifest.log_id)
        count += 1
