"""Flags for prices, the same wherever money is counted."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

PutPrice: TypeAlias = Annotated[float, typer.Option(min=0, help="dollars for a million PUTs")]
GetPrice: TypeAlias = Annotated[float, typer.Option(min=0, help="dollars for a million GETs")]
ListPrice: TypeAlias = Annotated[float, typer.Option(min=0, help="dollars for a million LISTs")]
