"""Blocks of one segment on their way to one member of its ensemble.

Blocks are sent ahead, in order; after trouble again from the first one that the member has not
acknowledged. What the answers mean for the segment, ``core/quorum_append.py`` says.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from woodpecker.codec.messages import Advance, Append, Appended, Refused
from woodpecker.core import quorum_append as rules
from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Target, Verdict
from woodpecker.errors import InvalidRequest, Overloaded, WoodpeckerError
from woodpecker.rpc.base import Answer, Link
from woodpecker.segments.quorum_links import HARD, Peer

PIPE_BYTES = 16 << 20  # on their way to one member, of one segment
LINK_BYTES = 32 << 20  # that the network has not taken, of all segments: then it is enough
REPLY_MS = 10_000  # a node that says nothing for so long is taken for dead

_STOPS = (Verdict.FENCED, Verdict.GONE)
_LOSSES = (Verdict.FOREIGN, Verdict.RETIRED, Verdict.MISMATCH)


class Owner(Protocol):
    """The writer, as its pipes see it."""

    name: str  # of the log
    pipeline: rules.Pipeline

    def buffer(self, number: int) -> memoryview | None:
        """Block ``number``, if it is still kept."""

    def acknowledged(self, pipe: Pipe, number: int) -> None:
        """The member has block ``number`` and all before it."""

    def stopped(self, pipe: Pipe) -> None:
        """The member answered FENCED or GONE."""

    def lose(self, pipe: Pipe, *, has_forgotten: bool) -> None:
        """The member takes no more blocks of this segment."""

    def linked(self, pipe: Pipe) -> None:
        """The member can be reached (again)."""

    def suspect(self) -> None:
        """A member makes trouble: look whether the segment should go on elsewhere."""

    def chance(self) -> float:
        """Uniform in [0, 1)."""


class Pipe:
    """See the module. ``quorum_links.User`` of its peer."""

    __slots__ = (
        "_bytes", "_next", "_owner", "_round", "_told", "_tries", "index", "is_lost", "peer",
        "target", "timer",
    )  # fmt: skip

    def __init__(self, owner: Owner, index: int, peer: Peer, target: Target) -> None:
        self.index = index
        self.peer = peer
        self.target = target
        self.is_lost = False
        self.timer: asyncio.TimerHandle | None = None  # until the next try, after a refusal
        self._owner = owner
        self._next = 0  # number of the block to be sent next
        self._round = (
            0  # grows when sending begins anew: refusals of what was sent before say nothing
        )
        self._bytes = 0  # sent in this round and not answered
        self._told = NO_BLOCK  # the LAC that the member was told last
        self._tries = 0

    # --- sending ---

    def pump(self) -> None:
        """Send what may be sent now."""
        owner = self._owner
        pipeline = owner.pipeline
        if self._next > pipeline.sent:
            return
        link = self.peer.link
        if link is None or self.is_lost or self.timer is not None or pipeline.is_judging:
            return
        if not link.is_open:
            return  # ``cut`` comes soon
        # answers to what was sent before a refusal may have come after it
        self._next = max(self._next, pipeline.acked[self.index] + 1)
        while self._next <= pipeline.sent and self._bytes < PIPE_BYTES:
            if link.unsent_bytes >= LINK_BYTES:
                self.peer.stall(self)
                return
            buffer = owner.buffer(self._next)
            if buffer is None:
                owner.lose(self, has_forgotten=False)
                return
            request = Append(target=self.target, name=owner.name, lac=pipeline.lac)
            told = partial(self._replied, link, self._round, len(buffer))
            link.call(request, buffer, timeout_ms=REPLY_MS, told=told)
            self._bytes += len(buffer)
            self._told = pipeline.lac
            self._next += 1

    def tell(self) -> None:
        """Tell the member the LAC, if no block did."""
        link, lac = self.peer.link, self._owner.pipeline.lac
        if link is not None and not self.is_lost and lac > self._told:
            link.post(Advance(target=self.target, lac=lac))
            self._told = lac

    def stop(self) -> None:
        """Send nothing any more. Idempotent."""
        self.is_lost = True
        self._rewind()
        self.peer.leave(self)

    def _rewind(self) -> None:
        """Begin anew behind what the member has acknowledged."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self._next = self._owner.pipeline.acked[self.index] + 1
        self._round += 1
        self._bytes = 0

    def _later(self) -> None:
        """Begin anew, after a pause that grows."""
        self._rewind()
        self._tries += 1
        pause_ms = delay_ms(self._tries, self._owner.chance())
        self.timer = asyncio.get_running_loop().call_later(pause_ms / 1000, self._again)

    def _again(self) -> None:
        self.timer = None
        self.pump()

    # --- answers ---

    def _replied(
        self, link: Link, round_: int, size_bytes: int, outcome: Answer | WoodpeckerError
    ) -> None:
        is_current = round_ == self._round and not self.is_lost
        if isinstance(outcome, WoodpeckerError):
            if is_current:
                self._failed(link, outcome)
            return
        if is_current:
            self._bytes -= size_bytes
        message = outcome.message
        if type(message) is Appended:
            self._tries = 0
            self.peer.heard(message.pressure)
            self._owner.acknowledged(self, message.number)
            if is_current:
                self.pump()
        elif isinstance(message, Refused) and is_current:
            self._refused(message)

    def _failed(self, link: Link, error: WoodpeckerError) -> None:
        """No answer: the link is broken, or the node hangs."""
        if isinstance(error, InvalidRequest):  # this block is too large for that node
            self.peer.trouble = str(error)
            self._owner.lose(self, has_forgotten=False)
        elif link.is_open:
            self.peer.drop(link, str(error))
        else:
            self._rewind()  # ``linked`` goes on

    def _refused(self, message: Refused) -> None:
        verdict = message.verdict
        if verdict in _STOPS:
            self._rewind()
            self._owner.stopped(self)
        elif verdict in _LOSSES:
            self.peer.trouble = message.text
            self._owner.lose(self, has_forgotten=True)
        elif verdict is Verdict.GAP:
            self._fill_gap(message.last)
        else:
            self.peer.trouble = message.text
            if message.code == Overloaded.code:
                self.peer.press(HARD)
            self._later()
            self._owner.suspect()

    def _fill_gap(self, last: int) -> None:
        """The member has blocks up to ``last`` only."""
        if last < self._owner.pipeline.acked[self.index]:
            self.peer.trouble = "it has lost blocks that it had acknowledged"
            self._owner.lose(self, has_forgotten=True)
        elif self._tries:
            self._later()  # it was filled before, without success
        else:
            self._tries = 1
            self._rewind()
            self._next = min(last, self._owner.pipeline.sent) + 1
            self.pump()

    # --- the link (``quorum_links.User``) ---

    def linked(self, link: Link) -> None:
        if link.welcome.incarnation != self.target.incarnation:
            self._owner.lose(self, has_forgotten=True)
            return
        self._rewind()
        self._told = NO_BLOCK
        self.pump()
        self._owner.linked(self)

    def cut(self) -> None:
        self._rewind()

    def away(self) -> None:
        self._owner.suspect()

    def gone(self) -> None:
        self._owner.lose(self, has_forgotten=True)

    def resume(self) -> None:
        self.pump()

    @property
    def is_up(self) -> bool:
        """Whether the member can be sent blocks now."""
        return not self.is_lost and self.peer.is_usable
