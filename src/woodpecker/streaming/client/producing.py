"""The producers of one pchannel: one Produce stream to its owner, shared by all of them.

What the owner's answers mean is decided in ``flight.py``; here they are carried there and back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count

from woodpecker.errors import Aborted, OutcomeUnknown, WoodpeckerError
from woodpecker.streaming.client.bell import Bell
from woodpecker.streaming.client.calls import ask_owner
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.failures import HANDLED, ROUTING, as_error, unknown
from woodpecker.streaming.client.flight import RETRY_MS, Draft, Verdict
from woodpecker.streaming.client.following import follow_owner, greet, moved
from woodpecker.streaming.client.routing import Route
from woodpecker.streaming.client.session import Session, Standing
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.frames import (
    Ack,
    Attached,
    BatchRefused,
    Close,
    Closed,
    Credit,
    KeepAlive,
    MapEntry,
    Moved,
    ProduceDown,
    ProduceHello,
    ProduceReady,
    ProduceUp,
    Rate,
)
from woodpecker.streaming.ports import Stream
from woodpecker.streaming.requests import DescribeTransaction

REJECT = -1
LEAVE_MS = 1_000


class _Link:
    """The present stream, and what its owner allows."""

    def __init__(
        self, stream: Stream[ProduceUp, ProduceDown], entry: MapEntry, ready: ProduceReady
    ) -> None:
        self.stream = stream
        self.entry = entry
        self.credit_bytes = ready.credit_bytes  # what may be unanswered; one batch always may
        self.rate_bytes_s = ready.rate_bytes_s
        self.out_bytes = 0
        self.next_at_ms = 0.0  # when the rate allows the next new batch
        self.leaving: Refusal | None = (
            None  # nothing goes out any more, only answers are waited for
        )
        self._out: dict[int, deque[int]] = {}  # sizes of what is unanswered, by session

    def launched(self, session: int, size_bytes: int) -> None:
        """A batch is out."""
        self.out_bytes += size_bytes
        self._out.setdefault(session, deque()).append(size_bytes)

    def answered(self, session: int) -> None:
        """The next batch of this session is answered, whether anybody still waits for it or not."""
        sizes = self._out.get(session)
        if sizes:
            self.out_bytes -= sizes.popleft()
        if not sizes:
            self._out.pop(session, None)

    def leave(self, refusal: Refusal) -> None:
        """Send nothing more."""
        self.leaving = self.leaving or refusal


class ProduceLane:
    """Sends for all producers of one pchannel in this client."""

    def __init__(self, env: Environment, pchannel: str) -> None:
        self._env = env
        self._pchannel = pchannel
        self._route = Route(env.routing, env.runtime, pchannel)
        self._sessions: dict[int, Session] = {}
        self._numbers = count(1)
        self._dirty: dict[int, None] = {}  # sessions that may have something to send, in turn
        self._resting: dict[int, None] = {}  # those that wait for a time or another rate
        self._keep_alives: dict[tuple[int, int], None] = {}  # due ones: session, transaction
        self._bell = Bell()
        self._link: _Link | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: dict[int, asyncio.Task[None]] = {}

    @property
    def reason(self) -> str:
        """What keeps it from its owner."""
        return self._route.reason

    # --- producers come and go ---

    def open(self, channel: str, vcid: int, name: str | None) -> Session:
        """A session; await its ``opened``."""
        session = Session(
            self._env, number=next(self._numbers), channel=channel, vcid=vcid, name=name,
            wake=self._wake,
        )  # fmt: skip
        self._sessions[session.number] = session
        self._wake(session)
        if not self._tasks:
            spawn = self._env.runtime.spawn
            self._tasks = [
                spawn(self._follow(), f"produce to {self._pchannel}"),
                spawn(self._watch_deadlines(), f"deadlines of {self._pchannel}"),
            ]
        return session

    async def leave(self, session: Session) -> None:
        """The producer is closed: what is still on its way fails. The last one ends the stream."""
        session.end(None, "this producer was closed")
        self._sessions.pop(session.number, None)
        self._dirty.pop(session.number, None)
        self._resting.pop(session.number, None)
        asking = self._asking.pop(session.number, None)
        tasks = [] if asking is None else [asking]
        if not self._sessions:
            tasks, self._tasks = [*tasks, *self._tasks], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """The client is closed."""
        for session in list(self._sessions.values()):
            await self.leave(session)

    def keep_alive(self, session: Session, txn: int) -> None:
        """Tell the owner that a transaction is still wanted; nothing if there is no stream now."""
        if self._link is not None and session.standing is Standing.ATTACHED:
            self._keep_alives[session.number, txn] = None
            self._bell.ring()

    def _wake(self, session: Session) -> None:
        self._dirty[session.number] = None
        self._bell.ring()

    # --- one stream after another ---

    async def _follow(self) -> None:
        await follow_owner(self._env, self._route, lambda at: at.produce(), self._talk)

    async def _talk(self, stream: Stream[ProduceUp, ProduceDown], entry: MapEntry) -> None:
        hello = ProduceHello(
            pchannel=self._pchannel,
            term=entry.term,
            incarnation=entry.incarnation,
            client=self._env.name,
        )
        ready = await greet(stream, hello, entry)
        if not isinstance(ready, ProduceReady):
            raise Refused(moved(entry))
        link = self._link = _Link(stream, entry, ready)
        self._dirty = dict.fromkeys(self._sessions)
        sender = self._env.runtime.spawn(self._send(link), f"send to {self._pchannel}")
        try:
            while (frame := await stream.receive()) is not None:
                self._take(link, frame)
                if link.leaving is not None and not link.out_bytes:
                    raise Refused(link.leaving)
        finally:
            self._link = None
            sender.cancel()
            self._keep_alives.clear()
            for session in self._sessions.values():
                session.standing = Standing.AWAY
                session.lose(session.flight.on_break())
                self._leave_hole(session)
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, link: _Link) -> None:
        while True:
            pause_ms = None
            while link.leaving is None:
                frame, pause_ms = self._next_frame(link)
                if frame is None:
                    break
                try:
                    await link.stream.send(frame)
                except Refused:
                    return  # whoever receives finds out as well
            if link.leaving is not None:  # answers that are on their way are worth some patience
                await self._env.runtime.sleep_ms(LEAVE_MS)
                link.stream.cut()
                return
            await self._bell.wait(pause_ms)
            self._dirty.update(self._resting)
            self._resting.clear()

    def _next_frame(self, link: _Link) -> tuple[ProduceUp | None, float | None]:
        """What to send now; if nothing, after which time to look again."""
        for key in self._keep_alives:
            del self._keep_alives[key]
            return KeepAlive(session=key[0], txn_number=key[1]), None
        now_ms = self._env.runtime.monotonic_ms()
        pauses: list[float] = []
        while self._dirty:
            number = next(iter(self._dirty))
            session = self._sessions[number]
            if session.standing is not Standing.ATTACHED:
                del self._dirty[number]
                if self._may_attach(session, now_ms, pauses):
                    session.standing = Standing.ATTACHING
                    return session.attach(), None
                continue
            session.fail_broken()
            draft = session.flight.next_draft(now_ms)
            if draft is None or (link.rate_bytes_s == REJECT and not _may_pass_reject(draft)):
                del self._dirty[number]
                pause_ms = session.flight.paused_ms(now_ms)
                if draft is not None or pause_ms > 0:
                    self._resting[number] = None
                if pause_ms > 0:
                    pauses.append(pause_ms)
                continue
            wait_ms = self._wait_ms(link, draft, now_ms)
            if wait_ms is None or wait_ms > 0:
                return None, min([*pauses, *([] if wait_ms is None else [wait_ms])], default=None)
            del self._dirty[number]
            self._dirty[number] = None  # others have their turn first
            return self._launch(link, session, draft, now_ms), None
        return None, min(pauses, default=None)

    def _may_attach(self, session: Session, now_ms: float, pauses: list[float]) -> bool:
        is_waiting = session.ended_by is None and session.standing is Standing.AWAY
        # an ephemeral's refusal bears no sequence either: it would be taken for one of the session **P**
        if not (is_waiting and session.flight.is_quiet and not session.flight.ephemerals):
            return False
        left_ms = session.attach_at_ms - now_ms
        if left_ms > 0:
            self._resting[session.number] = None
            pauses.append(left_ms)
        return left_ms <= 0

    def _wait_ms(self, link: _Link, draft: Draft, now_ms: float) -> float | None:
        """How long until this batch may go out; None: until something is answered."""
        if link.out_bytes and link.out_bytes + draft.size_bytes > link.credit_bytes:
            return None
        is_new = draft.sequence < 0
        return max(0.0, link.next_at_ms - now_ms) if is_new and link.rate_bytes_s > 0 else 0.0

    def _launch(self, link: _Link, session: Session, draft: Draft, now_ms: float) -> ProduceUp:
        if draft.sequence < 0 and link.rate_bytes_s > 0:
            took_ms = draft.size_bytes / link.rate_bytes_s * 1000
            link.next_at_ms = max(now_ms, link.next_at_ms) + took_ms
        session.flight.sent(draft)
        link.launched(session.number, draft.size_bytes)
        return draft.frame(session.number, session.vcid, session.grant_tick)

    # --- answers ---

    def _take(self, link: _Link, frame: ProduceDown) -> None:
        match frame:
            case Ack():
                self._on_ack(link, frame)
            case BatchRefused():
                self._on_refused(link, frame)
            case Attached():
                session = self._sessions.get(frame.session)
                if session is not None and session.standing is Standing.ATTACHING:
                    self._on_attached(session, frame)
            case Credit():
                link.credit_bytes += frame.size_bytes
                self._bell.ring()
            case Rate():
                link.rate_bytes_s = frame.rate_bytes_s
                self._bell.ring()
            case Close():
                link.leave(moved(link.entry))
                self._bell.ring()
            case Moved() | Closed():
                raise Refused(moved(link.entry))

    def _on_ack(self, link: _Link, ack: Ack) -> None:
        link.answered(ack.session)
        session = self._sessions.get(ack.session)
        if session is None:
            return
        draft = session.flight.on_ack(ack.sequence)
        if draft is not None:
            self._route.worked()
            session.acknowledge(draft, ack, link.entry.term)
        self._wake(session)

    def _on_refused(self, link: _Link, frame: BatchRefused) -> None:
        session = self._sessions.get(frame.session)
        refusal = frame.refusal
        now_ms = self._env.runtime.monotonic_ms()
        if session is not None and session.standing is Standing.ATTACHING:
            self._on_attach_refused(link, session, refusal, now_ms)
            return
        link.answered(frame.session)
        if session is None:
            return
        draft, verdict = session.flight.on_refused(
            frame.sequence, refusal, now_ms,
            is_anonymous=session.is_anonymous and not session.transactions,
        )  # fmt: skip
        if draft is None:
            return
        self._wake(session)
        match verdict:
            case Verdict.DROP:
                session.fail(draft, as_error(refusal, session.what))
                self._leave_hole(session)
            case Verdict.RENEW:
                session.standing = Standing.AWAY
            case Verdict.END:
                self._end(session, draft.refusal or refusal)
            case Verdict.REROUTE:
                link.leave(refusal)

    def _on_attached(self, session: Session, frame: Attached) -> None:
        why = session.on_attached(frame)
        if why is not None:
            self._end(session, why)
        self._wake(session)

    def _on_attach_refused(
        self, link: _Link, session: Session, refusal: Refusal, now_ms: float
    ) -> None:
        session.standing = Standing.AWAY
        if refusal.kind is Class.EXPIRED:
            why = session.on_forgotten(refusal.message)
            if why is not None:
                self._end(session, why)
        elif refusal.kind in ROUTING:
            link.leave(refusal)
            self._bell.ring()
        elif refusal.kind in HANDLED:
            session.attach_at_ms = now_ms + (refusal.after_ms or RETRY_MS)
            self._wake(session)
        else:
            self._end(session, refusal)

    def _leave_hole(self, session: Session) -> None:
        why = session.leave_hole()
        if why is not None:
            self._end(session, why)

    # --- commits whose session cannot tell any more ---

    def _end(self, session: Session, refusal: Refusal) -> None:
        """The session is over; of commits that may be written the log can still tell."""
        commits = session.flight.take_unknown_commits()
        session.end(refusal)
        if commits:
            work = self._ask(session, commits, refusal)
            self._asking[session.number] = self._env.runtime.spawn(work, "describe transactions")

    async def _ask(self, session: Session, commits: list[Draft], refusal: Refusal) -> None:
        try:
            while commits:
                outcome = await self._describe(session, commits[0], refusal)
                draft = commits.pop(0)
                if isinstance(outcome, Ack):
                    session.acknowledge(draft, outcome, 0)
                else:
                    session.fail(draft, outcome)
        finally:
            for draft in commits:  # the producer was closed meanwhile
                session.fail(draft, unknown(refusal, session.what))

    async def _describe(
        self, session: Session, draft: Draft, refusal: Refusal
    ) -> Ack | WoodpeckerError:
        request = DescribeTransaction(
            pchannel=self._pchannel,
            producer=session.producer,
            epoch=session.epoch,
            txn_number=draft.txn,
        )
        try:
            found = await ask_owner(self._env, self._pchannel, request, session.what)
        except WoodpeckerError:
            return unknown(refusal, session.what)
        place = found.position
        if found.state == "committed" and place is not None:
            return Ack(
                session=session.number, sequence=draft.sequence, low=place.low,
                seq=place.seq, tick=place.tick, count=0,
            )  # fmt: skip
        if found.state == "aborted":
            text = f"{session.what}: the transaction is aborted ({found.reason}); run it again"
            return Aborted(text, reason=found.reason)
        text = f"{session.what}: {refusal.message}; the transaction is {found.state}"
        return OutcomeUnknown(f"{text}; whether it is or will be committed is not known")

    # --- deadlines ---

    async def _watch_deadlines(self) -> None:
        while True:
            now_ms = self._env.runtime.monotonic_ms()
            due_ms = now_ms + self._env.timeout_ms  # of whatever is put in from now on
            for session in list(self._sessions.values()):
                session.give_up_late(now_ms, self._route.refusal)
                self._leave_hole(session)
                due_ms = min([due_ms, *(draft.deadline_ms for draft in session.flight.drafts())])
            await self._env.runtime.sleep_ms(max(1.0, due_ms - now_ms))


def _may_pass_reject(draft: Draft) -> bool:
    """While a node rejects, what ends transactions goes on, and what was sent before is answered."""
    return draft.commit or draft.abort or draft.sequence >= 0
