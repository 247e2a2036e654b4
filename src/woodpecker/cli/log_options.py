"""Options of a log as flags, made from the one table of bounds (``core/options.py``)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from woodpecker.config import bounds_text, parse_option
from woodpecker.core.manifest import Options
from woodpecker.core.options import BOUNDS, Bound


def with_log_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` a flag per log option; those given arrive as the dict ``options``."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "options"]
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(metavar=_metavar(bound), help=_help(name, bound)),
            ],
        )
        for name, bound in BOUNDS.items()
    ]

    def wrapper(**values: object) -> None:
        given = {name: values.pop(name, None) for name in BOUNDS}
        options = {n: parse_option(n, value) for n, value in given.items() if value is not None}
        command(**values, options=options)

    wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
    wrapper.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
    return wrapper


def _metavar(bound: Bound) -> str:
    return "NAME,NAME" if bound.is_list else "|".join(bound.choices) or "N"


def _help(name: str, bound: Bound) -> str:
    default = getattr(Options(), name)
    shown = {"mode": "follows the store"}.get(name, "none" if default is None else str(default))
    limits = "" if bound.choices or bound.is_list else f"{bounds_text(bound)}; "
    return f"{bound.text} ({limits}default: {shown})"
