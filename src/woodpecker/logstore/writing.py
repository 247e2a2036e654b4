"""The writing side of a node: blocks, fences, repairs.

It holds no rule: ``core/replica.py`` says what becomes of a copy and what is answered, and the journal says
when. The order here is always the same: judge, put into the journal, change the copy, answer when synced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from woodpecker.codec.header import BlockHeader, parse_header, verify_digest
from woodpecker.codec.journal import MAX_REASON_CHARS, Kind, encode_fence
from woodpecker.codec.messages import (
    Advance,
    Append,
    Appended,
    Done,
    Fence,
    Repair,
    Stored,
    Voted,
)
from woodpecker.core.ids import NO_BLOCK, check_name
from woodpecker.core.node_disk import DiskState
from woodpecker.core.replica import (
    BlockIn,
    Decision,
    FenceMark,
    Replica,
    Target,
    Verdict,
    answers_writer,
    is_voting,
    on_append,
    on_end,
    on_fence,
    on_lac,
    on_repair,
    on_synced,
    vote,
)
from woodpecker.errors import Corrupt, InvalidRequest, Overloaded, Unavailable
from woodpecker.logstore.answers import by_error, by_verdict
from woodpecker.logstore.buffers import Buffers
from woodpecker.logstore.copies import Copies, Copy, HeldLog
from woodpecker.logstore.journal import Journal
from woodpecker.logstore.reading import Reading
from woodpecker.logstore.settings import NodeSettings
from woodpecker.logstore.tail_cache import TailCache
from woodpecker.logstore.upkeep import Upkeep
from woodpecker.rpc.base import Responder
from woodpecker.runtime.runtime import Runtime

MAX_TOKEN_CHARS = 64
MAX_NUMBER = 1 << 62


class Writing:
    """See the module.

    Args:
        appeared: told of each log of which a copy appeared here, or was fenced.
    Attributes:
        refuses_new: take no segments of which no block is here.
        appended, repaired, fenced, refused: how often.
    """

    def __init__(
        self,
        state: DiskState,
        settings: NodeSettings,
        runtime: Runtime,
        copies: Copies,
        cache: TailCache,
        buffers: Buffers,
        journal: Journal,
        upkeep: Upkeep,
        reading: Reading,
        appeared: Callable[[HeldLog], None],
    ) -> None:
        self.refuses_new = False
        self.appended = self.repaired = self.fenced = self.refused = 0
        self._identity = state.identity
        self._eras = {name: era for era, name in enumerate(state.incarnations)}
        self._settings = settings
        self._runtime = runtime
        self._copies = copies
        self._cache = cache
        self._buffers = buffers
        self._journal = journal
        self._upkeep = upkeep
        self._reading = reading
        self._appeared = appeared

    # --- writers ---

    def append(self, request: Append, payload: memoryview, responder: Responder) -> None:
        """A block of the segment's writer."""
        target = request.target
        header = self._checked(payload, target)
        log = self._copies.logs.get(target.log_id)
        copy = None if log is None else log.copies.get(target.segment_id)
        decision = on_append(
            self._identity,
            0 if log is None else log.floor,
            None if copy is None else copy.replica,
            target,
            _block_in(header),
        )
        if decision.verdict is Verdict.STORE:
            if copy is not None:
                copy.heard_ms = (
                    self._runtime.monotonic_ms()
                )  # also where there is no room: it lives
            self._admit(copy, len(payload), self._upkeep.admits(len(payload)))
            copy = copy or self._new_copy(target, request.name, decision)
            self._store(Kind.BLOCK, copy, decision, header, payload,
                        partial(self._block_synced, copy, header.number, responder))  # fmt: skip
            self.appended += 1
        elif decision.verdict is Verdict.WAIT:
            assert copy is not None
            self._journal.when_synced(partial(self._block_synced, copy, header.number, responder))
        else:
            self._refuse(responder, target, decision)
            return
        copy.heard_ms = self._runtime.monotonic_ms()
        if request.lac > copy.replica.lac:
            self._move_lac(copy, request.lac)

    def _block_synced(
        self, copy: Copy, number: int, responder: Responder, error: Exception | None
    ) -> None:
        if error is not None:
            responder.reply(by_error(error))
            return
        copy.replica = on_synced(copy.replica, block=number)
        if copy.is_dropped:
            self._answer_verdict(responder, copy, Verdict.GONE)
        elif answers_writer(copy.replica):
            responder.reply(Appended(number=number, pressure=self._upkeep.pressure))
        else:
            self._answer_verdict(responder, copy, Verdict.FENCED)
        self._reading.progressed(copy)

    def advance(self, request: Advance, _payload: memoryview, responder: Responder) -> None:
        """The LAC has moved."""
        target = request.target
        copy = self._copies.get(target.log_id, target.segment_id)
        if copy is not None and (target.epoch, target.incarnation) == (
            copy.replica.epoch,
            copy.replica.incarnation,
        ):
            copy.heard_ms = self._runtime.monotonic_ms()
            self._move_lac(copy, request.lac)
        responder.reply(Done())

    def _move_lac(self, copy: Copy, lac: int) -> None:
        copy.replica = on_lac(copy.replica, lac)
        self._reading.progressed(copy)

    # --- takers-over ---

    def fence(self, request: Fence, _payload: memoryview, responder: Responder) -> None:
        """End the segment here."""
        target = request.target
        if len(request.token) > MAX_TOKEN_CHARS or not 0 <= request.epoch < MAX_NUMBER:
            raise InvalidRequest("a fence with an impossible epoch or token")
        mark = FenceMark(
            epoch=request.epoch, token=request.token, reason=request.reason[:MAX_REASON_CHARS]
        )
        copy = self._copies.get(target.log_id, target.segment_id)
        decision = on_fence(
            self._identity,
            self._copies.floor(target.log_id),
            None if copy is None else copy.replica,
            target,
            mark,
        )
        if decision.verdict is Verdict.STORE:
            copy = copy or self._new_copy(target, request.name, decision)
            done = partial(self._fence_synced, copy, responder)
            self._put(Kind.FENCE, copy, encode_fence(mark), done)
            assert decision.replica is not None
            copy.replica = decision.replica
            self.fenced += 1
            self._reading.news(target.log_id, target.segment_id)
            self._appeared(copy.log)
        elif decision.verdict is Verdict.WAIT:
            assert copy is not None
            self._journal.when_synced(partial(self._vote, copy, responder))
        else:
            self._refuse(responder, target, decision)

    def _fence_synced(self, copy: Copy, responder: Responder, error: Exception | None) -> None:
        if error is None:
            copy.replica = on_synced(copy.replica, fence=True)
        self._vote(copy, responder, error)

    def _vote(self, copy: Copy, responder: Responder, error: Exception | None) -> None:
        if error is not None:
            responder.reply(by_error(error))
        elif copy.is_dropped:
            self._answer_verdict(responder, copy, Verdict.GONE)
        elif not is_voting(copy.replica):  # repaired blocks are queued behind the fence
            self._journal.when_synced(partial(self._vote, copy, responder))
        else:
            said = vote(self._identity, copy.replica)
            responder.reply(
                Voted(
                    tip=said.tip,
                    complete=said.is_complete,
                    size_bytes=copy.size_bytes,
                    lac=said.lac,
                )
            )

    def repair(self, request: Repair, payload: memoryview, responder: Responder) -> None:
        """A block of a recoverer."""
        target = request.target
        header = self._checked(payload, target)
        copy = self._copies.get(target.log_id, target.segment_id)
        decision = on_repair(
            self._identity,
            self._copies.floor(target.log_id),
            None if copy is None else copy.replica,
            target,
            _block_in(header),
            request.end,
        )
        if decision.verdict is Verdict.STORE:
            assert copy is not None
            self._admit(copy, len(payload), self._upkeep.admits_repair(len(payload)))
            self._store(Kind.REPAIRED, copy, decision, header, payload,
                        partial(self._repair_synced, copy, header.number, responder))  # fmt: skip
            self.repaired += 1
        elif decision.verdict is Verdict.WAIT:
            assert copy is not None
            self._journal.when_synced(partial(self._repair_synced, copy, header.number, responder))
        else:
            self._refuse(responder, target, decision)

    def _repair_synced(
        self, copy: Copy, number: int, responder: Responder, error: Exception | None
    ) -> None:
        if error is not None:
            responder.reply(by_error(error))
            return
        copy.replica = on_synced(copy.replica, block=number)
        if copy.is_dropped:
            self._answer_verdict(responder, copy, Verdict.GONE)
        else:
            responder.reply(Stored(number=number))
        self._reading.progressed(copy)

    def set_end(self, copy: Copy, end: int) -> None:
        """A manifest shows the segment closed at block ``end``. Raises: Unavailable."""
        self._put(Kind.END, copy, b"", None, end)
        copy.replica = on_end(copy.replica, end)
        self._reading.news(copy.log.log_id, copy.segment_id)

    # --- blocks and copies ---

    def _checked(self, payload: memoryview, target: Target) -> BlockHeader:
        """The header of a block that is whole, and one of the segment it was sent for. Raises: Corrupt."""
        header = parse_header(payload, where="block")
        if len(payload) != header.size_bytes or not verify_digest(payload):
            raise Corrupt(
                f"node {self._identity.node}: block {header.number} of segment {target.segment_id} of log "
                f"{target.log_id} arrived damaged and was not stored",
                where="block",
            )
        if (header.segment_id, header.epoch, header.log_id) != (
            target.segment_id,
            target.epoch,
            target.log_id,
        ):
            raise Corrupt(
                f"node {self._identity.node}: a block of segment {header.segment_id} of log "
                f"{header.log_id} was sent as one of segment {target.segment_id} of log {target.log_id}",
                where="block",
            )
        return header

    def _admit(self, copy: Copy | None, size_bytes: int, has_room: bool) -> None:  # noqa: FBT001
        """Whether a block can be taken now. Raises: Overloaded, Unavailable, InvalidRequest."""
        node, settings = self._identity.node, self._settings
        if size_bytes > settings.max_block_bytes:
            raise InvalidRequest(
                f"a block of {size_bytes} bytes: node {node} takes {settings.max_block_bytes} at most; give "
                "it larger journal files, or write smaller entries"
            )
        if self.refuses_new and (copy is None or not copy.size_bytes):
            raise Unavailable(f"node {node} is drained and takes no more segments")
        if not has_room:
            raise Overloaded(f"node {node} has no room for blocks: {self._upkeep.room_text()}")
        queued = self._journal.queued_bytes
        if queued and queued + size_bytes > settings.queue_max_bytes:
            raise Overloaded(f"node {node}: {queued} bytes wait for its disk already")

    def _new_copy(self, target: Target, name: str, decision: Decision) -> Copy:
        """A copy of a segment that was not here. Raises: InvalidRequest, Unavailable."""
        _check_target(target)
        check_name(name)
        log = self._copies.logs.get(target.log_id)
        if log is not None and log.name and log.name != name:
            raise InvalidRequest(f"log {target.log_id} is called {log.name} here, not {name}")
        if log is None or not log.name:
            self._journal.put(Kind.NAME, name.encode(), log_id=target.log_id)
            self._copies.log(target.log_id).name = name
        assert decision.replica is not None
        fresh = Replica(incarnation=target.incarnation, epoch=target.epoch)
        copy = self._copies.add(
            target.log_id, target.segment_id, fresh, self._runtime.monotonic_ms()
        )
        self._appeared(copy.log)
        return copy

    def _store(
        self,
        kind: Kind,
        copy: Copy,
        decision: Decision,
        header: BlockHeader,
        payload: memoryview,
        done: Callable[[Exception | None], None],
    ) -> None:
        assert decision.replica is not None
        place = self._journal.put_block(
            kind, payload, done, is_placed=self._buffers.owns(payload),
            era=self._eras[copy.replica.incarnation], log_id=header.log_id,
            segment_id=header.segment_id, epoch=header.epoch, block=header.number,
        )  # fmt: skip
        copy.replica = decision.replica
        self._copies.stored(copy, header, place)
        self._cache.put(copy, header.number, payload)

    def _put(
        self,
        kind: Kind,
        copy: Copy,
        payload: bytes,
        done: Callable[[Exception | None], None] | None,
        block: int = NO_BLOCK,
    ) -> None:
        self._journal.put(
            kind, payload, done, era=self._eras[copy.replica.incarnation], log_id=copy.log.log_id,
            segment_id=copy.segment_id, epoch=copy.replica.epoch, block=block,
        )  # fmt: skip

    def _refuse(self, responder: Responder, target: Target, decision: Decision) -> None:
        self.refused += 1
        responder.reply(by_verdict(self._identity.node, target, decision.verdict, decision.last))

    def _answer_verdict(self, responder: Responder, copy: Copy, verdict: Verdict) -> None:
        self.refused += 1
        replica = copy.replica
        target = Target(
            log_id=copy.log.log_id,
            segment_id=copy.segment_id,
            epoch=replica.epoch,
            incarnation=replica.incarnation,
        )
        responder.reply(by_verdict(self._identity.node, target, verdict, replica.last))


def _block_in(header: BlockHeader) -> BlockIn:
    return BlockIn(
        number=header.number,
        end_seq=header.end_seq,
        prev_digest=header.prev_digest,
        digest=header.digest,
    )


def _check_target(target: Target) -> None:
    """Raises: InvalidRequest: no segment can be called this."""
    try:
        is_id = bytes.fromhex(target.log_id).hex() == target.log_id and len(target.log_id) == 32
    except ValueError:
        is_id = False
    if not is_id or not 0 <= target.segment_id < MAX_NUMBER or not 0 <= target.epoch < MAX_NUMBER:
        raise InvalidRequest(
            f"segment {target.segment_id} of log {target.log_id[:64]!r}, epoch {target.epoch}: there is no "
            "such segment"
        )
