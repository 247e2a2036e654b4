"""One pchannel on this node: one task moves what is there towards the newest wish.

``core/owner.py`` decides; here its effects are carried out one after another, and the order to stop
interrupts what is under way. ``life.py`` is what serves in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from woodpecker import Client, Log, LogWriter
from woodpecker.errors import (
    Conflict,
    LogEnded,
    NotFound,
    NotWritten,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.observability.names import Counter, Histogram
from woodpecker.streaming.codec.records import FEATURES as FEATURES_KEY
from woodpecker.streaming.codec.records import PCHANNELS
from woodpecker.streaming.core import owner as machine
from woodpecker.streaming.core.fold import Fold
from woodpecker.streaming.core.owner import Event, State
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.core.ticks import is_far_behind
from woodpecker.streaming.frames import PchannelStatus
from woodpecker.streaming.node.checkpoints import Progress, fold_rest, load_checkpoint
from woodpecker.streaming.node.life import FEATURES, Life, Tools
from woodpecker.streaming.node.told_clock import MOST_JUMP_US
from woodpecker.streaming.node.upkeep import Upkeep

RETRY_MS = 500.0
PATIENCE_MS = 30_000.0  # with stores that are away, while opening
PROOF_PATIENCE_MS = 5_000.0

_log = logging.getLogger("woodpecker.streaming")


class Broken(Exception):
    """An opening cannot go on; says why."""


@dataclass(frozen=True, slots=True)
class _Examine:
    """The writer has ended: is the log still ours? -> WriterEnded"""


_Effect = machine.Effect | _Examine
_REASONS: dict[type[Event], str] = {
    machine.AssignAsked: "released",
    machine.ReleaseAsked: "released",
    machine.WriterEnded: "lost",
    machine.Broke: "failed",
}
_RESTING = (State.IDLE, State.CLOSED, State.FAILED)


class PchannelOwner:
    """See the module.

    Args:
        log_name: of the log that holds it.
        on_change: what ``status`` tells has changed.
    """

    def __init__(
        self, tools: Tools, client: Client, name: str, log_name: str, on_change: Callable[[], None]
    ) -> None:
        self.name = name
        self.log_name = log_name
        self.machine = machine.Owner()
        self.life: Life | None = None  # while it serves, or is closing
        self._tools = tools
        self._client = client
        self._on_change = on_change
        self._progress = Progress()
        self._opening_ms = 0.0
        self._has_record = True  # as far as anybody knows
        self._checkpoint: Fold | None = None  # loaded before the fence
        self._log: Log | None = None
        self._writer: LogWriter | None = None
        self._upkeep: Upkeep | None = None
        self._effects: deque[_Effect] = deque()
        self._wake = asyncio.Event()
        self._rested = asyncio.Event()
        self._work: asyncio.Task[Event | None] | None = None
        self._task = tools.runtime.spawn(self._run(), f"owner of {name}")

    # --- wishes ---

    def assign(self, term: int) -> None:
        """Serve it at this term; an older or equal wish changes nothing."""
        self._tell(machine.AssignAsked(term=term))

    def release(self, term: int) -> None:
        """Serve it no longer at or below this term."""
        self._tell(machine.ReleaseAsked(term=term))

    async def rested(self) -> None:
        """Wait until nothing is under way and nothing is served."""
        while self.machine.state not in _RESTING:
            self._rested.clear()
            await self._rested.wait()

    @property
    def serving(self) -> Life | None:
        """The life that serves now."""
        return self.life if self.machine.state is State.SERVING else None

    @property
    def is_unknown(self) -> bool:
        """No record knows the pchannel, and nothing is under way: nobody waits for word of it."""
        return not self._has_record and self.machine.state in _RESTING

    @property
    def status(self) -> PchannelStatus:
        """For coordinators."""
        now, life = self.machine, self.life
        return PchannelStatus(
            pchannel=self.name,
            term=now.term or now.wanted,
            state=now.state,
            done_bytes=self._progress.done,
            total_bytes=self._progress.total,
            reason=now.reason or ("" if life is None else life.line.refused),
            bytes_s=0.0 if self._upkeep is None else float(self._upkeep.bytes_s),
            lag_ms=0 if life is None else (life.line.oldest_unacked_us or 0) // 1000,
            memory_bytes=0 if life is None else life.memory_bytes,
            vchannels=0 if life is None else len(life.line.fold.vchannels),
            vchannels_limit=self._tools.settings.vchannels_per_pchannel,
        )

    async def close(self) -> None:
        """End at once, in whatever state; what was acknowledged is safe. Release before, to end in good order."""
        self._task.cancel()
        work = self._work
        if work is not None:
            work.cancel()
        await asyncio.gather(self._task, *([work] if work else []), return_exceptions=True)
        await self._stop_life(graceful=False)

    # --- the machine ---

    def _tell(self, event: Event) -> None:
        self.machine, effect = machine.step(self.machine, event)
        if isinstance(effect, machine.ReadRecord):
            self._opening_ms = self._tools.runtime.monotonic_ms()
        reason = _REASONS.get(type(event))
        if isinstance(effect, machine.Stop) and reason is not None:
            self._tools.observer.count(Counter.STREAM_TERM_CHANGES, reason=reason)
        if effect is not None:
            self._effects.append(effect)
            if isinstance(effect, machine.Stop) and self._work is not None:
                self._work.cancel()
            self._wake.set()
        if self.machine.state in _RESTING:
            self._rested.set()
        self._on_change()

    async def _run(self) -> None:
        while True:
            while not self._effects:
                self._wake.clear()
                await self._wake.wait()
            effect = self._effects.popleft()
            name = f"{type(effect).__name__} of {self.name}"
            self._work = self._tools.runtime.spawn(self._carry_out(effect), name)
            outcome = (await asyncio.gather(self._work, return_exceptions=True))[0]
            self._work = None
            if isinstance(outcome, Exception):
                _log.error("%s failed", name, exc_info=outcome)
                self._tell(machine.Broke(reason=f"internal error: {outcome!r}"))
                if isinstance(effect, machine.Stop):
                    self._tell(machine.Stopped())
            elif outcome is not None and not isinstance(outcome, BaseException):
                self._tell(outcome)

    async def _carry_out(self, effect: _Effect) -> Event | None:
        try:
            match effect:
                case machine.ReadRecord(term=term):
                    return await self._patiently(lambda: self._read_record(term))
                case machine.OpenWriter(term=term):
                    return await self._patiently(lambda: self._open_writer(term))
                case machine.Replay(term=term):
                    return await self._replay(term)
                case machine.Serve():
                    self._serve()
                case machine.Stop(graceful=graceful):
                    await self._stop_life(graceful=graceful)
                    return machine.Stopped()
                case _Examine():
                    return await self._examine()
        except Broken as error:
            _log.error("%s cannot be opened: %s", self.name, error)
            return machine.Broke(reason=str(error))
        return None

    async def _patiently(self, work: Callable[[], Awaitable[Event]]) -> Event:
        """Do it; a store that is away is asked again for some time. Raises: Broken."""
        runtime = self._tools.runtime
        until_ms = runtime.monotonic_ms() + PATIENCE_MS
        while True:
            try:
                return await work()
            except Unavailable as error:
                if runtime.monotonic_ms() >= until_ms:
                    raise Broken(str(error)) from error
            except WoodpeckerError as error:
                raise Broken(str(error)) from error
            await runtime.sleep_ms(RETRY_MS)

    # --- opening ---

    async def _read_record(self, term: int) -> Event:
        """Is it ours? Is this node fit? And the checkpoint, before anybody is fenced."""
        tools = self._tools
        seen, features = await asyncio.gather(
            tools.records.load(PCHANNELS.key(self.name)), tools.records.load(FEATURES_KEY)
        )
        record, level = seen.record, features.record
        self._has_record = record is not None
        owner = None if record is None else record.owner
        is_mine = (
            record is not None
            and owner is not None
            and (record.term, owner.node, owner.incarnation)
            == (term, tools.node, tools.incarnation)
        )
        if record is None or not is_mine:
            return machine.RecordRead(is_mine=False, term=0 if record is None else record.term)
        self.log_name = record.log
        if level is not None and level.level > FEATURES:
            raise Broken(
                f"the service is at feature level {level.level}, this node knows {FEATURES}"
            )
        self._log = await self._client.open_log(self.log_name)
        self._checkpoint = await load_checkpoint(tools.records, self._log, tools.runtime)
        self._check_clock(self._checkpoint.last_tick)
        return machine.RecordRead(is_mine=True, term=term)

    def _check_clock(self, last_tick: int) -> None:
        """Whether a term may begin by this node's clock. Raises: Broken."""
        now_us, jumped_us = self._tools.runtime.now_us(), self._tools.clock.jumped_us
        if is_far_behind(now_us, last_tick):
            raise Broken(
                f"this node's clock is {(last_tick - now_us) / 1e6:.0f} s behind the last tick of the log, more "
                "than the 10 min allowed: set it; if it is right, an owner before had a clock that was ahead, "
                "and nodes whose clocks are right can open the log when they get there"
            )
        if jumped_us:
            raise Broken(
                f"this node's clock has just jumped by {jumped_us / 1e6:.0f} s: "
                "no term begins by it before coordinators have judged it"
            )

    async def _open_writer(self, term: int) -> Event:
        assert self._log is not None
        try:
            self._writer = await self._log.open_writer(claim=(term, self._tools.incarnation))
        except (Conflict, LogEnded, NotFound) as error:
            _log.warning("%s: term %d is not let in: %s", self.name, term, error)
            return machine.ClaimRefused()
        return machine.WriterOpened()

    async def _replay(self, term: int) -> Event:
        """Fold to E, write the term record."""
        assert self._log is not None
        assert self._writer is not None
        fold = self._checkpoint or Fold()
        self._checkpoint = None
        self._progress = Progress()
        try:
            earliest = await self._log.earliest()
            if fold.next_seq < earliest:
                # the owner before went on until it was fenced, and trimmed
                fold = await load_checkpoint(self._tools.records, self._log, self._tools.runtime)
            await fold_rest(self._log, fold, self._writer.next_seq, self._progress)
        except WoodpeckerError as error:
            raise Broken(str(error)) from error
        self._check_clock(-1)  # again; the last tick does not matter any more: others are fenced
        ahead_us = fold.last_tick - self._tools.runtime.now_us()
        if ahead_us > MOST_JUMP_US:
            _log.error(
                "%s: its ticks are %d s ahead of this node's clock: an owner had a clock that was ahead",
                self.name, ahead_us // 1_000_000,
            )  # fmt: skip
        life = self.life = Life(
            self._tools, self.name, term, self._log, self._writer, fold, earliest
        )
        try:
            await life.record_term()
        except WoodpeckerError as error:
            _log.warning("%s: its term record was not written: %s", self.name, error)
            return await self._examine()
        return machine.TermRecorded()

    def _serve(self) -> None:
        assert self.life is not None
        observer, now_ms = self._tools.observer, self._tools.runtime.monotonic_ms()
        observer.observe(Histogram.STREAM_OPEN, now_ms - self._opening_ms)
        observer.count(Counter.STREAM_TERM_CHANGES, reason="opened")
        self._upkeep = Upkeep(self.life, self._lost)
        self._on_change()

    def _lost(self) -> None:
        """The life has ended by itself."""
        self._effects.append(_Examine())
        self._wake.set()

    async def _examine(self) -> Event:
        """Whether the manifest still shows our claim; when that cannot be known, the claim will tell."""
        runtime = self._tools.runtime
        until_ms = runtime.monotonic_ms() + PROOF_PATIENCE_MS
        is_mine = True
        while self._writer is not None:
            try:
                is_mine = await self._writer.still_owner()
                break
            except NotFound:
                is_mine = False
                break
            except WoodpeckerError:
                if runtime.monotonic_ms() >= until_ms:
                    break
            await runtime.sleep_ms(RETRY_MS)
        return machine.WriterEnded(is_mine=is_mine, monotonic_ms=int(runtime.monotonic_ms()))

    # --- ending ---

    async def _stop_life(self, *, graceful: bool) -> None:
        """Nothing of the old life is left afterwards. Never raises for the stores' sake."""
        life, writer, upkeep = self.life, self._writer, self._upkeep
        if life is not None:
            life.stop_admitting("this owner leaves")
        if upkeep is not None:
            await upkeep.stop()
        if graceful and life is not None and upkeep is not None:
            await self._within_patience(self._leave(life, upkeep))
        if writer is not None:
            await self._within_patience(writer.close())
        if life is not None:
            life.line.end(NotWritten("this owner's life has ended"))
            life.leave(max(self.machine.wanted, life.term))
            await life.close()
        self.life = self._writer = self._upkeep = self._log = None
        self._progress = Progress()

    async def _leave(self, life: Life, upkeep: Upkeep) -> None:
        """The close record after all that is in flight; then checkpoint and end of the writer, side by side."""
        await life.record_close()
        await asyncio.gather(upkeep.write_checkpoint(), life.writer.close(), return_exceptions=True)

    async def _within_patience(self, work: Coroutine[Any, Any, Any]) -> None:
        """Who waits for us waits no longer; the fence does the rest."""
        with contextlib.suppress(WoodpeckerError, Refused, TimeoutError):
            async with asyncio.timeout(self._tools.settings.release_timeout_ms / 1000):
                await work
