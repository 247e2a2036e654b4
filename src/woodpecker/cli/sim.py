"""``woodpecker sim``: the drivers of this version in a simulated world full of faults, seed by seed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from woodpecker.errors import InvalidRequest

app = typer.Typer(
    no_args_is_help=True,
    help="Run the log in a simulated world: virtual time, one process, faults drawn by seeds.",
)


@app.command("run")
def run(
    seeds: Annotated[int, typer.Option(min=1, help="how many")] = 100,
    first: Annotated[int, typer.Option(min=0, help="the first one")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    kind: Annotated[
        str,
        typer.Option(
            metavar="any|object|quorum|stream", help="of segments; stream: a streaming service"
        ),
    ] = "any",
    mutant: Annotated[str, typer.Option(metavar="NAME", help="plant this bug")] = "",
    trace: Annotated[
        bool, typer.Option("--trace", help="say what happens: virtual time, who, to whom, what")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="stop after this long")] = None,
) -> None:
    """Run seeds; exit code 1 if a rule of the log was broken, or a kind of fault never struck."""
    from woodpecker.testing.sim import campaign, plan
    from woodpecker.testing.sim.mutants import all_mutants, planted
    from woodpecker.testing.sim.run import run_seed

    if kind not in ("any", *plan.KINDS, plan.STREAM):
        raise InvalidRequest(f"--kind {kind!r}: any, {', '.join((*plan.KINDS, plan.STREAM))}")
    if mutant and mutant not in all_mutants():
        raise InvalidRequest(f"--mutant {mutant!r}: see 'woodpecker sim mutants'")
    campaign.prepare_process()
    if trace:
        with planted(mutant):
            results = [
                run_seed(seed, kind=kind, write=sys.stdout.write)
                for seed in range(first, first + seeds)
            ]
        for result in results:
            typer.echo(campaign.told(result, kind, mutant) if not result.is_good else "sound")
        raise typer.Exit(0 if all(result.is_good for result in results) else 1)
    done = campaign.run_many(
        first, seeds, kind=kind, jobs=jobs, mutant=mutant, seconds=seconds, say=typer.echo
    )
    typer.echo(str(done))
    raise typer.Exit(0 if done.is_good else 1)


@app.command("mutants")
def mutants() -> None:
    """List the bugs that can be planted."""
    from woodpecker.testing.sim.mutants import all_mutants

    for mutant in all_mutants().values():
        typer.echo(f"{mutant.name:32} {mutant.kind:7} without: {mutant.rule}")
