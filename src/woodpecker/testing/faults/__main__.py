"""Command line of the runs with faults; exit code 0: every invariant held."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from woodpecker.testing.faults.arena import Report, say
from woodpecker.testing.faults.clean_exit import clean_exit
from woodpecker.testing.faults.cluster_kill import cluster_kill_loop
from woodpecker.testing.faults.fight import fight
from woodpecker.testing.faults.kill import kill_loop
from woodpecker.testing.faults.node_loss import as_json, node_loss
from woodpecker.testing.faults.nodes import STRIKES
from woodpecker.testing.faults.outage import outages
from woodpecker.testing.faults.partition import CLIENTS, hosts, partitions
from woodpecker.testing.faults.paused import paused
from woodpecker.testing.faults.places import MODES
from woodpecker.testing.faults.streaming import streaming
from woodpecker.testing.servers.network import Network, why_not

SKIPPED = 3


def main(argv: list[str] | None = None) -> int:
    """Parse, run, print."""
    arguments = _parser().parse_args(argv)
    with contextlib.ExitStack() as stack:
        if arguments.run == "partition":
            reason = why_not()
            if reason is not None:
                say(f"skipped: {reason}")
                return SKIPPED
            arguments.network = stack.enter_context(Network(hosts()))
            arguments.network.enter(CLIENTS)
        return _main(arguments, argv)


def _main(arguments: argparse.Namespace, argv: list[str] | None) -> int:
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    parent = arguments.directory
    directory = Path(tempfile.mkdtemp(prefix="woodpecker-", dir=parent))
    command = _command(argv, seed)
    say(f"seed {seed}, data in {directory}")
    report = asyncio.run(_run(arguments, directory, seed, command))
    say(str(report))
    if report.details:
        say(as_json(report))
    if report.is_good and not arguments.keep:
        shutil.rmtree(directory)
    else:
        say(f"histories and data: {directory}")
    return 0 if report.is_good else 1


async def _run(  # noqa: PLR0911  one for each run
    arguments: argparse.Namespace, directory: Path, seed: int, command: str
) -> Report:
    """The run that was asked for."""
    store, times = getattr(arguments, "store", ""), getattr(arguments, "times", 0)
    match arguments.run:
        case "kill" if store == "quorum":
            return await cluster_kill_loop(
                directory,
                kills=arguments.kills,
                seed=seed,
                command=command,
                nodes=arguments.nodes,
                only=arguments.only,
            )
        case "node-loss":
            return await node_loss(
                directory,
                seconds=arguments.seconds,
                rate=arguments.rate,
                seed=seed,
                command=command,
            )
        case "streaming":
            return await streaming(
                directory,
                strikes=arguments.strikes,
                channels=arguments.channels,
                loaded=min(arguments.loaded, arguments.channels),
                seed=seed,
                command=command,
            )
        case "partition":
            return await partitions(
                directory,
                arguments.network,
                minutes=arguments.minutes,
                seed=seed,
                command=command,
            )
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
    stored.add_argument("--store", choices=tuple(MODES), default="file")
    runs = parser.add_subparsers(dest="run", required=True)
    kill = runs.add_parser("kill", parents=[stored], help="kill writers, and nodes, at any moment")
    kill.add_argument("--kills", type=int, default=500)
    kill.add_argument("--nodes", type=int, default=3, help="of --store quorum")
    kill.add_argument(
        "--only", action="append", default=[], choices=[strike.name for strike in STRIKES],
        help="what may happen to nodes of --store quorum; default: everything",
    )  # fmt: skip
    loss = runs.add_parser("node-loss", parents=[common], help="figures of a load that loses nodes")
    loss.add_argument("--seconds", type=float, default=20, help="of each phase")
    loss.add_argument("--rate", type=float, default=200, help="appends of 1 KiB a second")
    parting = runs.add_parser(
        "partition", parents=[common], help="nodes on hosts of their own, a bad network; as root"
    )
    parting.add_argument("--minutes", type=float, default=10)
    fighting = runs.add_parser("fight", parents=[stored], help="living writers fence each other")
    fighting.add_argument("--seconds", type=float, default=60)
    sleeping = runs.add_parser(
        "paused", parents=[stored], help="a writer sleeps and wakes too late"
    )
    sleeping.add_argument("--times", type=int, default=20)
    failing = runs.add_parser("outage", parents=[common], help="SeaweedFS or etcd fail under load")
    failing.add_argument("--of", choices=("store", "etcd"), default="store")
    failing.add_argument("--times", type=int, default=22)
    service = runs.add_parser(
        "streaming", parents=[common], help="a streaming service loses everything once"
    )
    service.add_argument("--strikes", type=int, default=40)
    service.add_argument("--channels", type=int, default=1000)
    service.add_argument("--loaded", type=int, default=6, help="of these channels are used")
    leaving = runs.add_parser("exit", parents=[stored], help="append and return: status 0")
    leaving.add_argument("--times", type=int, default=200)
    return parser


if __name__ == "__main__":
    sys.exit(main())
