"""The manifest in the quorum model: the real transitions, each carried out once and remembered."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from woodpecker.core.commands import (
    CloseSegment,
    Command,
    CreateLog,
    OpenSegment,
    OpenWriter,
    Owner,
    Refusal,
    SealSegment,
)
from woodpecker.core.ids import NO_BLOCK, ZERO_DIGEST, Kind, State
from woodpecker.core.manifest import End, Ensemble, Manifest, Member, Options, Sealed, Segment
from woodpecker.core.register import EMPTY_REGISTER
from woodpecker.core.transitions import apply, check
from woodpecker.testing.model.quorum.node import OLD, TARGET, digest

LOG = TARGET.log_id
WRITER = Owner(log_id=LOG, epoch=TARGET.epoch, token="writer")


class Fate(NamedTuple):
    """What a manifest says of the segment. ``end``: NO_BLOCK if it was dropped; None while OPEN."""

    state: State | None
    end: int | None
    owner: str
    lowest_unsealed: int
    next_segment_id: int


class Manifests:
    """Manifests by number; 0 is the one that has just opened the segment."""

    def __init__(self, members: int, acks: int) -> None:
        ensemble = Ensemble(
            members=tuple(Member(node=f"n{i + 1}", incarnation=OLD) for i in range(members)),
            acks=acks,
        )
        segment = Segment(
            id=TARGET.segment_id,
            kind=Kind.QUORUM,
            state=State.OPEN,
            epoch=WRITER.epoch,
            token=WRITER.token,
            base_seq=0,
            prev_digest=ZERO_DIGEST,
            ensemble=ensemble,
        )
        self._known: list[Manifest] = []
        manifest = None
        for command in (
            CreateLog(name="log", log_id=LOG, now_ms=0, options=Options(), attributes={}),
            OpenWriter(log_id=LOG, seen_epoch=0, token=WRITER.token),
            OpenSegment(owner=WRITER, segment=segment),
        ):
            answer = apply(manifest, command)
            assert isinstance(answer, Manifest), answer
            manifest = answer
        assert manifest is not None
        self._number(manifest)
        self._after = cache(self._apply)
        self.fate = cache(self._fate)

    def take(self, number: int, token: str) -> int | None:
        """Raise the epoch; None: refused."""
        seen = self._known[number].epoch
        return self._after(number, OpenWriter(log_id=LOG, seen_epoch=seen, token=token))

    def close(self, number: int, owner: Owner, end: int) -> int | None:
        """Close the segment at block ``end``, or drop it; None: refused."""
        last = End(block=end, seq=end + 1, digest=digest(end).hex()) if end >= 0 else None
        command = CloseSegment(
            owner=owner,
            segment_id=TARGET.segment_id,
            end=last,
            bytes=0,
            first_timestamp_us=0,
            last_timestamp_us=0,
            now_ms=0,
            register=EMPTY_REGISTER,
        )
        return self._after(number, command)

    def seal(self, number: int) -> int | None:
        """Name the sealed object; None: refused."""
        end = self._known[number].segments[0].end
        assert end is not None
        return self._after(
            number,
            SealSegment(
                log_id=LOG,
                segment_id=TARGET.segment_id,
                end=end,
                sealed=Sealed(key="key", size=1, checksum="0"),
            ),
        )

    def as_taker(self, number: int, token: str) -> Owner:
        """Who the taker with this token is; its epoch counts only if it owns the log."""
        return Owner(log_id=LOG, epoch=self._known[number].epoch, token=token)

    def _fate(self, number: int) -> Fate:
        manifest = self._known[number]
        unsealed = [s.id for s in manifest.segments if s.state is not State.SEALED]
        following = manifest.next_segment_id
        lowest = unsealed[0] if unsealed else following
        if not manifest.segments:
            return Fate(None, NO_BLOCK, manifest.token, lowest, following)
        segment = manifest.segments[0]
        end = None if segment.end is None else segment.end.block
        return Fate(segment.state, end, manifest.token, lowest, following)

    def _apply(self, number: int, command: Command) -> int | None:
        answer = apply(self._known[number], command)
        if isinstance(answer, Refusal):
            return None
        fault = check(answer)
        assert fault is None, fault
        return self._number(answer)

    def _number(self, manifest: Manifest) -> int:
        if manifest not in self._known:
            self._known.append(manifest)
        return self._known.index(manifest)
