"""``woodpecker plan``: what a log would take and cost in each mode."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated

import typer

from woodpecker.cli.output import bytes_text, print_json, print_table
from woodpecker.cli.prices import GetPrice, PutPrice
from woodpecker.cli.session import Session
from woodpecker.core.costs import RequestPrices
from woodpecker.core.options import BOUNDS
from woodpecker.core.planning import Forecast, Load, Prices, Speeds, forecast
from woodpecker.errors import InvalidRequest

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]i?)?B?(/s)?")
_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "ki": 1 << 10, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip
LINGERS_MS = (0, 50, 250, 1000)
PRICES, SPEEDS = Prices(), Speeds()


def parse_size(text: str, flag: str) -> float:
    """``20MB/s``, ``1KiB``, ``100``: bytes. Raises: InvalidRequest."""
    found = _SIZE.fullmatch(text)
    size = float(found[1]) * _UNITS.get(found[2], 1) if found else 0.0
    if not size:
        raise InvalidRequest(f"{flag} {text!r}: must be a size above 0, as in 20MB/s or 1KiB")
    return size


def plan(
    ctx: typer.Context,
    rate: Annotated[str, typer.Option(metavar="SIZE/s", help="payload a second: 20MB/s")],
    entry: Annotated[str, typer.Option(metavar="SIZE", help="of an entry")] = "1KiB",
    days: Annotated[float, typer.Option(min=0, help="that entries are kept")] = 7.0,
    linger_ms: Annotated[
        list[int] | None, typer.Option(metavar="N", help="mode object: wait for fuller blocks")
    ] = None,
    max_cost_per_month: Annotated[
        list[int] | None, typer.Option(metavar="N", help="mode object: dollars for PUTs of blocks")
    ] = None,
    put_price: PutPrice = PRICES.requests.puts,
    get_price: GetPrice = PRICES.requests.gets,
    storage_price: Annotated[
        float, typer.Option(min=0, help="dollars for a GiB and month in the bucket")
    ] = PRICES.storage,
    disk_price: Annotated[
        float, typer.Option(min=0, help="dollars for a GiB and month on a disk")
    ] = PRICES.disk,
    node_price: Annotated[
        float, typer.Option(min=0, help="dollars for a LogStore node and month")
    ] = PRICES.node,
    transfer_price: Annotated[
        float, typer.Option(min=0, help="dollars for a GiB between zones")
    ] = PRICES.transfer,
    put_ms: Annotated[float, typer.Option(min=0.01, help="a small PUT takes")] = SPEEDS.put_ms,
    put_p99_ms: Annotated[
        float, typer.Option(min=0.01, help="one PUT in a hundred takes")
    ] = SPEEDS.put_p99_ms,
    sync_ms: Annotated[float, typer.Option(min=0.001, help="a disk syncs in")] = SPEEDS.sync_ms,
    rtt_ms: Annotated[float, typer.Option(min=0, help="to a node and back")] = SPEEDS.rtt_ms,
) -> None:
    """Expected latency and monthly cost of a log in each mode. Asks no store; arithmetic only."""
    _check("linger_ms", linger_ms)
    _check("max_cost_per_month", max_cost_per_month)
    found = forecast(
        Load(
            bytes_s=parse_size(rate, "--rate"), entry_bytes=parse_size(entry, "--entry"), days=days
        ),
        linger_ms or (() if max_cost_per_month else LINGERS_MS),
        max_cost_per_month or (),
        Prices(
            requests=RequestPrices(puts=put_price, gets=get_price),
            storage=storage_price,
            disk=disk_price,
            node=node_price,
            transfer=transfer_price,
        ),
        Speeds(put_ms=put_ms, put_p99_ms=put_p99_ms, sync_ms=sync_ms, rtt_ms=rtt_ms),
    )
    session: Session = ctx.obj
    if session.is_json:
        print_json([asdict(one) | {"total_usd": one.total_usd} for one in found])
    else:
        _print(found)


def _print(found: list[Forecast]) -> None:
    head = ("mode", "p50 ms", "p99 ms", "block", "PUT/s", "requests $", "storage $", "machines $")
    rows = [
        (
            one.mode, f"{one.p50_ms:,.1f}", f"{one.p99_ms:,.1f}", bytes_text(one.block_bytes),
            f"{one.puts_s:,.2f}", f"{one.requests_usd:,.0f}", f"{one.storage_usd:,.0f}",
            f"{one.machines_usd:,.0f}", f"{one.total_usd:,.0f}", one.note,
        )
        for one in found
    ]  # fmt: skip
    print_table((*head, "month $", ""), rows)


def _check(option: str, values: list[int] | None) -> None:
    bound = BOUNDS[option]
    for value in values or ():
        if not bound.low <= value <= bound.high:
            flag = f"--{option.replace('_', '-')}"
            raise InvalidRequest(f"{flag} {value}: must be within {bound.low} .. {bound.high}")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("plan")(plan)
