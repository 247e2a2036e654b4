"""Which incarnation a node's disk is in, and when it must take a new one (log protocol, section 7).

An incarnation promises to remember everything it has acknowledged. A disk that may have forgotten
something makes its incarnation *past*: that one takes no blocks any more, and its votes are lower bounds
(``replica.py``). A disk may have forgotten something if

- its journal has a *scar* whose consequences were not drawn yet: a torn end was cut, or records are
  damaged and it cannot be told which;
- it was stopped in good order, and its journal does not end where it ended then, or it is gone;
- somebody has seen it with a higher boot number: an older state of the disk was put back.

An empty disk is a new node to everybody: it knows no incarnation but its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from woodpecker.core.replica import Identity

Scar = tuple[int, int]
"""Number of a journal file and the offset in it where records may be missing."""

Closing = tuple[int, int, int]
"""Where a journal ends: number of the file, offset in it, number of the next record."""

Joint = tuple[int, int]
"""Number of the journal file that was the last one at some start, and of the first record behind it."""

NO_JOURNAL: Closing = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskState:
    """What a node's disk says of itself. ``incarnations``: oldest first, the last one is current."""

    node: str
    incarnations: tuple[str, ...]
    boot: int  # grows with every start
    scars: tuple[Scar, ...] = ()  # whose consequences were drawn
    joints: tuple[Joint, ...] = ()  # what files hold beyond them was cut
    closed: Closing | None = None  # set while the node is stopped, if it was in good order

    @property
    def identity(self) -> Identity:
        """As which the node answers requests."""
        return Identity(
            node=self.node,
            incarnation=self.incarnations[-1],
            past=frozenset(self.incarnations[:-1]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The state a node starts with, to be durable before it answers anybody.

    ``lost``: why the last incarnation became past; "" if it did not.
    """

    state: DiskState
    lost: str = ""


def new_disk(node: str, token: str, boot_seen: int) -> Start:
    """An empty disk."""
    return Start(state=DiskState(node=node, incarnations=(token,), boot=boot_seen + 1))


def started(
    state: DiskState,
    *,
    token: str,
    boot_seen: int,
    files: Collection[int],
    scars: Sequence[Scar],
    end: Closing,
) -> Start:
    """A disk that was used before.

    Args:
        token: the new incarnation, should one be needed.
        boot_seen: highest boot number anybody knows of this node; 0 if none.
        files, scars, end: of the journal, as found now.
    """
    lost = _lost(state, boot_seen, scars, end)
    joints = {file: record for file, record in state.joints if file in files}
    if end != NO_JOURNAL:
        joints.setdefault(end[0], end[2])
    return Start(
        state=DiskState(
            node=state.node,
            incarnations=(*state.incarnations, token) if lost else state.incarnations,
            boot=max(state.boot, boot_seen) + 1,
            scars=tuple(sorted(scars)),
            joints=tuple(sorted(joints.items())),
        ),
        lost=lost,
    )


def _lost(state: DiskState, boot_seen: int, scars: Sequence[Scar], end: Closing) -> str:
    fresh = sorted(set(scars) - set(state.scars))
    if fresh:
        places = ", ".join(f"file {file} at {offset}" for file, offset in fresh[:3])
        return f"records of the journal are missing or damaged ({places})"
    if end == NO_JOURNAL:
        return "the journal is gone"
    if state.closed is not None and state.closed != end:
        return f"the journal ends at {end}, but was stopped in good order at {state.closed}"
    if state.boot < boot_seen:
        return f"boot {boot_seen} of this node was seen, its disk knows {state.boot} only"
    return ""
