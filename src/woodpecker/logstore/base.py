"""Port: what a node needs from the cluster around it. Implemented by ``keeper.py`` with a client of its own."""

from __future__ import annotations

from typing import Protocol

from woodpecker.codec.compression import Buffer
from woodpecker.core.manifest import End


class Keeper(Protocol):
    """Looks after what a node holds: seals it, finds out what may go."""

    def tell(self, name: str) -> None:
        """The manifest of log ``name`` has moved, or a copy of it appeared here. Returns at once."""

    async def upload(self, name: str, log_id: str, segment_id: int, end: End) -> None:
        """Write the sealed object of a segment that ends at ``end``, from this node's copy.

        Raises: NotFound, Conflict: the manifest has moved on. Unavailable, OutcomeUnknown, Corrupt.
        """

    async def get_object(
        self, storage: str, key: str, start: int, length: int | None
    ) -> tuple[int | None, Buffer]:
        """Size (None: not there) and bytes of a sealed object, page or register.

        Raises: InvalidRequest: another kind of key. Unavailable.
        """
