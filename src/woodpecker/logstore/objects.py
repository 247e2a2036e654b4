"""Sealed objects given out to clients that have no rights on the bucket."""

from __future__ import annotations

import contextlib

from woodpecker.client.environment import Environment
from woodpecker.codec import keys, records
from woodpecker.codec.compression import Buffer
from woodpecker.core.manifest import Manifest
from woodpecker.errors import Corrupt, InvalidRequest, NotFound

MAX_OBJECT_BYTES = 8 << 20  # of one answer
STORAGES_MS = 30_000.0  # all manifests are read for an unknown storage at most so often
STORAGES_PAGE = 50  # manifests decoded between two turns of the loop


class ObjectDesk:
    """Reads what a client may see: sealed segments, pages, registers, where some log keeps them."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._storages = {""}
        self._asked_ms: float | None = None

    def learn(self, manifest: Manifest) -> None:
        """The storages that a manifest names may be read from."""
        self._storages.update(manifest.storages)

    async def get(
        self, storage: str, key: str, start: int, length: int | None
    ) -> tuple[int | None, Buffer]:
        """Size of the object (None: not there) and bytes of it, at most MAX_OBJECT_BYTES.

        ``start`` below 0 counts from the end, ``length`` None goes to the end. Fewer bytes than that:
        ask for the rest.
        Raises: InvalidRequest: another kind of key, or a storage of no log. Unavailable.
        """
        found = keys.parse_object(key)
        if not isinstance(found, keys.SealedKey | keys.PageKey | keys.RegisterKey):
            raise InvalidRequest(
                f"nodes give out sealed segments, pages and registers, not {key!r}"
            )
        if length is not None and length < 0:
            raise InvalidRequest(f"{length} bytes of {key!r} cannot be read")
        if storage not in self._storages and not await self._is_named(storage):
            raise InvalidRequest(f"no log of this store keeps anything at {storage!r}")
        return await self._read(storage, key, start, length)

    async def _read(
        self, storage: str, key: str, start: int, length: int | None
    ) -> tuple[int | None, Buffer]:
        objects = self._env.places.objects(storage)
        wanted = MAX_OBJECT_BYTES if length is None else min(length, MAX_OBJECT_BYTES)
        if start < 0 or wanted == 0:
            info = await objects.head(key)
            if info is None or wanted == 0:
                return None if info is None else info.size, b""
            start = max(0, info.size + start)
        try:
            data, info = await objects.get(key, start=start, length=wanted)
        except NotFound:
            return None, b""
        return info.size, data

    async def _is_named(self, storage: str) -> bool:
        """Whether any manifest names the storage; they are not all read again for every stranger."""
        now_ms = self._env.runtime.monotonic_ms()
        if self._asked_ms is not None and now_ms - self._asked_ms < STORAGES_MS:
            return False
        self._asked_ms = now_ms
        store, start_after = self._env.catalog.store, ""
        while page := await store.list(keys.LOGS, start_after=start_after, limit=STORAGES_PAGE):
            for record in page:
                with contextlib.suppress(Corrupt, InvalidRequest):
                    self.learn(records.decode_manifest(record.value, where=record.key))
            start_after = page[-1].key
        return storage in self._storages
