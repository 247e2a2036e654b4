"""What says that a place is a Woodpecker store, and which one (keys ``woodpecker.json``, ``meta/store``).

The marker lies in the object store and in the metadata store, with the same id: a bucket whose
metadata is looked for in the wrong place, or two stores over one root, are told apart at once.
"""

from __future__ import annotations

from woodpecker.codec import keys, records
from woodpecker.codec.records import StoreMarker
from woodpecker.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from woodpecker.metadata.base import MetadataStore
from woodpecker.storage.base import ObjectStore

METADATA_KEY = "meta/store"
TRIES = 5


async def check_store(
    objects: ObjectStore, metadata: MetadataStore, *, new_id: str, may_create: bool
) -> str:
    """Make sure that both places belong to one store, making a new one of empty places.

    Returns: the store's id.
    Raises:
        NotFound: there is no store and none may be made.
        InvalidRequest: the places belong to different stores, hold something else, or were written
        by a newer version. Unavailable: a place is away.
    """
    for _ in range(TRIES):
        in_objects = await store_at(objects)
        in_metadata = await _in_metadata(metadata)
        if in_objects is not None and in_objects == in_metadata:
            return in_objects
        _refuse_strangers(objects, metadata, in_objects, in_metadata)
        if not may_create:
            raise NotFound(f"there is no Woodpecker store at {objects.url}")
        await _refuse_occupied(objects)
        if in_metadata is None:
            await _put_metadata(metadata, new_id)
        else:
            await _refuse_other_root(objects, metadata)
            await _put_objects(objects, in_metadata)
    raise Unavailable(f"{objects.url}: the store could not be set up; try again")


async def check_metadata(metadata: MetadataStore, store_id: str) -> None:
    """Make sure that the metadata is of that store. Raises: InvalidRequest, Unavailable."""
    found = await _in_metadata(metadata)
    if found != store_id:
        raise InvalidRequest(
            f"the metadata at {metadata.url} is of store {found}, but the nodes that were asked serve "
            f"store {store_id}: use the metadata= that they use"
        )


def _refuse_strangers(
    objects: ObjectStore,
    metadata: MetadataStore,
    in_objects: str | None,
    in_metadata: str | None,
) -> None:
    if in_objects is None:
        return
    if in_metadata is None:
        raise InvalidRequest(
            f"{objects.url} belongs to a store whose metadata is not at {metadata.url}: "
            "pass the metadata= that the store was made with, or put back what was lost there"
        )
    raise InvalidRequest(
        f"two stores with one root: {objects.url} is store {in_objects}, but the metadata at "
        f"{metadata.url} is of store {in_metadata}; give each store a root of its own"
    )


async def store_at(objects: ObjectStore) -> str | None:
    """Id of the store whose objects lie there; None: of none.

    Raises: Unavailable; InvalidRequest, NotFound: credentials or bucket refused.
    """
    try:
        data, _ = await objects.get(keys.STORE_MARKER)
    except NotFound:
        return None
    where = f"{objects.url}/{keys.STORE_MARKER}"
    return records.decode_store_marker(data, where=where).store_id


async def _in_metadata(metadata: MetadataStore) -> str | None:
    record = await metadata.get(METADATA_KEY)
    if record is None:
        return None
    where = f"{metadata.url}#{METADATA_KEY}"
    return records.decode_store_marker(record.value, where=where).store_id


async def _refuse_occupied(objects: ObjectStore) -> None:
    """A place that holds something else is not turned into a store."""
    async for page in objects.list(""):
        strangers = [i.key for i in page if not i.key.startswith(("meta/", "probe/"))]
        if strangers and await store_at(objects) is None:  # else another client was faster
            raise InvalidRequest(
                f"{objects.url} is not a Woodpecker store and is not empty (it holds "
                f"{strangers[0]!r}): use an empty directory or prefix"
            )


async def _refuse_other_root(objects: ObjectStore, metadata: MetadataStore) -> None:
    """Metadata that knows logs has its objects somewhere: taken for empty here, they would be lost."""
    if await metadata.list(keys.LOGS, limit=1) and await store_at(objects) is None:
        raise InvalidRequest(
            f"the metadata at {metadata.url} is of a store whose objects are not at {objects.url}: "
            "use the URL that the store was made with"
        )


async def _put_metadata(metadata: MetadataStore, store_id: str) -> None:
    value = records.encode_store_marker(StoreMarker(store_id=store_id))
    try:
        await metadata.put(METADATA_KEY, value, expect=None)
    except (Conflict, OutcomeUnknown):
        return  # the next look tells


async def _put_objects(objects: ObjectStore, store_id: str) -> None:
    try:
        await objects.create(
            keys.STORE_MARKER, records.encode_store_marker(StoreMarker(store_id=store_id))
        )
    except (AlreadyExists, OutcomeUnknown):
        return
