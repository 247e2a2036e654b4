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
from woodpecker.testing.faults.clean_exit import clean_exit
from woodpecker.testing.faults.fight import fight
from woodpecker.testing.faults.kill import kill_loop
from woodpecker.testing.faults.outage import outages
from woodpecker.testing.faults.paused import paused


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
    """The run that was asked for."""
    store, times = getattr(arguments, "store", ""), getattr(arguments, "times", 0)
    match arguments.run:
        case "kill":
            return await kill_loop(
                directory, kind=store, kills=arguments.kills, seed=seed, command=command
            )
        case "fight":
            seconds = arguments.seconds
            return await fight(directory, kind=store, seconds=seconds, seed=seed, command=command)
        case "paused":
            return await paused(directory, kind=store, times=times, seed=seed, command=command)
        case "outage":
            metadata = arguments.of
            return await outages(
                directory, metadata=metadata, times=times, seed=seed, command=command
            )
        case _:
            return await clean_exit(directory, kind=store, times=times, seed=seed, command=command)


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
    stored = argparse.ArgumentParser(add_help=False, parents=[common])
    stored.add_argument("--store", choices=("file", "directory", "object"), default="file")
    runs = parser.add_subparsers(dest="run", required=True)
    kill = runs.add_parser("kill", parents=[stored], help="kill writers at any moment")
    kill.add_argument("--kills", type=int, default=500)
    fighting = runs.add_parser("fight", parents=[stored], help="living writers fence each other")
    fighting.add_argument("--seconds", type=float, default=60)
    sleeping = runs.add_parser(
        "paused", parents=[stored], help="a writer sleeps and wakes too late"
    )
    sleeping.add_argument("--times", type=int, default=20)
    failing = runs.add_parser("outage", parents=[common], help="SeaweedFS or etcd fail under load")
    failing.add_argument("--of", choices=("store", "etcd"), default="store")
    failing.add_argument("--times", type=int, default=22)
    leaving = runs.add_parser("exit", parents=[stored], help="append and return: status 0")
    leaving.add_argument("--times", type=int, default=200)
    return parser


if __name__ == "__main__":
    sys.exit(main())
