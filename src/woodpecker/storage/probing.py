"""Does a store really honour conditions? Tried on the store itself, since some ignore them silently."""

from __future__ import annotations

from typing import assert_never

from woodpecker.errors import AlreadyExists, Conflict, OutcomeUnknown, Unavailable
from woodpecker.storage.base import Feature, ObjectStore


async def probe_feature(store: ObjectStore, feature: Feature, token: str) -> str | None:
    """Try ``feature`` with one object under ``probe/``, removed afterwards; None if it works.

    Raises:
        InvalidRequest, NotFound: credentials, rights or bucket.
        Unavailable: the store did not answer.
    """
    key = f"probe/{token}"
    try:
        match feature:
            case "create_if_absent":
                return await _probe_create(store, key)
            case "compare_and_swap":
                return await _probe_replace(store, key)
        assert_never(feature)
    except OutcomeUnknown as error:
        raise Unavailable(
            f"{store.url}: no definite answer to whether it honours conditions: {error}; try again"
        ) from error
    finally:
        await store.delete([key])


async def _probe_create(store: ObjectStore, key: str) -> str | None:
    await store.create(key, b"first")
    try:
        await store.create(key, b"second")
    except AlreadyExists:
        return None
    return (
        f"{store.url} has no create-if-absent: it overwrote an existing object although the request "
        f"said If-None-Match. Two writers could destroy each other's data; use a store that honours "
        f"conditional writes"
    )


async def _probe_replace(store: ObjectStore, key: str) -> str | None:
    stale = await store.create(key, b"first")
    try:
        current = await store.replace(key, b"second", etag=stale)
    except Conflict:
        return (
            f"{store.url} has no compare-and-swap: it refused If-Match with the object's own etag "
            f"(Ceph needs the option quoted_etags=false). Keep metadata elsewhere, or use another store"
        )
    try:
        await store.replace(key, b"third", etag=stale)
    except Conflict:
        return None
    return (
        f"{store.url} has no compare-and-swap: it overwrote version {current} although the request "
        f"said If-Match {stale}. Keep metadata elsewhere (metadata=...), or use another store"
    )
