"""Asking the members that hold copies of one segment; blocks from them are verified."""

from __future__ import annotations

from collections.abc import Sequence

from woodpecker.codec.block import Block
from woodpecker.codec.compression import Buffer
from woodpecker.codec.messages import Blocks, Read, Refused, Request
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Target, Verdict
from woodpecker.errors import Corrupt, NotFound, Unavailable, WoodpeckerError
from woodpecker.rpc.base import Answer
from woodpecker.segments.base import SegmentRef
from woodpecker.segments.quorum_links import Links, Peer

ASK_MS = 10_000
MAX_READ_BYTES = 4 << 20


class Copies:
    """The members of one segment, by their index in its ensemble. Any number of tasks of one loop."""

    def __init__(self, links: Links, ref: SegmentRef) -> None:
        ensemble = ref.segment.ensemble
        assert ensemble is not None, "a segment of kind quorum has an ensemble"
        self.ref = ref
        self.ensemble = ensemble
        self.peers: tuple[Peer, ...] = tuple(links.peer(member) for member in ensemble.members)
        self.targets = tuple(
            Target(
                log_id=ref.log_id,
                segment_id=ref.segment.id,
                epoch=ref.segment.epoch,
                incarnation=member.incarnation,
            )
            for member in ensemble.members
        )

    def __str__(self) -> str:
        return f"log {self.ref.name or self.ref.log_id} segment {self.ref.segment.id}"

    async def ask(
        self, index: int, request: Request, payload: Buffer = b"", *, timeout_ms: int = ASK_MS
    ) -> Answer:
        """What one member answers.

        Raises:
            NotFound: the segment is below the floor there: read the manifest.
            Unavailable: nobody there; with ``retryable`` False: its copy is gone for ever.
            Corrupt: it contradicts the manifest. Others: as the node refused.
        """
        answer = await self.peers[index].ask(request, payload, timeout_ms=timeout_ms)
        if isinstance(answer.message, Refused):
            raise self._refusal(index, answer.message)
        return answer

    def _refusal(self, index: int, refused: Refused) -> WoodpeckerError:
        text = f"{self}: {self.peers[index]}: {refused.text}"
        match refused.verdict:
            case Verdict.GONE:
                return NotFound(text)
            case Verdict.MISMATCH:
                return Corrupt(text, where=str(self))
            case Verdict.FOREIGN:
                error = Unavailable(text)
                error.retryable = False
                return error
            case _:
                return Unavailable(text)

    async def read(
        self,
        index: int,
        first: int,
        *,
        limit: int | None,
        max_bytes: int = MAX_READ_BYTES,
        facts_only: bool = False,
    ) -> list[Block]:
        """Verified blocks of one member from number ``first`` on; none: it has none to show.

        Raises: as ``ask``; Corrupt: they fail their checks.
        """
        request = Read(
            target=self.targets[index],
            first=first,
            limit=limit,
            max_bytes=max_bytes,
            facts_only=facts_only,
        )
        answer = await self.ask(index, request)
        return self.blocks_in(index, answer, first=first, is_dense=not facts_only)

    def blocks_in(
        self, index: int, answer: Answer, *, first: int = NO_BLOCK, is_dense: bool = True
    ) -> list[Block]:
        """The blocks that came with an answer to Read.

        Args:
            first: number that the first one must have; NO_BLOCK: any.
            is_dense: each follows the one before it by number and digest.
        Raises: Corrupt.
        """
        message = answer.message
        where = f"{self} on {self.peers[index]}"
        if not isinstance(message, Blocks) or sum(message.sizes) != len(answer.payload):
            raise Corrupt(f"{where}: an answer that makes no sense: {message}", where=where)
        blocks: list[Block] = []
        view, offset = memoryview(answer.payload), 0
        for size in message.sizes:
            blocks.append(Block.parse(view[offset : offset + size], where=where))
            offset += size
        self._check_place(blocks, first if is_dense else NO_BLOCK, where, is_dense=is_dense)
        return blocks

    def _check_place(
        self, blocks: Sequence[Block], first: int, where: str, *, is_dense: bool
    ) -> None:
        segment, before = self.ref.segment, None
        for block in blocks:
            header = block.header
            fits = (header.log_id, header.segment_id, header.epoch) == (
                self.ref.log_id, segment.id, segment.epoch,
            )  # fmt: skip
            if before is None:
                fits = fits and first in (NO_BLOCK, header.number)
            elif is_dense:
                fits = fits and header.number == before.number + 1
                fits = fits and header.prev_digest == before.digest
            if not fits:
                raise Corrupt(
                    f"{where}: block {header.number} is not the one that belongs here", where=where
                )
            before = header
