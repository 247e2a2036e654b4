"""Simulated metadata store: records in memory, reached over a line that loses, delays and repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from woodpecker.errors import Closed
from woodpecker.metadata.base import Lease, Record
from woodpecker.metadata.lease import RecordLeases
from woodpecker.metadata.memory import MemoryMetadata
from woodpecker.runtime.runtime import Runtime
from woodpecker.testing.sim.line import Line, now
from woodpecker.testing.sim.trace import kind_of, name_of, value_of
from woodpecker.testing.sim.weather import READ_FAULTS, WRITE_FAULTS, Fault

T = TypeVar("T")
WATCH_LATE_MS = 8_000.0


class SimMetadata:
    """A ``MetadataStore`` of one process; ``inner`` is the server, shared and never closed.

    Args:
        after_put: told key and value of each write that took effect.
    """

    def __init__(
        self,
        inner: MemoryMetadata,
        line: Line,
        runtime: Runtime,
        *,
        after_put: Callable[[str, bytes], None] = lambda _, __: None,
    ) -> None:
        self._inner = inner
        self._line = line
        self._runtime = runtime
        self._after_put = after_put
        self._leases = RecordLeases(self, runtime)
        self._is_closed = False

    @property
    def url(self) -> str:
        return self._inner.url

    async def get(self, key: str) -> Record | None:
        return await self._read(
            f"get {kind_of(key)}", f"get {name_of(key)}", lambda: now(self._inner.get(key))
        )

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        self._check_open()
        text = f"put {name_of(key)}"
        if self._line.server.trace is not None:
            text += f" over {expect}: {value_of(key, value)}"

        def effect() -> str:
            version = now(self._inner.put(key, value, expect=expect))
            self._after_put(key, value)
            return version

        return await self._line.ask(
            f"put {kind_of(key)}", text, effect, possible=WRITE_FAULTS, is_write=True
        )

    async def remove(self, key: str, *, expect: str) -> bool:
        self._check_open()
        return await self._line.ask(
            f"remove {kind_of(key)}",
            f"remove {name_of(key)} over {expect}",
            lambda: now(self._inner.remove(key, expect=expect)),
            possible=WRITE_FAULTS,
            is_write=True,
        )

    async def list(
        self, prefix: str, *, start_after: str = "", limit: int = 1000
    ) -> Sequence[Record]:
        return await self._read(
            "list records",
            f"list {prefix}",
            lambda: now(self._inner.list(prefix, start_after=start_after, limit=limit)),
        )

    async def wait_change(self, key: str, version: str | None, timeout_ms: int) -> None:
        """Wakes late, or for nothing, as any watch may; never later than ``timeout_ms``."""
        self._check_open()
        line = self._line
        fault = line.weather.draw(line.rng, (Fault.WATCH_LATE, Fault.WATCH_EARLY))
        if fault is not None:
            line.server.injected[fault] += 1
        if fault is Fault.WATCH_EARLY:
            timeout_ms = int(line.rng.random() * min(timeout_ms, 2_000))
        began_ms = self._runtime.monotonic_ms()
        await self._inner.wait_change(key, version, timeout_ms)
        if fault is Fault.WATCH_LATE:
            left_ms = began_ms + timeout_ms - self._runtime.monotonic_ms()
            late_ms = line.rng.random() * WATCH_LATE_MS
            await self._runtime.sleep_ms(max(0.0, min(left_ms, late_ms)))

    async def acquire_lease(self, key: str, holder: str, ttl_ms: int) -> Lease | None:
        self._check_open()
        return await self._leases.acquire(key, holder, ttl_ms)

    async def close(self) -> None:
        if not self._is_closed:
            await self._leases.close()
            self._is_closed = True

    async def _read(self, what: str, text: str, effect: Callable[[], T]) -> T:
        self._check_open()
        return await self._line.ask(what, text, effect, possible=READ_FAULTS, is_write=False)

    def _check_open(self) -> None:
        if self._is_closed:
            raise Closed(f"metadata store {self.url} is closed; open a new one")
