"""Explores the project's models and prints the tables of docs/testing.md.

    python -m woodpecker.testing.model [--large] [--stories] [PART ...]

Exit code 0: every rule holds where it must, and every mutant is caught.
"""

from __future__ import annotations

import argparse
import sys

from woodpecker.testing.model.assignment.cases import ASSIGNMENT
from woodpecker.testing.model.broadcast.cases import BROADCAST
from woodpecker.testing.model.cases import Mutant, Part, World, mutant_row, world_row
from woodpecker.testing.model.checker import Result
from woodpecker.testing.model.file.cases import FILE
from woodpecker.testing.model.manifest.cases import MANIFEST
from woodpecker.testing.model.object.cases import OBJECT
from woodpecker.testing.model.quorum.cases import QUORUM
from woodpecker.testing.stream_model.cases import PARTS as STREAM_PARTS

WORLDS = "| world | states | moves | depth | s | result |\n|---|---|---|---|---|---|"
MUTANTS = "| rule left out | depth | review | states | harm |\n|---|---|---|---|---|"
PARTS = {
    part.name: part
    for part in (QUORUM, OBJECT, FILE, MANIFEST, ASSIGNMENT, BROADCAST, *STREAM_PARTS)
}


def main(argv: list[str] | None = None) -> int:
    """Parse, explore, print."""
    parser = argparse.ArgumentParser(prog="python -m woodpecker.testing.model")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--large", action="store_true", help="the large worlds too: minutes each")
    parser.add_argument("--stories", action="store_true", help="tell each counter-example")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    parts = [PARTS[name] for name in arguments.parts or PARTS]
    shown = [_show(part, arguments) for part in parts]
    return 0 if all(shown) else 1


def _show(part: Part, arguments: argparse.Namespace) -> bool:
    """Explore one part; True: all as it should be."""
    worlds = [world for world in part.worlds if arguments.large or not world.is_large]
    _say(f"\n{part.name}\n\n{WORLDS}")
    good = [_show_world(world) for world in worlds]
    _say(f"\n{MUTANTS}")
    caught = [_show_mutant(mutant, stories=arguments.stories) for mutant in part.mutants]
    return all([*good, *caught])


def _show_world(world: World) -> bool:
    result = world.explore()
    _say(world_row(world, result))
    if result.fault is not None:
        _say(result.told())
    return result.is_complete


def _show_mutant(mutant: Mutant, *, stories: bool) -> bool:
    result: Result = mutant.explore()
    _say(mutant_row(mutant, result))
    if stories:
        _say(result.told())
    return result.fault is not None


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
