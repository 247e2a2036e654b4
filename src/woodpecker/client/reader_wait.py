"""Waiting at the tail: for new blocks, or for a manifest that says how it goes on."""

from __future__ import annotations

import asyncio

from woodpecker.client.environment import Environment
from woodpecker.codec import keys
from woodpecker.segments.base import BlockSource

FIRST_LOOK_MS = 1_000.0  # the manifest is read again at least this often,
LAST_LOOK_MS = 5_000.0  # growing to this while it stays the same
WATCH_MS = 60_000


class TailWait:
    """One reader's waiting; owns the tasks that watch for it."""

    def __init__(self, env: Environment, name: str, log_id: str) -> None:
        self._env = env
        self._key = keys.manifest(name)
        self._log_id = log_id
        self._wake = asyncio.Event()
        self._hub_event = env.hub.changed(log_id)
        self._version: str | None = None
        self._look_ms = FIRST_LOOK_MS
        self._look_at_ms = 0.0
        self._moved = False
        self._watches: list[asyncio.Task[None]] = []

    def before_look(self) -> None:
        """The manifest is about to be read: what moves from now on counts."""
        self._hub_event = self._env.hub.changed(self._log_id)

    async def looked(self, version: str | None) -> None:
        """The manifest was read at ``version``."""
        is_same = version == self._version
        self._look_ms = min(1.5 * self._look_ms, LAST_LOOK_MS) if is_same else FIRST_LOOK_MS
        self._look_at_ms = self._env.runtime.monotonic_ms() + self._look_ms
        self._version = version
        self._moved = False
        await self._stop_watching()

    async def wait(self, source: BlockSource | None, seq: int) -> bool:
        """Wait until ``source`` may show more than ``seq``, or the manifest has to be read again.

        Returns: whether it is the manifest.
        Raises: what the source raises.
        """
        left_ms = self._look_at_ms - self._env.runtime.monotonic_ms()
        if left_ms <= 0 or self._moved:
            return True
        spawn = self._env.runtime.spawn
        if not self._watches:
            self._watches = [
                spawn(self._watch_hub(self._hub_event), "watch hub"),
                spawn(self._watch_store(self._version), "watch manifest"),
            ]
        self._wake.clear()
        task = spawn(self._wait_source(source, seq, left_ms), "wait for the tail")
        try:
            await self._wake.wait()
        finally:
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            raise outcome
        return self._moved

    async def close(self) -> None:
        """Stop all watching."""
        await self._stop_watching()

    async def _wait_source(self, source: BlockSource | None, seq: int, left_ms: float) -> None:
        try:
            if source is None:
                await self._env.runtime.sleep_ms(left_ms)
            else:
                await source.wait_visible(seq, max(1, int(left_ms)))
        finally:
            self._wake.set()

    async def _watch_hub(self, event: asyncio.Event) -> None:
        await event.wait()
        self._move()

    async def _watch_store(self, version: str | None) -> None:
        await self._env.catalog.store.wait_change(self._key, version, WATCH_MS)
        self._move()

    def _move(self) -> None:
        self._moved = True
        self._wake.set()

    async def _stop_watching(self) -> None:
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
