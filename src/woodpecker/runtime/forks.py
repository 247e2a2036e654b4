"""Handles do not survive ``fork``: sockets, locks and tokens would be used twice.

Every handle registers here; in a forked child each is told so once, and its next call answers Closed.
This costs nothing per call, unlike asking for the pid each time.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Handle(Protocol):
    """Something a child process must not use."""

    def on_fork(self) -> None:
        """Refuse every later call with Closed."""


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def refuse_after_fork(handle: Handle) -> None:
    """Have ``handle.on_fork()`` called in any child process forked from this one."""
    _handles.add(handle)


def _in_child() -> None:
    for handle in list(_handles):
        handle.on_fork()
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
