"""Taking a ``file`` segment over: fence its writer, find its end, be sure it is on the disk.

Runs in a thread. Decisions are those of ``core/file_rules``; this is the reading.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path

from woodpecker.codec.block import Block, BlockHeader, parse_header
from woodpecker.codec.header import MAGIC
from woodpecker.core.file_rules import (
    UNIT_BYTES,
    Act,
    Identity,
    Position,
    Verdict,
    cuts_published,
    judge,
    padded,
    proves_damage,
    takeover_plan,
)
from woodpecker.core.manifest import End, Segment
from woodpecker.core.register import BlockFacts
from woodpecker.direct_file import DataFile
from woodpecker.errors import Corrupt, Unavailable
from woodpecker.segments.base import Recovered
from woodpecker.segments.file_aligned import Window
from woodpecker.segments.file_side import Hint, Owner, SideFile

_FOLLOWED = "is damaged, and blocks that were written after it are there"


def try_lock(fd: int) -> bool:
    """Take the lock that a living writer holds on its data file. Raises: OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def first_position(segment: Segment) -> Position:
    """The beginning of a segment's file."""
    return Position(
        offset=0, block=0, seq=segment.base_seq, digest=bytes.fromhex(segment.prev_digest)
    )


def identity_of(log_id: str, segment: Segment) -> Identity:
    return Identity(log_id=log_id, segment_id=segment.id, epoch=segment.epoch)


@dataclass(slots=True, kw_only=True)
class Scan:
    """Reads blocks one after another from ``position`` and adds up what they are."""

    file: DataFile
    identity: Identity
    position: Position
    bytes: int = 0
    first_us: int = 0
    last_us: int = 0
    facts: list[BlockFacts] = field(default_factory=list)
    window: Window = field(init=False)

    def __post_init__(self) -> None:
        self.window = Window(self.file)

    def run(self, *, accept_loss: bool) -> None:
        """Advance to the end of the file. Raises: OSError; Corrupt: to end there would be a loss."""
        while True:
            header, block = self._read()
            match judge(self.identity, self.position, header, is_sound=block is not None):
                case Verdict.NEXT if block is not None:
                    self._add(block)
                case _ if accept_loss:
                    return
                case Verdict.DAMAGE:
                    raise self._damage(self.position.offset)
                case _:
                    self._look_behind()
                    return

    def _read(self) -> tuple[BlockHeader | None, Block | None]:
        """Header and block at the position, each None if it is not sound."""
        at, where = self.position.offset, self._where(self.position.offset)
        unit = self.window.view(at, UNIT_BYTES)
        if unit[: len(MAGIC)] != MAGIC:
            return None, None
        try:
            header = parse_header(unit, where=where)
        except Corrupt:
            return None, None
        view = self.window.view(at, header.size_bytes)
        try:
            return header, Block.parse(view, where=where)
        except Corrupt:
            return header, None

    def _add(self, block: Block) -> None:
        header = block.header
        if self.position.block == 0:
            self.first_us = block.first_timestamp_us
        self.last_us = block.last_timestamp_us
        self.bytes += header.size_bytes
        if header.has_facts:
            self.facts.append(block.facts())
        self.position = self.position.after(header)

    def _look_behind(self) -> None:
        """Refuse to cut if a later block of this writer stands anywhere behind the position."""
        bad = self.position.offset
        for offset in _data_from(self.file, bad + UNIT_BYTES):
            chunk = self.window.view(offset, 1 << 20)
            at = _find_magic(chunk, 0)
            while at >= 0:
                header = _header_at(chunk[at:], self._where(offset + at))
                if header and proves_damage(self.identity, self.position, header):
                    raise self._damage(bad)
                at = _find_magic(chunk, at + UNIT_BYTES)

    def cut_short(self) -> Corrupt:
        """The writer told readers and callers of more than what is there."""
        return self._damage(self.position.offset, "is damaged or gone, but was published before")

    def _damage(self, offset: int, how: str = _FOLLOWED) -> Corrupt:
        where = self._where(offset)
        return Corrupt(
            f"{where}: block {self.position.block} (seq {self.position.seq}) {how}: acknowledged entries "
            "would be lost by a cut here; restore the file from a copy, or give them up with "
            "`woodpecker log recover NAME --accept-loss`",
            where=where,
        )

    def _where(self, offset: int) -> str:
        return f"{self.file.path}@{offset}"


def _data_from(file: DataFile, start: int) -> list[int]:
    """Offsets of 1 MiB pieces of the file, from ``start`` on, that are not holes."""
    offsets: list[int] = []
    size = file.size
    while start < size:
        try:
            data = os.lseek(file.fd, start, os.SEEK_DATA)
        except OSError:
            break  # ENXIO: only holes from here on
        start = max(start, data - data % UNIT_BYTES)
        offsets.append(start)
        start += 1 << 20
    return offsets


def _find_magic(chunk: memoryview, start: int) -> int:
    """Index of the next unit that begins like a block, or -1."""
    for at in range(start, len(chunk), UNIT_BYTES):
        if chunk[at : at + len(MAGIC)] == MAGIC:
            return at
    return -1


def _header_at(unit: memoryview, where: str) -> BlockHeader | None:
    try:
        return parse_header(unit, where=where)
    except Corrupt:
        return None


def recover(
    log_id: str,
    segment: Segment,
    *,
    data_path: Path,
    side_path: Path,
    boot: str,
    accept_loss: bool = False,
) -> Recovered:
    """Fence, scan, sync, as the plan of ``core/file_rules`` says.

    Args:
        accept_loss: end at the first block that is not there, whatever stands behind it.
    Raises: OSError (FileNotFoundError: the data file is missing); Unavailable; Corrupt.
    """
    assert segment.place is not None
    file = DataFile.open(data_path, os.O_RDWR)
    side = _open_side(side_path, owner_of(log_id, segment, segment.place.boot))
    try:
        plan = takeover_plan(
            is_locked=try_lock(file.fd),
            is_same_boot=segment.place.boot == boot,
            is_side_sound=side is not None,
        )
        if plan is None:
            raise Unavailable(
                f"{data_path} is locked by a living process on this host ({segment.place.host}), and "
                f"{side_path} is not the side file made with it, so its writer cannot be fenced: "
                "end that process (fuser names it), then try again"
            )
        return _carry_out(plan, log_id, segment, file, side, accept_loss=accept_loss)
    finally:
        file.close()
        if side is not None:
            side.close()


def owner_of(log_id: str, segment: Segment, boot: str) -> Owner:
    return Owner(
        log_id=log_id,
        segment_id=segment.id,
        epoch=segment.epoch,
        token=segment.token,
        boot=boot,
        pid=os.getpid(),
    )


def _open_side(path: Path, owner: Owner) -> SideFile | None:
    try:
        return SideFile.open(path, owner)
    except FileNotFoundError:
        return None


def _carry_out(
    plan: tuple[Act, ...],
    log_id: str,
    segment: Segment,
    file: DataFile,
    side: SideFile | None,
    *,
    accept_loss: bool,
) -> Recovered:
    scan: Scan | None = None
    published = 0
    for act in plan:
        match act:
            case Act.FENCE if side is not None:
                side.fence()
            case Act.BARRIER if side is not None:
                side.barrier()
                published = side.published_bytes  # of this boot: other plans have no barrier
            case Act.SCAN:
                file.drop_cache()
                # what is to be salvaged may be damaged in the prefix, too
                hint = side.hint() if side is not None and not accept_loss else None
                scan = _start(log_id, segment, file, hint)
                scan.run(accept_loss=accept_loss)
                if cuts_published(scan.position, published) and not accept_loss:
                    raise scan.cut_short()
            case Act.SYNC:
                os.fdatasync(file.fd)
    assert scan is not None
    return _recovered(scan)


def _start(log_id: str, segment: Segment, file: DataFile, hint: Hint | None) -> Scan:
    """A scan from the hint if it is a good one, else from the beginning."""
    identity = identity_of(log_id, segment)
    if hint is None or not _holds(hint, identity, file):
        return Scan(file=file, identity=identity, position=first_position(segment))
    return Scan(
        file=file,
        identity=identity,
        position=hint.position,
        bytes=hint.bytes,
        first_us=hint.first_timestamp_us,
        last_us=hint.last_timestamp_us,
    )


def _holds(hint: Hint, identity: Identity, file: DataFile) -> bool:
    """Whether the prefix may be skipped: its last block is there, and the register needs none of it."""
    end = hint.position
    if end.offset > padded(file.size) or hint.last_offset >= end.offset:
        return False
    view = Window(file).view(hint.last_offset, end.offset - hint.last_offset)
    try:
        header = parse_header(view)
        block = Block.parse(view[: header.size_bytes])
    except Corrupt:
        return False
    header = block.header
    return (
        identity.owns(header)
        and (header.number + 1, header.end_seq, header.digest) == (end.block, end.seq, end.digest)
        and not header.has_facts
        and not header.facts_before
    )


def fence_lost(log_id: str, segment: Segment, *, side_path: Path, boot: str) -> None:
    """Fence the writer of a data file that is gone: it may still hold it, without a name.

    Raises: OSError; Unavailable.
    """
    assert segment.place is not None
    side = _open_side(side_path, owner_of(log_id, segment, segment.place.boot))
    try:
        is_same_boot = segment.place.boot == boot
        plan = takeover_plan(
            is_locked=False, is_same_boot=is_same_boot, is_side_sound=side is not None
        )
        if plan is None:
            raise Unavailable(
                f"{side_path} and its data file are gone, and a process of this host may still write to "
                "them: restart the machine, then try again"
            )
        if side is not None and Act.FENCE in plan:
            side.fence()
            side.barrier()
    finally:
        if side is not None:
            side.close()


def _recovered(scan: Scan) -> Recovered:
    at = scan.position
    end = End(block=at.block - 1, seq=at.seq, digest=at.digest.hex()) if at.block else None
    return Recovered(
        end=end,
        bytes=scan.bytes,
        first_timestamp_us=scan.first_us,
        last_timestamp_us=scan.last_us,
        facts=scan.facts,
    )
