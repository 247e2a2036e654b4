"""The map of who owns which pchannel: what coordinators push, and what clients make of it (pure).

Maps are values. The coordinator publishes one after another, and says of each what has changed since the
one before and the digest of the whole; a client that reaches another digest asks for the whole again.
The digest is the XOR of the digests of all entries, so a change costs what changed, not what is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from woodpecker.streaming.frames import MapChange, MapEntry, MapVersion

DIGEST_BYTES = 16
NO_VERSION = MapVersion(epoch=0, counter=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentMap:
    """One version of the map. ``entries``: by pchannel, never changed. ``checksum``: the digest as a number."""

    version: MapVersion = NO_VERSION
    entries: Mapping[str, MapEntry]
    checksum: int = 0

    @property
    def digest(self) -> str:
        """Of the whole map: 32 hex digits."""
        return f"{self.checksum:032x}"

    def changed(
        self, version: MapVersion, entries: Iterable[MapEntry], removed: Iterable[str] = ()
    ) -> AssignmentMap:
        """The next version, in which these entries are so and those are gone."""
        assert version > self.version, "versions grow"
        after, checksum = dict(self.entries), self.checksum
        for entry in entries:
            before = after.get(entry.pchannel)
            if before is not None:
                checksum ^= _digest(before)
            checksum ^= _digest(entry)
            after[entry.pchannel] = entry
        for name in removed:
            gone = after.pop(name, None)
            if gone is not None:
                checksum ^= _digest(gone)
        return AssignmentMap(version=version, entries=after, checksum=checksum)

    def whole(self) -> MapChange:
        """All of it, as a frame."""
        entries = tuple(self.entries.values())
        return MapChange(version=self.version, entries=entries, digest=self.digest)

    def since(self, before: AssignmentMap) -> MapChange:
        """What leads from ``before`` to this one, as a frame."""
        return MapChange(
            version=self.version,
            entries=tuple(e for n, e in self.entries.items() if before.entries.get(n) != e),
            removed=tuple(name for name in before.entries if name not in self.entries),
            digest=self.digest,
            since=before.version,
        )


EMPTY_MAP = AssignmentMap(entries={})


def applied(before: AssignmentMap, change: MapChange) -> AssignmentMap | None:
    """What a receiver has after a frame; None: the frames do not fit together, ask for the whole map.

    What is not newer changes nothing.
    """
    if change.version <= before.version:
        return before
    if change.since is None:
        after = EMPTY_MAP.changed(change.version, change.entries)
    elif change.since == before.version:
        after = before.changed(change.version, change.entries, change.removed)
    else:
        return None
    return after if after.digest == change.digest else None


def _digest(entry: MapEntry) -> int:
    """Of one entry; other implementations need the same: see docs/streaming-wire.md."""
    fields = (entry.pchannel, str(entry.term), entry.node, entry.incarnation, entry.address)
    text = "\0".join((*fields, "1" if entry.serving else "0"))
    return int.from_bytes(blake2b(text.encode(), digest_size=DIGEST_BYTES).digest(), "big")
