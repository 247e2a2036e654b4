"""Port: a small key-value store with linearizable reads and compare-and-swap.

Versions are opaque, never repeat for a key, not even after a removal and re-creation (log protocol,
section 1). A store never retries a write by itself: after ``OutcomeUnknown`` the caller reads and
decides by effect. Keys are ASCII, parts joined by ``/``; values at most 1 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One key's value and its version."""

    key: str
    value: bytes
    version: str


class Lease(Protocol):
    """A held lease: a hint that one process works at a time. Never the ground of a safety rule."""

    @property
    def lost(self) -> bool:
        """True once it may have passed to somebody else."""

    async def release(self) -> None:
        """Give it up at once; renewal stops. No error if it is lost already."""


class MetadataStore(Protocol):
    """Where manifests, cursors and leases live."""

    @property
    def url(self) -> str:
        """The store's URL without secrets, for messages."""

    async def get(self, key: str) -> Record | None:
        """Linearizable read. Raises: Unavailable."""

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        """Write if the version is ``expect`` (None: the key must be absent); return the new version.

        Raises:
            Conflict: the condition does not hold.
            OutcomeUnknown: no definite answer; the write may take effect, even later.
            Unavailable: certainly not applied.
        """

    async def remove(self, key: str, *, expect: str) -> bool:
        """Remove the key if the version is ``expect``. False: the store has no conditional removal.

        Raises: Conflict, OutcomeUnknown, Unavailable as in ``put``.
        """

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        """Up to ``limit`` records under ``prefix`` with keys after ``start_after``, sorted by key.

        Raises: Unavailable.
        """

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        """Return when the version of ``key`` may differ from ``version``, or after ``timeout_ms``.

        A hint for waiting readers: it may return early, and never raises for a store that is away.
        """

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        """Try once to become holder of the lease; renewed in the background until released.

        None: somebody else holds it. A holder that dies is followed within about 2 * ttl_ms.
        Raises: Unavailable.
        """

    async def close(self) -> None:
        """Release connections and stop renewals."""
