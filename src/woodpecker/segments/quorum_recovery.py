"""Ending somebody else's segment: fence its members, find the end E, make all up to E safe.

``core/quorum_recovery.py`` says when E is decided and when it is safe; this driver asks and copies. Every
step may be run again, by anybody, at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from woodpecker.codec.block import Block
from woodpecker.codec.messages import Fence, Repair, Upload, Voted
from woodpecker.core import quorum_recovery as rules
from woodpecker.core.backoff import delay_ms
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.manifest import End
from woodpecker.core.quorum import fence_cover
from woodpecker.core.quorum_recovery import Decided, Undecided
from woodpecker.core.register import BlockFacts
from woodpecker.core.replica import Tip, Vote
from woodpecker.errors import Closed, Corrupt, NotFound, Unavailable, WoodpeckerError
from woodpecker.runtime.runtime import Runtime
from woodpecker.segments.base import Recovered
from woodpecker.segments.quorum_copies import MAX_READ_BYTES, Copies

PATIENCE_MS = 20_000.0  # for members that do not answer
SALVAGE_MS = 5_000.0  # ... where a person has given up what they held
GRACE_MS = 250.0  # for more answers, where those there are would mean copying
UPLOAD_MS = 300_000
NOTHING = Recovered(end=None, bytes=0, first_timestamp_us=0, last_timestamp_us=0, facts=())

Answer = tuple[int, Voted | WoodpeckerError]


class _HolderGone(Exception):
    """Nobody who answered holds E any more: what was decided is void."""


@dataclass(slots=True)
class _Ballot:
    """Answers of one attempt, by member; they die with it."""

    votes: dict[int, Vote] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)  # members that will never answer


class Recovery:
    """One recovery of one segment. One task."""

    def __init__(self, copies: Copies, runtime: Runtime, *, token: str) -> None:
        self._copies = copies
        self._runtime = runtime
        self._token = token
        self._why: dict[int, str] = {}  # what is the matter with a member

    async def recover(self) -> Recovered:
        """See ``SegmentStore.recover``.

        Raises: Unavailable: too few members answer, and why. NotFound: somebody was faster.
        """
        until_ms = self._runtime.monotonic_ms() + PATIENCE_MS
        attempt = 0
        while True:
            ballot = await self._vote(until_ms)
            decided = self._decide(ballot)
            assert isinstance(decided, Decided)
            if decided.tip is None:
                return NOTHING
            try:
                holders = await self._make_safe(ballot, decided)
                return await self._describe(ballot, decided.tip, holders)
            except _HolderGone as error:
                attempt += 1
                if self._runtime.monotonic_ms() >= until_ms:
                    raise Unavailable(
                        f"{self._copies}: whoever holds its last block goes away again and again: "
                        f"{error}; open the log again once its nodes are steady"
                    ) from error
                await self._runtime.sleep_ms(delay_ms(attempt, self._runtime.random()))

    # --- voting ---

    async def _vote(self, until_ms: float) -> _Ballot:
        """Fence all members at once; back when E is decided. Raises: Unavailable, NotFound."""
        ballot, answers = _Ballot(), asyncio.Queue[Answer]()
        tasks = [
            self._runtime.spawn(self._fence(index, answers), f"fence {peer}")
            for index, peer in enumerate(self._copies.peers)
        ]
        try:
            while True:
                left_ms = until_ms - self._runtime.monotonic_ms()
                decided = self._decide(ballot)
                if isinstance(decided, Decided):
                    acks = self._copies.ensemble.acks
                    is_safe = rules.is_safe(acks, decided, 0)
                    if is_safe or len(ballot.votes) + len(ballot.lost) == len(tasks):
                        return ballot
                    left_ms = GRACE_MS
                if not await self._take_one(ballot, answers, left_ms):
                    if isinstance(decided, Decided):
                        return ballot
                    raise self._too_few(ballot)
        finally:
            await _end(tasks)

    async def _take_one(
        self, ballot: _Ballot, answers: asyncio.Queue[Answer], left_ms: float
    ) -> bool:
        """Count the next answer; False: none came in time. Raises: Unavailable: none can help."""
        try:
            async with asyncio.timeout(max(0.0, left_ms) / 1000):
                index, answer = await answers.get()
        except TimeoutError:
            return False
        if isinstance(answer, NotFound | Closed):
            raise answer
        if isinstance(answer, WoodpeckerError):
            ballot.lost.add(index)
        else:
            ballot.votes[index] = Vote(tip=answer.tip, is_complete=answer.complete, lac=answer.lac)
            ballot.sizes[index] = answer.size_bytes
            self._why.pop(index, None)
        if self._is_hopeless(ballot):
            raise self._too_few(ballot)
        return True

    async def _fence(self, index: int, answers: asyncio.Queue[Answer]) -> None:
        """Ask one member until it answers, or never will."""
        ref, attempt = self._copies.ref, 0
        request = Fence(
            target=self._copies.targets[index],
            name=ref.name,
            epoch=ref.segment.epoch + 1,  # at least
            token=self._token,
            reason="taken over",
        )
        while True:
            try:
                answer = await self._copies.ask(index, request)
            except WoodpeckerError as error:
                self._why[index] = str(error)
                if isinstance(error, NotFound) or not error.retryable:
                    answers.put_nowait((index, error))
                    return
            else:
                assert isinstance(answer.message, Voted)
                answers.put_nowait((index, answer.message))
                return
            attempt += 1
            await self._runtime.sleep_ms(
                delay_ms(attempt, self._runtime.random(), first_ms=50.0, limit_ms=1_000.0)
            )

    def _decide(self, ballot: _Ballot) -> Decided | Undecided:
        ensemble = self._copies.ensemble
        try:
            return rules.decide(len(ensemble.members), ensemble.acks, ballot.votes)
        except rules.Contradiction as error:
            raise Corrupt(f"{self._copies}: {error}", where=str(self._copies)) from error

    def _is_hopeless(self, ballot: _Ballot) -> bool:
        """Whether E can never be decided, for what some members held is gone."""
        if not ballot.lost:
            return False  # all N together decide in any case
        ensemble = self._copies.ensemble
        bounds = sum(not vote.is_complete for vote in ballot.votes.values())
        full = len(ensemble.members) - len(ballot.lost) - bounds
        if full < fence_cover(len(ensemble.members), ensemble.acks):
            return True
        is_over = len(ballot.votes) + len(ballot.lost) == len(ensemble.members)
        return is_over and isinstance(self._decide(ballot), Undecided)

    def _too_few(self, ballot: _Ballot) -> Unavailable:
        ensemble, votes = self._copies.ensemble, ballot.votes.values()
        members = len(ensemble.members)
        missing = "; ".join(
            self._why.get(index, f"{peer}: no answer")
            for index, peer in enumerate(self._copies.peers)
            if index not in ballot.votes
        )
        bounds = sum(not vote.is_complete for vote in votes)
        doubt = f", {bounds} of them after losing records" if bounds else ""
        needed = f"{fence_cover(members, ensemble.acks)} must"
        last = max((_number(vote.tip) for vote in votes), default=NO_BLOCK)
        if any(vote.lac > last for vote in votes):
            needed = "but a block was acknowledged that they do not have: all must"
        return Unavailable(
            f"{self._copies} cannot be taken over: {len(ballot.votes)} of its {members} members "
            f"answered{doubt}, {needed}. Missing: {missing}. Start these nodes and try again; if what "
            "they held is lost for good, 'woodpecker log recover NAME --accept-loss' goes on without it"
        )

    # --- making safe ---

    async def _make_safe(self, ballot: _Ballot, decided: Decided) -> list[int]:
        """Copy blocks until at least A members have all up to E, else upload; returns who has it."""
        acks, tip = self._copies.ensemble.acks, decided.tip
        assert tip is not None
        holders = list(decided.holders)
        repaired: list[int] = []

        def is_safe() -> bool:  # who could not show its blocks any more has left ``holders``
            held = Decided(tip=tip, holders=tuple(holders))
            return rules.is_safe(acks, held, len(repaired))

        for index in rules.to_repair(acks, decided, ballot.votes):
            if is_safe():
                break
            short = ballot.votes[index].tip
            first = 0 if short is None else short.number + 1
            try:
                await self._repair(holders, index, first, tip.number)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                self._why[index] = str(error)
            else:
                repaired.append(index)
        if not is_safe():
            await self._upload(holders, tip)
        return [*holders, *repaired]

    async def _repair(self, holders: list[int], index: int, first: int, end: int) -> None:
        """Bring one member up to E. Raises: _HolderGone; what it refuses."""
        while first <= end:
            blocks = await self._read(holders, first, end)
            request = Repair(
                target=self._copies.targets[index], name=self._copies.ref.name, end=end
            )
            answers = await asyncio.gather(
                *(self._copies.ask(index, request, block.buffer) for block in blocks),
                return_exceptions=True,
            )
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            first = blocks[-1].header.number + 1

    async def _read(
        self, holders: list[int], first: int, end: int, *, max_bytes: int = MAX_READ_BYTES
    ) -> list[Block]:
        """Blocks from a holder; who cannot give them is none any more. Raises: _HolderGone, NotFound."""
        while holders:
            try:
                blocks = await self._copies.read(holders[0], first, limit=end, max_bytes=max_bytes)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                self._why[holders[0]] = str(error)
            else:
                if blocks:
                    return blocks
                self._why[holders[0]] = f"block {first} is not there"
            del holders[0]
        raise _HolderGone("; ".join(self._why.values()))

    async def _upload(self, holders: list[int], tip: Tip) -> None:
        """Have a holder write the sealed object: too few nodes can hold what there is."""
        end = End(block=tip.number, seq=tip.end_seq, digest=tip.digest.hex())
        while holders:
            request = Upload(
                target=self._copies.targets[holders[0]], name=self._copies.ref.name, end=end
            )
            try:
                await self._copies.ask(holders[0], request, timeout_ms=UPLOAD_MS)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                self._why[holders[0]] = str(error)
                del holders[0]
            else:
                return
        raise _HolderGone("; ".join(self._why.values()))

    # --- describing ---

    async def _describe(self, ballot: _Ballot, tip: Tip, holders: list[int]) -> Recovered:
        """What the closing CAS must know; read from whoever has everything."""
        size_bytes = next(
            ballot.sizes[index] for index, vote in ballot.votes.items() if vote.tip == tip
        )
        last = (await self._read(holders, tip.number, tip.number, max_bytes=1))[0]
        first = last
        if tip.number:
            first = (await self._read(holders, 0, tip.number, max_bytes=1))[0]
        facts: list[BlockFacts] = []
        if last.header.facts_before:
            facts = await self._facts(holders, tip.number - 1)
        if last.header.has_facts:
            facts.append(last.facts())
        return _recovered(last, size_bytes, first.header.base_timestamp_us, facts)

    async def _facts(self, holders: list[int], end: int) -> list[BlockFacts]:
        """Register facts of the blocks up to ``end``."""
        facts: list[BlockFacts] = []
        first = 0
        while first <= end:
            try:
                blocks = await self._copies.read(holders[0], first, limit=end, facts_only=True)
            except (NotFound, Closed):
                raise
            except WoodpeckerError as error:
                self._why[holders[0]] = str(error)
                del holders[0]
                if not holders:
                    raise _HolderGone("; ".join(self._why.values())) from error
                continue
            if not blocks:
                break
            facts += [block.facts() for block in blocks]
            first = blocks[-1].header.number + 1
        return facts

    # --- giving up what is lost ---

    async def salvage(self) -> Recovered:
        """Fence whoever answers and keep the longest run of sound blocks that any of them has.

        A person has accepted that the rest is lost, and that an old writer may live behind members that
        do not answer.
        """
        ballot = await self._vote_of_those_left()
        end = max((_number(vote.tip) for vote in ballot.votes.values()), default=NO_BLOCK)
        sound, blocks = await self._sound_run(list(ballot.votes), end)
        if sound is None:
            return NOTHING
        header = sound.header
        tip = Tip(number=header.number, end_seq=header.end_seq, digest=header.digest)
        holders = tuple(i for i, vote in ballot.votes.items() if _number(vote.tip) >= tip.number)
        with suppress(_HolderGone, WoodpeckerError):  # else it is sealed from one sound copy
            await self._make_safe(ballot, Decided(tip=tip, holders=holders))
        return blocks.recovered(sound)

    async def _vote_of_those_left(self) -> _Ballot:
        ballot, answers = _Ballot(), asyncio.Queue[Answer]()
        tasks = [
            self._runtime.spawn(self._fence(index, answers), f"fence {peer}")
            for index, peer in enumerate(self._copies.peers)
        ]
        until_ms = self._runtime.monotonic_ms() + SALVAGE_MS
        try:
            while len(ballot.votes) + len(ballot.lost) < len(tasks):
                left_ms = until_ms - self._runtime.monotonic_ms()
                try:
                    if not await self._take_one(ballot, answers, left_ms):
                        break
                except Unavailable:
                    continue  # hopeless, which is why we are here
        finally:
            await _end(tasks)
        return ballot

    async def _sound_run(self, members: Sequence[int], end: int) -> tuple[Block | None, _Run]:
        """The last block of the longest sound run from block 0 on, read from all of them together."""
        run, last = _Run(), None
        before = bytes.fromhex(self._copies.ref.segment.prev_digest)
        waiting, max_bytes = list(members), MAX_READ_BYTES  # who has not failed at the next block
        while waiting:
            first = 0 if last is None else last.header.number + 1
            blocks = await self._sound_blocks(waiting[0], first, end, before, max_bytes)
            if blocks:
                for block in blocks:
                    run.add(block)
                last, before = blocks[-1], blocks[-1].header.digest
                waiting = [waiting[0], *(index for index in members if index != waiting[0])]
            elif max_bytes > 1:
                max_bytes = 1  # one by one up to the damage
            else:
                del waiting[0]
                max_bytes = MAX_READ_BYTES
        return last, run

    async def _sound_blocks(
        self, index: int, first: int, end: int, before: bytes, max_bytes: int
    ) -> list[Block]:
        """Blocks of one member that continue the run; none: it has no sound ones."""
        if first > end:
            return []
        try:
            blocks = await self._copies.read(index, first, limit=end, max_bytes=max_bytes)
        except WoodpeckerError as error:
            self._why[index] = str(error)
            return []
        return blocks if blocks and blocks[0].header.prev_digest == before else []


@dataclass(slots=True)
class _Run:
    """What is known of blocks read one after the other."""

    bytes: int = 0
    first_timestamp_us: int | None = None
    facts: list[BlockFacts] = field(default_factory=list)

    def add(self, block: Block) -> None:
        self.bytes += block.header.size_bytes
        if self.first_timestamp_us is None:
            self.first_timestamp_us = block.header.base_timestamp_us
        if block.header.has_facts:
            self.facts.append(block.facts())

    def recovered(self, last: Block) -> Recovered:
        return _recovered(last, self.bytes, self.first_timestamp_us or 0, self.facts)


def _recovered(
    last: Block, size_bytes: int, first_us: int, facts: Sequence[BlockFacts]
) -> Recovered:
    header = last.header
    return Recovered(
        end=End(block=header.number, seq=header.end_seq, digest=header.digest.hex()),
        bytes=size_bytes,
        first_timestamp_us=first_us,
        last_timestamp_us=last.last_timestamp_us,
        facts=facts,
    )


def _number(tip: Tip | None) -> int:
    return NO_BLOCK if tip is None else tip.number


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
