"""What is known of an entry whose append did not return: in the log, surely not, or unknown.

Rules of the log protocol, section 9: mine are the seqs below E of the closed segment I wrote them to;
while that segment is OPEN, or gone from the manifest, nothing is known.
"""

from __future__ import annotations

from enum import StrEnum

from woodpecker.core.manifest import Segment


class Known(StrEnum):
    """Verdict about one entry."""

    WRITTEN = "written"
    NOT_WRITTEN = "not_written"
    UNKNOWN = "unknown"


def judge(segment: Segment | None, *, token: str, seq: int) -> Known:
    """Verdict about ``seq`` packed into the segment that ``token`` opened.

    Args:
        segment: as the manifest shows it now, None if it is not there.
    """
    if segment is None or segment.token != token or segment.end is None:
        return Known.UNKNOWN
    return Known.WRITTEN if seq < segment.end.seq else Known.NOT_WRITTEN
