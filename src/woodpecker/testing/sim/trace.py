"""What happened in a run, as text: virtual time, who, to whom, what. One run, one text."""

from __future__ import annotations

from collections.abc import Callable

from woodpecker.codec import endmark, keys, records
from woodpecker.core.manifest import Manifest, Segment
from woodpecker.errors import WoodpeckerError

LINE_CHARS = 240


class Trace:
    """Takes lines; ``write`` gets each as soon as it is there."""

    def __init__(self, now_s: Callable[[], float], write: Callable[[str], object]) -> None:
        self._now_s = now_s
        self._write = write

    def say(self, who: str, what: str) -> None:
        """``who`` may be "a -> b"."""
        text = what if len(what) <= LINE_CHARS else what[: LINE_CHARS - 3] + "..."
        self._write(f"{self._now_s():12.6f}  {who:<24} {text}\n")


def kind_of(key: str, size: int = -1) -> str:
    """What lies at ``key``: "manifest", "block", "mark" (by its size), "sealed" and so on."""
    if key.startswith(keys.LOGS):
        return "manifest"
    if key.startswith("meta/"):
        return key.split("/")[1].removesuffix("s")
    match keys.parse_object(key):
        case keys.BlockKey():
            return "mark" if endmark.is_mark_size(size) else "block"
        case keys.SealedKey():
            return "sealed"
        case keys.PageKey():
            return "page"
        case keys.RegisterKey():
            return "register"
        case keys.CallerKey():
            return "object"
        case _:
            return "marker" if key == keys.STORE_MARKER else "other"


def name_of(key: str) -> str:
    """A key as a person would say it; log ids are cut to four digits."""
    if key.startswith("meta/"):
        return key.removeprefix("meta/")
    match keys.parse_object(key):
        case keys.BlockKey(log_id=log, segment_id=segment, number=number):
            return f"{log[:4]} {segment}/{number}"
        case keys.SealedKey(log_id=log, segment_id=segment, end_seq=end, digest=digest):
            return f"{log[:4]} sealed {segment} up to {end} {digest[:4]}"
        case keys.PageKey(log_id=log, level=level, first_segment=first, last_segment=last):
            return f"{log[:4]} page {level} of {first}-{last}"
        case keys.RegisterKey(log_id=log, is_anchor=is_anchor, segment_id=segment):
            return f"{log[:4]} register {'before' if is_anchor else 'after'} {segment}"
        case _:
            return key


def told(manifest: Manifest) -> str:
    """A manifest in one line."""
    segments = " ".join(_segment(segment) for segment in manifest.segments)
    state = "tombstone " if manifest.is_tombstone else "deleting " if manifest.deleting else ""
    state += "ended " if manifest.ended else ""
    pending = "" if manifest.trim_pending is None else f" pending {manifest.trim_pending}"
    return (
        f"{state}epoch {manifest.epoch} token {manifest.token[:4]} next {manifest.next_segment_id}"
        f"@{manifest.next_seq} trim {manifest.trim_point}{pending} [{segments}]"
    )


def _segment(segment: Segment) -> str:
    end = "" if segment.end is None else f"..{segment.end.seq}"
    return f"{segment.id}:{segment.state}@{segment.base_seq}{end}"


def value_of(key: str, value: bytes) -> str:
    """A record's value in short."""
    try:
        if key.startswith(keys.LOGS):
            return told(records.decode_manifest(value, where=key))
        if key.startswith(keys.CURSORS):
            cursor = records.decode_cursor(value, where=key)
            return f"position {cursor.position} generation {cursor.generation}"
    except WoodpeckerError as error:
        return str(error)
    return f"{len(value)} B"
