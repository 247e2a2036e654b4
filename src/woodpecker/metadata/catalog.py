"""The typed view of the metadata store: manifests, and the one loop that changes them.

Every change is ``core.transitions.apply`` written by compare-and-swap. When the answer to a CAS is
lost, the identical bytes are sent again under the same condition, and what the state then shows
decides (log protocol, section 1, ambiguous CAS).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from woodpecker.codec import keys, records
from woodpecker.core.backoff import delay_ms
from woodpecker.core.commands import Command, Refusal, Refused
from woodpecker.core.manifest import Manifest
from woodpecker.core.transitions import apply, took_effect
from woodpecker.errors import (
    AlreadyExists,
    Conflict,
    Corrupt,
    Fenced,
    InvalidRequest,
    LogEnded,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.metadata.base import MetadataStore
from woodpecker.runtime.runtime import Runtime

CHANGE_TIMEOUT_MS = 30_000

MakeCommand = Callable[[Manifest | None], Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """A manifest (None: the name was never used) and the version it was read at."""

    manifest: Manifest | None
    version: str | None


class Catalog:
    """Manifests by log name. Any number of tasks; each operation stands for itself."""

    def __init__(self, store: MetadataStore, runtime: Runtime, *, read_only: bool = False) -> None:
        self.store = store
        self._runtime = runtime
        self._read_only = read_only

    async def load(self, name: str) -> Versioned:
        """Linearizable read; a tombstone is returned as it is.

        Raises: Unavailable; Corrupt or InvalidRequest (newer format): the record cannot be read.
        """
        record = await self.store.get(keys.manifest(name))
        if record is None:
            return Versioned(manifest=None, version=None)
        manifest = records.decode_manifest(record.value, where=f"{self.store.url}#{record.key}")
        return Versioned(manifest=manifest, version=record.version)

    async def read(self, name: str, *, log_id: str | None = None) -> Manifest:
        """The manifest of a living log; with ``log_id``, of that incarnation of the name.

        Raises: NotFound: no such log (any more); and as in ``load``.
        """
        return (await self.look(name, log_id=log_id))[0]

    async def look(self, name: str, *, log_id: str | None = None) -> tuple[Manifest, str | None]:
        """As ``read``, together with the version to wait on. Raises: as ``read``."""
        seen = await self.load(name)
        manifest = seen.manifest
        if manifest is None or manifest.is_tombstone or manifest.deleting:
            raise NotFound(f"log {name!r} does not exist in {self.store.url}")
        if log_id is not None and manifest.log_id != log_id:
            raise NotFound(f"log {name!r} was deleted and created anew: open it again")
        return manifest, seen.version

    async def names(self, prefix: str = "", *, dead: bool = False) -> list[str]:
        """Names of living logs beginning with ``prefix``, sorted; with ``dead`` tombstones instead."""
        found: list[str] = []
        start_after = ""
        while True:
            page = await self.store.list(keys.LOGS + prefix, start_after=start_after)
            for record in page:
                manifest = records.decode_manifest(record.value, where=record.key)
                if (manifest.is_tombstone or manifest.deleting) is dead:
                    found.append(manifest.name)
            if not page:
                return found
            start_after = page[-1].key

    async def change(
        self,
        name: str,
        command: Command | MakeCommand,
        *,
        timeout_ms: int = CHANGE_TIMEOUT_MS,
    ) -> Manifest:
        """Carry ``command`` out on the log's manifest; return the state that shows its effect.

        A callable makes the command from the state first read, once: it must not be made anew later.
        Raises:
            NotFound, AlreadyExists, Conflict, Fenced, LogEnded, Corrupt: the command was refused.
            Unavailable: not applied. OutcomeUnknown: sent, and no word about it in time.
        Cancellation: the command may still take effect.
        """
        if self._read_only:
            raise InvalidRequest("this client was opened read_only=True: nothing can be changed")
        change = _Change(self, name, command, self._runtime, timeout_ms)
        return await change.run()


class _Change:
    """One command on its way into the manifest."""

    def __init__(
        self,
        catalog: Catalog,
        name: str,
        command: Command | MakeCommand,
        runtime: Runtime,
        timeout_ms: int,
    ) -> None:
        self._catalog = catalog
        self._name = name
        self._make = command if callable(command) else None
        self._command: Command | None = None if callable(command) else command
        self._runtime = runtime
        self._deadline_ms = runtime.monotonic_ms() + timeout_ms
        self._doubt: tuple[Manifest, bytes, str | None] | None = None  # sent, no answer
        self._sent = False
        self._is_unknown = False  # what was sent last may have taken effect, or may still

    async def run(self) -> Manifest:
        attempt = 0
        while True:
            try:
                done = await self._attempt()
            except (Unavailable, OutcomeUnknown) as error:
                attempt += 1
                await self._pause(attempt, error)
                continue
            if done is not None:
                return done

    async def _attempt(self) -> Manifest | None:
        """Read, decide, write; None: the version moved, read again."""
        seen = await self._catalog.load(self._name)
        if self._command is None:
            assert self._make is not None
            self._command = self._make(seen.manifest)
        if self._sent and took_effect(seen.manifest, self._command):
            assert seen.manifest is not None
            return seen.manifest
        if self._doubt is None or self._doubt[2] != seen.version:
            after = apply(seen.manifest, self._command)
            if isinstance(after, Refusal):
                raise _error(self._name, after)
            if after == seen.manifest:
                return after
            after = replace(after, nonce=self._runtime.token())
            self._doubt = (after, records.encode_manifest(after), seen.version)
            self._is_unknown = False  # the version moved without the effect
        return await self._write(*self._doubt)

    async def _write(self, after: Manifest, data: bytes, version: str | None) -> Manifest | None:
        self._sent = True
        try:
            await self._catalog.store.put(keys.manifest(self._name), data, expect=version)
        except Conflict:
            return None
        except OutcomeUnknown:
            self._is_unknown = True
            raise
        return after

    async def _pause(self, attempt: int, error: WoodpeckerError) -> None:
        if self._runtime.monotonic_ms() >= self._deadline_ms:
            if self._is_unknown:
                raise OutcomeUnknown(
                    f"log {self._name!r}: a change of its metadata was sent to "
                    f"{self._catalog.store.url} and not answered: {error}"
                ) from error
            raise error
        await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))


def _error(name: str, refusal: Refusal) -> WoodpeckerError:
    """The public error for a refused command."""
    text = f"log {name!r}: {refusal.detail}"
    match refusal.why:
        case Refused.NOT_FOUND:
            return NotFound(text)
        case Refused.EXISTS:
            return AlreadyExists(text + "; pass exist_ok=True to open it instead")
        case Refused.FENCED:
            return Fenced(text, outcome="unknown")
        case Refused.ENDED:
            return LogEnded(text + "; nothing can be appended to it any more")
        case Refused.CLAIM | Refused.STALE:
            return Conflict(text)
        case Refused.BROKEN:
            return Corrupt(text, where=name)
