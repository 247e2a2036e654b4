"""``woodpecker logstore serve``: one LogStore node."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.session import Session
from woodpecker.cli.setting_flags import with_settings
from woodpecker.config import SETTINGS, Config

if TYPE_CHECKING:
    from woodpecker.logstore.service import Ready, ServiceSettings

FLAGS = (
    "store", "metadata", "zone", "secret_file", "tls_ca", "tls_cert", "tls_key",
    *(name for name in SETTINGS if name.startswith("logstore.")),
)  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="LogStore nodes: they hold open segments.")
    group.callback()(_group)
    group.command("serve")(with_settings(FLAGS)(serve))
    app.add_typer(group, name="logstore")


def _group() -> None:
    return


def serve(
    ctx: typer.Context,
    flags: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="the ready line as JSON")] = False,
) -> None:
    """Run one node until Ctrl-C or SIGTERM. Prints one line when it is ready; the log is on stderr."""
    from woodpecker.cli.serving import run_server
    from woodpecker.logstore.service import Service

    session: Session = ctx.obj
    session = session.with_flags(flags)
    settings = _settings(session.config)
    say = partial(_say_ready, as_json=as_json or session.is_json)
    run_server(partial(Service, settings), say)


def _settings(config: Config) -> ServiceSettings:
    """Raises: InvalidRequest: one is missing or wrong."""
    from woodpecker.logstore.service import make_settings

    values = {setting.name.replace("logstore.", ""): chosen.value for setting, chosen in config}
    if config.source("store") == "default":  # a command's; a node's must be said
        values["store"] = None
    return make_settings(values, os.environ)


def _say_ready(facts: Ready, *, as_json: bool) -> None:
    from woodpecker.cli.output import print_json

    if as_json:
        print_json(facts)
    else:
        http = f", http://{facts.http}" if facts.http else ""
        print(f"ready: node {facts.node} on {facts.address}{http}")
    sys.stdout.flush()
