"""Becomes a program that does not outlive its parent, perhaps in another network namespace.

Run as a script, ``python -I -S launch.py PARENT NETNS_FD ARGV...`` (``-``: stay in this namespace): it
uses nothing but the standard library, so the program is there some milliseconds later, under the same pid.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CLONE_NEWNET = 0x40000000  # linux/sched.h


def main() -> None:
    """Tie this process to its parent, enter the namespace, become the program."""
    parent, netns, *argv = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the parent has ended")
    if netns != "-" and libc.setns(int(netns), CLONE_NEWNET):
        sys.exit(f"setns: {os.strerror(ctypes.get_errno())}")
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
