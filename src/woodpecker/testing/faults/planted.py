"""Woodpecker's command line with a planted bug: ``python -m woodpecker.testing.faults.planted BUG ARGV...``"""

from __future__ import annotations

import sys

from woodpecker.testing.faults.mutants import NODE_MUTANTS
from woodpecker.testing.servers.logstore import WOODPECKER


def program(mutant: str) -> tuple[str, ...]:
    """What nodes run: as they are, or with a bug, if it is one of nodes."""
    if mutant not in NODE_MUTANTS:
        return WOODPECKER
    return (sys.executable, "-m", "woodpecker.testing.faults.planted", mutant)


def main() -> None:
    """Plant it, then be ``woodpecker``."""
    from woodpecker.cli.main import main as woodpecker

    NODE_MUTANTS[sys.argv.pop(1)]()
    woodpecker()


if __name__ == "__main__":
    main()
