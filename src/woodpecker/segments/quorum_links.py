"""Links to nodes, one for all logs of a client: made when somebody needs it, made again after a break.

Writers hold on to a member (``join``): its link is kept up, and they are told when it comes and goes.
Everybody else asks (``ask``) and hears soon if the node cannot be reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from woodpecker.codec.compression import Buffer
from woodpecker.codec.messages import Refused, Request, Tell
from woodpecker.core.backoff import delay_ms
from woodpecker.core.manifest import Member
from woodpecker.errors import (
    ALL_ERRORS,
    Closed,
    InvalidRequest,
    Unavailable,
    WoodpeckerError,
)
from woodpecker.rpc.base import Answer, Link, Transport
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.quorum_base import Nodes

CONNECT_MS = 3_000
TELL_MS = 5_000
STEADY_MS = 1_000.0  # a link that broke sooner counts as a failed try
AWAY_MS = 2_000.0  # a member that cannot be reached for so long is to be replaced
DOUBT_MS = 30_000.0  # so long after a request without answer others are asked first
PROBE_MS = 600_000.0  # a node that went away is looked for so long though nobody needs it any more
PRESSED_MS = 2_000.0  # so long it is believed that a node refuses blocks
RETIRED = "it has lost records, and takes no more blocks as what it was"
HARD = 2  # pressure: it refuses blocks

_BY_CODE = {error.code: error for error in ALL_ERRORS}


class User(Protocol):
    """Who holds on to a member. Called from the loop; must not raise."""

    def linked(self, link: Link) -> None:
        """There is a link (again)."""

    def cut(self) -> None:
        """The link is gone; requests under way have failed or will."""

    def away(self) -> None:
        """The link has been gone for ``AWAY_MS``."""

    def gone(self) -> None:
        """What the member held is gone for ever."""

    def resume(self) -> None:
        """The link takes blocks again, after ``stall``."""


class Peer:
    """One member of ensembles as this client reaches it.

    Attributes:
        link: open, as far as is known; else None.
        away_ms: since when there is no link, on the runtime's clock. Only while ``link`` is None.
        trouble: why there is none, or why the last request failed, for people.
        is_gone: what the member held is gone for ever; nobody tries to reach it any more.
        is_refused: it does not want us: our credentials, or our version.
        pressure: as last told with an answer.
        was_heard: an answer came since the last ``look``.
    """

    def __init__(self, links: Links, member: Member) -> None:
        self.member = member
        self.link: Link | None = None
        self.away_ms = links.runtime.monotonic_ms()
        self.trouble = "no connection yet"
        self.is_gone = False
        self.is_refused = False
        self.pressure = 0
        self.was_heard = False
        self._links = links
        self._was_missed = False  # its users know that it is away
        self._pressed_ms = 0.0
        self._needed_ms = 0.0
        self._users: dict[User, None] = {}
        self._stalled: dict[User, None] = {}
        self._doubt_ms = -DOUBT_MS
        self._task: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None  # the link
        self._outcome: asyncio.Future[None] | None = None  # of the try that somebody waits for
        self._is_pausing = False
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def is_usable(self) -> bool:
        """Whether the member takes blocks now: there is a link, and it is what it was."""
        link = self.link
        return (
            link is not None
            and link.is_open
            and link.welcome.incarnation == self.member.incarnation
        )

    @property
    def why(self) -> str:
        """What is the matter with the member, for people."""
        is_retired = self.link is not None and self.link.is_open and not self.is_usable
        return f"{self}: {RETIRED if is_retired else self.trouble}"

    # --- for writers ---

    def join(self, user: User) -> None:
        """Keep the link up and tell ``user`` about it, until it leaves."""
        self._users[user] = None
        self._run()

    def leave(self, user: User) -> None:
        """``user`` needs the link no more. Idempotent."""
        self._users.pop(user, None)
        self._stalled.pop(user, None)

    @property
    def users(self) -> Iterator[User]:
        """All who hold on to the member."""
        return iter(list(self._users))

    def stall(self, user: User) -> None:
        """The link has too much to send: ``resume`` is called once it has less."""
        self._stalled[user] = None

    def heard(self, pressure: int) -> None:
        """An answer came from the node. Called for every block."""
        self.was_heard = True
        if pressure != self.pressure:
            self.press(pressure)
        if self._stalled:
            stalled, self._stalled = self._stalled, {}
            for user in stalled:
                user.resume()

    def press(self, pressure: int) -> None:
        """The node said how full its disk is."""
        self.pressure = pressure
        self._pressed_ms = self._links.runtime.monotonic_ms()
        self._links.nodes.answered(self.member.node, pressure=pressure)

    def is_full(self) -> bool:
        """Whether the node refused blocks just now for want of room."""
        if self.pressure < HARD:
            return False
        return self._links.runtime.monotonic_ms() < self._pressed_ms + PRESSED_MS

    def drop(self, link: Link, why: str) -> None:
        """``link`` is open but the node does not answer: another one is to be made."""
        if self.link is link:
            self._lose(why)
            self._links.nodes.failed(self.member.node)
            if self._watching is not None:
                self._watching.cancel()  # whatever closing takes, the next link can be made
        task = self._links.runtime.spawn(link.close(), f"close link to {self.member.node}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def is_away(self, now_ms: float) -> bool:
        """Whether there has been no link for some time."""
        return self.link is None and now_ms - self.away_ms >= AWAY_MS

    def is_in_doubt(self, now_ms: float) -> bool:
        """Whether others had better be asked: it is away, or did not answer lately."""
        return self.is_gone or self.is_away(now_ms) or now_ms - self._doubt_ms < DOUBT_MS

    def look(self, now_ms: float) -> None:
        """Now and then: tell the directory if it was heard, and its users if it is away."""
        if self.was_heard:
            self.was_heard = False
            self._links.nodes.answered(self.member.node, pressure=self.pressure)
        if self._users and not self._was_missed and self.is_away(now_ms):
            self._was_missed = True
            for user in self.users:
                user.away()

    # --- for everybody ---

    async def reach(self) -> Link:
        """An open link. Raises: Unavailable: not now, and why. InvalidRequest: it refuses us."""
        if self.link is not None and self.link.is_open:
            return self.link
        if self.is_gone or self._is_pausing or self._links.is_closed:
            raise self._refusal()
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
        self._run()
        await asyncio.shield(self._outcome)
        if self.link is None:
            raise self._refusal()
        return self.link

    async def ask(self, request: Request, payload: Buffer = b"", *, timeout_ms: int) -> Answer:
        """The answer to one request; ``Refused`` with a verdict is one like any other.

        Raises: Unavailable: nobody there, no answer in time. Others: as the node refused.
        """
        link = await self.reach()
        try:
            answer = await link.send(request, payload, timeout_ms=timeout_ms)
        except Unavailable as error:
            self.trouble = str(error)
            self._doubt_ms = self._links.runtime.monotonic_ms()
            self._links.nodes.failed(self.member.node)
            raise
        self.was_heard = True
        message = answer.message
        if isinstance(message, Refused) and message.verdict is None:
            raise _BY_CODE.get(message.code, Unavailable)(f"{self}: {message.text}")
        return answer

    def tell(self, name: str) -> asyncio.Future[Answer] | None:
        """Let the node know that the manifest of log ``name`` has moved, if it can be reached now."""
        if self.link is None or not self.link.is_open:
            return None
        future = self.link.send(Tell(name=name), timeout_ms=TELL_MS)
        future.add_done_callback(_look_at_error)
        return future

    def __str__(self) -> str:
        return f"node {self.member.node}"

    async def close(self) -> None:
        """Let go of the link."""
        tasks = [task for task in (self._task, *self._closing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.link is not None:
            link, self.link = self.link, None
            await link.close()
        self._settle()

    # --- the link ---

    def _run(self) -> None:
        is_running = self._task is not None and not self._task.done()
        if not (is_running or self.is_gone or self._links.is_closed):
            self._task = self._links.runtime.spawn(self._keep(), f"link to {self.member.node}")

    async def _keep(self) -> None:
        """Have a link while it is needed; one that is there is kept in any case."""
        tries = 0
        try:
            while self._is_needed() and not self.is_gone:
                tries = 0 if await self._try_link() else tries + 1
                if tries:
                    await self._pause(delay_ms(tries, self._links.runtime.random()))
        finally:
            self._settle()

    async def _try_link(self) -> bool:
        """Connect, and return when the link is gone; False: it never was of use."""
        runtime = self._links.runtime
        began_ms = runtime.monotonic_ms()
        link = await self._connect()
        if link is None:
            return False
        self._watching = runtime.spawn(link.wait_closed(), f"watch link to {self.member.node}")
        await asyncio.gather(self._watching, return_exceptions=True)
        if self.link is link:
            self._lose("the connection broke")
        return runtime.monotonic_ms() - began_ms >= STEADY_MS

    def _is_needed(self) -> bool:
        if self._users or self._outcome is not None:
            self._needed_ms = self._links.runtime.monotonic_ms()
            return True
        return self._links.runtime.monotonic_ms() < self._needed_ms + PROBE_MS

    async def _pause(self, pause_ms: float) -> None:
        self._is_pausing = True
        try:
            await self._links.runtime.sleep_ms(pause_ms)
        finally:
            self._is_pausing = False

    async def _connect(self) -> Link | None:
        links, node = self._links, self.member.node
        try:
            address = await links.nodes.address(self.member)
            link = await links.transport.connect(address, timeout_ms=CONNECT_MS)
            if link.welcome.node != node:
                await link.close()
                raise Unavailable(f"node {link.welcome.node} is at {address} now")
        except WoodpeckerError as error:
            self._failed(error)
            return None
        self.link, self.pressure, self._was_missed = link, 0, False
        links.nodes.answered(node)
        self._settle()
        for user in self.users:
            user.linked(link)
        return link

    def _failed(self, error: WoodpeckerError) -> None:
        self.trouble = str(error)
        self._links.nodes.failed(self.member.node)
        self.is_gone = isinstance(error, Unavailable) and not error.retryable
        self.is_refused = isinstance(error, InvalidRequest)
        self._settle()
        if self.is_gone:
            for user in self.users:
                user.gone()

    def _refusal(self) -> WoodpeckerError:
        if self._links.is_closed:
            return Closed("this client is closed; connect again")
        if self.is_refused:
            return InvalidRequest(f"{self}: {self.trouble}")
        error = Unavailable(f"{self}: {self.trouble}")
        error.retryable = not self.is_gone
        return error

    def _lose(self, why: str) -> None:
        self.link, self.trouble = None, why
        self.away_ms = self._links.runtime.monotonic_ms()
        self._stalled.clear()
        for user in self.users:
            user.cut()

    def _settle(self) -> None:
        """A try has come to its end: whoever waited for it looks at what there is."""
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            outcome.set_result(None)


def _look_at_error(future: asyncio.Future[Answer]) -> None:
    """Nobody waits for it: a node that was not told finds out by itself."""
    if not future.cancelled():
        future.exception()


class Links:
    """All peers of one client. One event loop."""

    def __init__(self, nodes: Nodes, transport: Transport, runtime: Runtime) -> None:
        self.nodes = nodes
        self.transport = transport
        self.runtime = runtime
        self.is_closed = False
        self._peers: dict[Member, Peer] = {}

    def peer(self, member: Member) -> Peer:
        """The one peer of a member; nothing is connected yet."""
        peer = self._peers.get(member)
        if peer is None:
            peer = self._peers[member] = Peer(self, member)
        return peer

    @property
    def peers(self) -> Iterator[Peer]:
        """All there are."""
        return iter(list(self._peers.values()))

    def look(self, now_ms: float) -> None:
        """Called a few times a second while there are writers."""
        for peer in self.peers:
            peer.look(now_ms)

    async def close(self) -> None:
        """Close all links; those who wait for one are told so."""
        self.is_closed = True
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))
