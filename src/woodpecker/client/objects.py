"""Objects of a layer above that belong to one log: checkpoints and the like (log protocol, section 11).

They lie under the log's id in its first storage. Sweeps leave them alone, exports take them along, and
deleting the log deletes them. An object never changes once it is there: a holder that was paused
cannot overwrite what its successor wrote; who needs a new version takes a new name.
"""

from __future__ import annotations

from dataclasses import dataclass

from woodpecker.client.environment import Environment
from woodpecker.codec import keys
from woodpecker.core.backoff import delay_ms
from woodpecker.errors import AlreadyExists, InvalidRequest, NotFound, OutcomeUnknown
from woodpecker.storage.base import Buffer, ObjectStore

TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LogObject:
    """One object as listed."""

    name: str
    size: int


class LogObjects:
    """The objects of one incarnation of a log; ``log.objects``.

    Names are parts joined by ``/``, each like a log's name: ``checkpoints/000017``. Do not use a name
    that is also the folder of others (``a`` and ``a/b``): directories, and some servers, cannot keep both.
    Raises (all methods): NotFound: the log was deleted. InvalidRequest: bad name. Unavailable.
    Concurrency: any number of tasks.
    """

    def __init__(self, env: Environment, log: str, log_id: str) -> None:
        self._env = env
        self._log = log
        self._log_id = log_id

    async def put(self, name: str, data: Buffer) -> None:
        """Write an object, in one request. Putting the same bytes again succeeds.

        Raises: AlreadyExists: other bytes are there. OutcomeUnknown: put it again.
        Cancellation: the object may be there.
        """
        self._check_writable()
        key = keys.caller_object(self._log_id, name)
        objects = await self._store()
        await self._create(objects, key, name, data)
        try:
            await self._store()
        except NotFound:  # deleted meanwhile: whoever cleaned up may not have seen it
            await objects.delete([key])
            raise

    async def get(self, name: str) -> Buffer:
        """The bytes of an object. Raises: NotFound: no such object."""
        key = keys.caller_object(self._log_id, name)
        objects = await self._store()
        try:
            return (await objects.get(key))[0]
        except NotFound as error:
            raise NotFound(f"log {self._log!r} has no object {name!r}") from error

    async def list(self, prefix: str = "") -> list[LogObject]:
        """All objects whose names begin with ``prefix``, sorted by name."""
        objects = await self._store()
        root = keys.objects_prefix(self._log_id)
        return [
            LogObject(name=info.key.removeprefix(root), size=info.size)
            async for page in objects.list(root + prefix)
            for info in page
        ]

    async def delete(self, *names: str) -> None:
        """Delete objects; absent ones are no error."""
        self._check_writable()
        doomed = [keys.caller_object(self._log_id, name) for name in names]
        objects = await self._store()
        if doomed:
            await objects.delete(doomed)

    async def _create(self, objects: ObjectStore, key: str, name: str, data: Buffer) -> None:
        for attempt in range(1, TRIES + 1):
            try:
                await objects.create(key, data)
                return
            except AlreadyExists:
                there, _ = await objects.get(key)
                if memoryview(there) != memoryview(data):
                    raise AlreadyExists(
                        f"log {self._log!r}: object {name!r} is there with other bytes; objects do not "
                        "change, take another name"
                    ) from None
                return
            except OutcomeUnknown:
                if attempt == TRIES:
                    raise
            await self._env.runtime.sleep_ms(delay_ms(attempt, self._env.runtime.random()))

    async def _store(self) -> ObjectStore:
        manifest = await self._env.catalog.read(self._log, log_id=self._log_id)
        return self._env.places.objects(manifest.storages[0])

    def _check_writable(self) -> None:
        if self._env.read_only:
            raise InvalidRequest("this client was opened read_only=True: nothing can be changed")
