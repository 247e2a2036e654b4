"""Refusals, as a node words them."""

from __future__ import annotations

from woodpecker.codec.messages import Refused
from woodpecker.core.ids import NO_BLOCK
from woodpecker.core.replica import Target, Verdict
from woodpecker.errors import Conflict, Fenced, NotFound, Unavailable, WoodpeckerError

_MEANING = {
    Verdict.FENCED: (Fenced.code, "another writer has ended this segment"),
    Verdict.GONE: (NotFound.code, "sealed or deleted: the manifest says what became of it"),
    Verdict.FOREIGN: (Conflict.code, "meant for another incarnation of this node"),
    Verdict.RETIRED: (Unavailable.code, "this copy has lost records and takes no more blocks"),
    Verdict.GAP: (Conflict.code, "blocks before this one are missing here"),
    Verdict.MISMATCH: (Conflict.code, "this contradicts what is here"),
    Verdict.NOT_FENCED: (Conflict.code, "only a fenced copy is repaired"),
}


def by_verdict(node: str, target: Target, verdict: Verdict, last: int = NO_BLOCK) -> Refused:
    """The copy's rules refuse."""
    code, meaning = _MEANING[verdict]
    return Refused(
        code=code,
        text=f"node {node}, segment {target.segment_id} of log {target.log_id}: {meaning}",
        verdict=verdict,
        last=last,
    )


def by_error(error: Exception) -> Refused:
    """Something else refuses."""
    if isinstance(error, WoodpeckerError):
        return Refused(code=error.code, text=str(error))
    if isinstance(error, OSError):
        return Refused(code=Unavailable.code, text=f"the node's disk failed: {error}")
    return Refused(code=WoodpeckerError.code, text=f"a bug of the node: {error!r}")
