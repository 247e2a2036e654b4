"""Waking readers of a file that another process writes: inotify, else looking now and then."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from woodpecker.runtime.runtime import Runtime

_IN_MODIFY = 0x2
_EVENT = struct.Struct("iIII")
_LOOK_MS = 500.0  # a wake may be lost on the way (or the writer be of another kind): look anyway
_POLL_MS, _POLL_MOST_MS = 5.0, 20.0


class Wakes:
    """One inotify descriptor for all files that readers of this process wait for."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._fd = -1
        self._is_missing = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}

    async def wait(self, path: Path, is_due: Callable[[], bool], timeout_ms: float) -> None:
        """Return when ``is_due``, when the file was written, or after ``timeout_ms``."""
        watch = self._add(path)
        if watch is None:
            await self.poll(is_due, timeout_ms)
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        waiters = self._waiters.setdefault(watch, [])
        waiters.append(waiter)
        # not a while loop: to return early is allowed, and the caller looks again
        timer = loop.call_later(min(_LOOK_MS, timeout_ms) / 1000, _resolve, [waiter])
        try:
            if not is_due():
                await waiter
        finally:
            timer.cancel()
            self._remove(watch, waiter)

    async def poll(self, is_due: Callable[[], bool], timeout_ms: float) -> None:
        """As ``wait``, for a file that may not be watched or whose writer cannot be asked."""
        end_ms = self._runtime.monotonic_ms() + timeout_ms
        delay_ms = _POLL_MS
        while not is_due() and self._runtime.monotonic_ms() < end_ms:
            await self._runtime.sleep_ms(delay_ms)
            delay_ms = min(_POLL_MOST_MS, delay_ms * 1.5)

    def close(self) -> None:
        """Wake everybody and release the descriptor."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        for waiters in self._waiters.values():
            _resolve(waiters)

    def _add(self, path: Path) -> int | None:
        if self._fd < 0 and not self._is_missing:
            self._open()
        if self._is_missing:
            return None
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY)
        return watch if watch >= 0 else None

    def _open(self) -> None:
        try:
            self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:  # not a libc with inotify
            self._fd = -1
        self._is_missing = self._fd < 0
        if not self._is_missing:
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, _mask, _cookie, name_bytes = _EVENT.unpack_from(data, at)
            at += _EVENT.size + name_bytes
            _resolve(self._waiters.get(watch, []))

    def _remove(self, watch: int, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters[watch]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[watch]
            if self._fd >= 0:
                self._libc.inotify_rm_watch(self._fd, watch)


def _resolve(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
