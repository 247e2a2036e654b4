"""Giving up transactions that nobody keeps alive. ``core/transactions.py`` says when; a record says so."""

from __future__ import annotations

import asyncio

from woodpecker.errors import WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.core.facts import Data
from woodpecker.streaming.core.orders import judge_abort
from woodpecker.streaming.core.transactions import Expiry
from woodpecker.streaming.node.line import Line

LEAST_MS, MOST_MS = 100.0, 1000.0  # between two looks while a transaction is open


class Timers:
    """Timers of the open transactions of one owner's life. Nothing runs while none is open."""

    def __init__(self, line: Line, runtime: Runtime, *, max_age_ms: int) -> None:
        self._line = line
        self._runtime = runtime
        self._expiry = Expiry(max_age_ms=max_age_ms, monotonic_us=line.monotonic_us)
        self._began = asyncio.Event()
        for txn, found in line.fold.open.items():
            self._begin(txn, found.keep_alive_ms)

    def wrote(self, data: Data) -> None:
        """A batch of a transaction was sequenced."""
        self._advance()
        if data.commit or data.abort:
            self.decided()
        elif data.begin:
            self._begin(data.txn, data.keep_alive_ms)
        else:
            self._expiry.touch(data.txn)

    def touch(self, txn: int) -> None:
        """The producer still wants it."""
        self._advance()
        self._expiry.touch(txn)

    def decided(self) -> None:
        """Some may have been decided: by a commit, a newer epoch, the end of a channel."""
        self._expiry.keep_only(self._line.fold.open)

    async def run(self) -> None:
        """Give up what is due, until cancelled or the line has ended."""
        while self._line.ended is None:
            self._advance()
            for txn, reason in self._expiry.due():
                self._give_up(txn, reason)
            self.decided()
            left_us = self._expiry.next_due_us()
            if left_us is None:
                self._began.clear()
                await self._began.wait()
            else:
                await self._runtime.sleep_ms(min(max(left_us / 1000, LEAST_MS), MOST_MS))

    def _give_up(self, txn: int, reason: str) -> None:
        body = judge_abort(self._line.fold, txn, reason)
        if body is None:
            return
        try:
            self._line.write_control(body, vcid=self._line.fold.open[txn].vcid)
        except WoodpeckerError:
            return  # no room, or the end of this life: it stays due

    def _advance(self) -> None:
        self._expiry.advance(self._line.monotonic_us, self._line.oldest_unacked_us)

    def _begin(self, txn: int, keep_alive_ms: int) -> None:
        self._expiry.begin(txn, keep_alive_ms)
        self._began.set()
