"""Command line of the runs with faults; exit code 0: every invariant held."""

from __future__ import annotations

import argparse
import asyncio
import random
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from woodpecker.testing.faults.arena import Report, say
from woodpecker.testing.faults.kill import kill_loop


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print."""
    arguments = _parser().parse_args(argv)
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    parent = arguments.directory
    directory = Path(tempfile.mkdtemp(prefix="woodpecker-", dir=parent))
    command = _command(argv, seed)
    say(f"seed {seed}, data in {directory}")
    report = asyncio.run(_run(arguments, directory, seed, command))
    say(str(report))
    if report.is_good and not arguments.keep:
        shutil.rmtree(directory)
    else:
        say(f"histories and data: {directory}")
    return 0 if report.is_good else 1


async def _run(arguments: argparse.Namespace, directory: Path, seed: int, command: str) -> Report:
    return await kill_loop(
        directory, kind=arguments.store, kills=arguments.kills, seed=seed, command=command
    )


def _command(argv: list[str] | None, seed: int) -> str:
    words = list(sys.argv[1:] if argv is None else argv)
    if "--seed" not in words:
        words += ["--seed", str(seed)]
    return "python -m woodpecker.testing.faults " + shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="woodpecker.testing.faults", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, help="draws all that the orchestrator decides")
    common.add_argument("--directory", help="parent of the run's directory (default: temporary)")
    common.add_argument("--keep", action="store_true", help="keep data and histories")
    runs = parser.add_subparsers(dest="run", required=True)
    kill = runs.add_parser("kill", parents=[common], help="kill writers at any moment")
    kill.add_argument("--store", choices=("file", "object"), default="file")
    kill.add_argument("--kills", type=int, default=500)
    return parser


if __name__ == "__main__":
    sys.exit(main())
