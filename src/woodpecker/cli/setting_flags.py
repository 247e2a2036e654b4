"""Settings as flags of one command, made from the one table (``config.py``)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from woodpecker.config import SETTINGS, Setting


def with_settings(names: Sequence[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag per setting; those given arrive as the dict ``flags``, by setting name."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "flags"]
        by_parameter = {name.rpartition(".")[2]: SETTINGS[name] for name in names}
        flags = [_flag(parameter, setting) for parameter, setting in by_parameter.items()]

        def wrapper(**values: object) -> None:
            given = {s.name: values.pop(parameter) for parameter, s in by_parameter.items()}
            command(**values, flags=given)

        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        wrapper.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
        return wrapper

    return decorate


def _flag(parameter: str, setting: Setting) -> inspect.Parameter:
    metavar = "N" if setting.high is not None else setting.bounds or "TEXT"
    extra = [setting.bounds if setting.high is not None else "", setting.variable]
    if setting.default is not None:
        extra.append(f"default: {setting.default}")
    return inspect.Parameter(
        parameter,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option(
                metavar=metavar, help=f"{setting.text} ({'; '.join(filter(None, extra))})"
            ),
        ],
    )
