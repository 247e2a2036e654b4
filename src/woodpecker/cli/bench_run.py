"""What all commands of ``woodpecker bench`` have in common: where to measure, what to do with the result."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.prices import GetPrice, ListPrice, PutPrice
from woodpecker.cli.session import Session
from woodpecker.core.costs import RequestPrices
from woodpecker.errors import InvalidRequest

if TYPE_CHECKING:
    from woodpecker.bench.report import Report, Row
    from woodpecker.bench.target import Target

    Work = Callable[[Target, Callable[[str], None]], Awaitable[Sequence[Row]]]

PRICES = RequestPrices()
STDOUT = Path("-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The flags of every measurement."""

    ctx: typer.Context
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="where; default: the store in use")
    ] = None
    server: Annotated[
        str | None,
        typer.Option(
            metavar="seaweed|localbucket", help="start this object store for the run instead"
        ),
    ] = None
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", min=2, metavar="N", help="start N LogStore nodes; kind quorum"),
    ] = None
    uvloop: Annotated[bool, typer.Option("--uvloop", help="run on uvloop (extra: fast)")] = False
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="write one JSON document, -: instead of text"),
    ] = None
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OLD.json", help="an earlier run, to compare with"),
    ] = None
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.svg", help="draw latency against load"),
    ] = None
    put_price: PutPrice = PRICES.puts
    get_price: GetPrice = PRICES.gets
    list_price: ListPrice = PRICES.lists

    @property
    def prices(self) -> RequestPrices:
        """Of requests to the bucket."""
        return RequestPrices(puts=self.put_price, gets=self.get_price, lists=self.list_price)


def measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the flags of ``Run``; they arrive as its parameter ``run``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "run"]
    common = list(inspect.signature(Run, eval_str=True).parameters.values())
    names = [p.name for p in common]

    def wrapper(**values: Any) -> None:  # noqa: ANN401  whatever typer has read
        run = Run(**{name: values.pop(name) for name in names})
        command(run=run, **values)

    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    wrapper.__signature__ = signature.replace(parameters=[*own, *common])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in [*own, *common]}
    return wrapper


def measure(run: Run, work: Work) -> Report:
    """Run, print, write, draw, compare. Returns what was found."""
    from woodpecker.bench.plot import latency_svg
    from woodpecker.bench.report import compare, from_json, lines, to_json

    old = None if run.compare is None else from_json(read_file(run.compare), where=str(run.compare))
    with asyncio.Runner(loop_factory=_loop_factory(run)) as runner:
        report = runner.run(_report(run, work))
    if run.json is not None and run.json != STDOUT:
        write_file(run.json, to_json(report) + "\n")
    print(to_json(report) if run.json == STDOUT else "\n".join(lines(report)))
    if run.plot is not None:
        write_file(run.plot, latency_svg(report))
    if old is not None:
        out = sys.stderr if run.json == STDOUT else sys.stdout
        print("\n".join(compare(old, report)), file=out)
    return report


def read_file(path: Path) -> str:
    """A report written before. Raises: InvalidRequest."""
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from error


def write_file(path: Path, text: str) -> None:
    """Raises: InvalidRequest."""
    try:
        path.write_text(text)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from error


def _loop_factory(run: Run) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not run.uvloop:
        return None
    try:
        import uvloop
    except ImportError as error:
        raise InvalidRequest(
            "--uvloop needs an extra: pip install 'woodpecker-wal[fast]'"
        ) from error
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _report(run: Run, work: Work) -> Report:
    from woodpecker.bench.machine import load_average
    from woodpecker.bench.report import Report
    from woodpecker.bench.requests import priced
    from woodpecker.bench.servers import Place, started
    from woodpecker.bench.target import open_target

    session: Session = run.ctx.obj
    session.writable()
    load = load_average()
    async with AsyncExitStack() as stack:
        if run.server is not None:
            place = await stack.enter_async_context(started(run.server))
        else:
            place = Place(run.store or session.store)
        scratch = open_target(place.store, place.storage, nodes=run.nodes or 0)
        target = await stack.enter_async_context(scratch)
        rows = priced(await work(target, say), run.prices)
    store = run.server or target.settings.public_url
    if run.nodes is not None:
        store = f"{run.nodes} nodes in {store}"
    command = str(run.ctx.info_name)
    return Report(command=command, store=store, rows=rows, load_average=load)


def say(what: str) -> None:
    """Progress, where a person looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)
