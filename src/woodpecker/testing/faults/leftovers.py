"""I9 by a plain look at the store: after garbage collection nothing is left over, nothing is missing."""

from __future__ import annotations

from collections.abc import Callable

import woodpecker as wp
from woodpecker.codec import keys
from woodpecker.codec.endmark import is_mark_size
from woodpecker.core.ids import Kind
from woodpecker.errors import InvalidRequest


async def leftovers(client: wp.Client, name: str, fail: Callable[[str, str], None]) -> None:
    """Compare what the store holds with what the manifest names; the log must be at rest."""
    env = client.environment
    manifest = await env.catalog.read(name)
    segments = [segment async for segment in env.segments(manifest)]
    named = {segment.sealed.key for segment in segments if segment.sealed is not None}
    named |= {page.key for page in manifest.pages}
    named |= {page.key async for page in env.history(manifest).inner_pages(manifest)}
    named |= {key for key in (manifest.register_key, manifest.anchor.register_key) if key}
    unsealed = {segment.id for segment in segments if segment.sealed is None}
    stored: set[str] = set()
    async for page in env.places.objects("").list(keys.log_prefix(manifest.log_id)):
        for info in page:
            found = keys.parse_object(info.key)
            if isinstance(found, keys.BlockKey):
                if found.segment_id not in unsealed and not is_mark_size(info.size):
                    fail("I9", f"block {info.key} of a segment that needs it no more")
            else:
                stored.add(info.key)
    for key in sorted(stored - named):
        fail("I9", f"object {key} that nothing names")
    for key in sorted(named - stored):
        fail("I9", f"object {key} is named and missing")
    try:
        buffer = env.places.segments(Kind.FILE, "")
    except InvalidRequest:
        return
    for segment_id, token in await buffer.held(manifest.log_id):
        # of a segment that was never opened: it stays until its number has been used by another
        if segment_id not in unsealed and segment_id < manifest.next_segment_id:
            fail("I9", f"file of segment {segment_id} ({token}) that nothing needs any more")
