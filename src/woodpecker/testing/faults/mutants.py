"""Bugs planted on purpose, to see that the runs find them.

A worker's setting ``mutant`` names one of ``MUTANTS``; a node runs one of ``NODE_MUTANTS`` (``planted.py``).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from woodpecker.client.writer import LogWriter
from woodpecker.core import node_disk, quorum_append, quorum_recovery, replica
from woodpecker.segments import object as object_kind
from woodpecker.segments.file_side import SideFile


def forget_the_last_block() -> None:
    """Recovery of kind ``object`` fixes the end one block too early."""
    walker = object_kind._Walker  # noqa: SLF001
    run = walker.run

    async def shorter(self: Any) -> int:
        return max(0, await run(self) - 1)

    walker.run = shorter  # type: ignore[method-assign]


def acknowledge_at_once() -> None:
    """Futures of ``submit`` are answered when the entry is in the queue, not when it is durable."""
    submit = LogWriter.submit

    def hasty(self: LogWriter, *args: Any, **named: Any) -> asyncio.Future[Any]:
        seq = self.next_seq
        submit(self, *args, **named).add_done_callback(_forget)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(seq)
        return done

    LogWriter.submit = hasty  # type: ignore[method-assign]


def _forget(late: asyncio.Future[Any]) -> None:
    if not late.cancelled():
        late.exception()


def ignore_the_fence() -> None:
    """Writers of kind ``file`` do not look at the fence word."""
    SideFile.is_fenced = property(lambda _: False)  # type: ignore[assignment]


def acknowledge_one_copy() -> None:
    """Writers of kind ``quorum`` acknowledge what one member has on its disk."""
    start = quorum_append.start
    _swap(quorum_append, "start", lambda members, acks: start(members, min(acks, 1)))


def decide_too_early() -> None:
    """Take-overs of kind ``quorum`` take the first vote for all of them."""
    _swap(quorum_recovery, "fence_cover", lambda *_: 1)


def vote_with_an_empty_disk() -> None:
    """A node goes by the same incarnation whatever happened to its disk."""
    new_disk = node_disk.new_disk

    def same(node: str, _token: str, boot_seen: int) -> node_disk.Start:
        return new_disk(node, zlib.crc32(node.encode()).to_bytes(4, "big").hex() * 4, boot_seen)

    _swap(node_disk, "new_disk", same)


def take_blocks_behind_the_fence() -> None:
    """A node goes on taking blocks from the old writer, and answers them."""
    on_append = replica.on_append

    def unfenced(me: Any, floor: int, copy: Any, target: Any, block: Any) -> Any:
        if copy is None or copy.fence is None:
            return on_append(me, floor, copy, target, block)
        decision = on_append(me, floor, replace(copy, fence=None), target, block)
        if decision.replica is None:
            return decision
        return replace(decision, replica=replace(decision.replica, fence=copy.fence))

    _swap(replica, "on_append", unfenced)
    _swap(replica, "answers_writer", lambda _: True)


def forget_fences() -> None:
    """A node that starts again knows the blocks of its journal, and no fence."""
    from woodpecker.codec.journal import Kind
    from woodpecker.logstore.rebuild import Rebuild

    take = Rebuild.take

    def blocks_only(self: Rebuild, file: int, found: Any) -> None:
        if found.header.kind is not Kind.FENCE:
            take(self, file, found)

    _swap(Rebuild, "take", blocks_only)


def _swap(owner: Any, name: str, new: Any) -> None:
    assert hasattr(owner, name), f"{name} is not there any more: this bug must be planted elsewhere"
    setattr(owner, name, new)


MUTANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        forget_the_last_block,
        acknowledge_at_once,
        ignore_the_fence,
        acknowledge_one_copy,
        decide_too_early,
    )
}

NODE_MUTANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (vote_with_an_empty_disk, take_blocks_behind_the_fence, forget_fences)
}
"""Of LogStore nodes, planted before the node's own modules are imported."""
