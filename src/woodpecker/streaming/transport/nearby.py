"""``Dialer`` of a process that serves something itself: what is here is reached without a network."""

from __future__ import annotations

from collections.abc import Collection

from woodpecker.streaming.ports import Dialer, Endpoint


class NearbyDialer:
    """Endpoints in this process by ``near``, all others by ``far``.

    Args:
        here: addresses of what this process serves; may grow.
    """

    def __init__(self, near: Dialer, far: Dialer, here: Collection[str]) -> None:
        self._near = near
        self._far = far
        self._here = here

    def endpoint(self, address: str) -> Endpoint:
        return (self._near if address in self._here else self._far).endpoint(address)

    async def close(self) -> None:
        await self._near.close()
        await self._far.close()
