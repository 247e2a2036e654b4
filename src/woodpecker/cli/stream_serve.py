"""``woodpecker up``, ``coordinator serve``, ``node serve``: processes of the streaming service."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.session import Session
from woodpecker.cli.setting_flags import with_settings
from woodpecker.config import SETTINGS, Config
from woodpecker.errors import InvalidRequest

if TYPE_CHECKING:
    from woodpecker.app_streaming import ProcessSettings, Ready

COMMON = (
    "secret_file", "tls_ca", "tls_cert", "tls_key",
    "streaming.listen", "streaming.advertise", "streaming.http",
    "streaming.session_ttl_ms", "streaming.beat_ms",
)  # fmt: skip
STORE = ("store", "metadata", "buffer")
COORDINATOR_FLAGS = (*STORE, *COMMON, "streaming.pchannels", "streaming.mode")
NODE_FLAGS = (*STORE, *COMMON, "zone", "streaming.node", "streaming.tail_bytes")
UP_FLAGS = (*STORE, "secret_file", "tls_ca", "tls_cert", "tls_key", "streaming.http")
UP_NODE = "standalone"
UP_LOST = (
    "another `woodpecker up` took this store over and serves it; one of them is enough, for more "
    "processes on one store see `woodpecker node serve`"
)

AsJson = Annotated[bool, typer.Option("--json", help="the ready line as JSON")]


def add_to(app: typer.Typer, node: typer.Typer) -> None:
    """Register the commands of this file; ``node``: the group that has those of nodes."""
    app.command("up")(with_settings(UP_FLAGS)(up))
    group = typer.Typer(no_args_is_help=True, help="Coordinators: they say which node has what.")
    group.callback()(_group)
    group.command("serve")(with_settings(COORDINATOR_FLAGS)(serve_coordinator))
    app.add_typer(group, name="coordinator")
    node.command("serve")(with_settings(NODE_FLAGS)(serve_node))


def _group() -> None:
    return


def up(
    ctx: typer.Context,
    flags: dict[str, Any],
    host: Annotated[
        str, typer.Option(metavar="HOST", help="where it listens for other shells and programs")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, metavar="P", help="its port; 0: any that is free")
    ] = 7300,
    as_json: AsJson = False,
) -> None:
    """Run a whole streaming service in one process, on a directory or bucket, until Ctrl-C or SIGTERM."""
    session: Session = ctx.obj
    session = session.with_flags({**flags, "streaming.node": UP_NODE})
    session = session.with_flags({"streaming.listen": f"{host}:{port}"})
    if session.config.source("streaming.advertise") != "default":
        raise InvalidRequest(
            "streaming.advertise is of nodes in a cluster: `up` needs --host alone"
        )
    settings = _settings(session.config, coordinator=True, node=True)
    settings = replace(settings, stream=None, when_lost=UP_LOST)
    _run(settings, as_json=as_json or session.is_json)


def serve_coordinator(ctx: typer.Context, flags: dict[str, Any], as_json: AsJson = False) -> None:
    """Run a coordinator until Ctrl-C or SIGTERM. Any number may run: one leads, the others stand by."""
    session: Session = ctx.obj
    session = session.with_flags(flags)
    settings = _settings(session.config, coordinator=True, node=False)
    _run(settings, as_json=as_json or session.is_json)


def serve_node(ctx: typer.Context, flags: dict[str, Any], as_json: AsJson = False) -> None:
    """Run a streaming node until Ctrl-C or SIGTERM: it serves the channels that it is given."""
    session: Session = ctx.obj
    session = session.with_flags(flags)
    settings = _settings(session.config, coordinator=False, node=True)
    _run(settings, as_json=as_json or session.is_json)


def _settings(config: Config, *, coordinator: bool, node: bool) -> ProcessSettings:
    """Raises: InvalidRequest: one is missing or wrong."""
    from woodpecker.app_streaming import make_settings

    known = {name for name in SETTINGS if not name.startswith(("log.", "logstore."))}
    values = {
        setting.name.replace("streaming.", ""): chosen.value
        for setting, chosen in config
        if setting.name in known
    }
    return make_settings(values, os.environ, coordinator=coordinator, node=node)


def _run(settings: ProcessSettings, *, as_json: bool) -> None:
    from woodpecker.app_streaming import Process
    from woodpecker.cli.serving import run_server

    run_server(partial(Process, settings), partial(_say_ready, as_json=as_json))


def _say_ready(facts: Ready, *, as_json: bool) -> None:
    from woodpecker.cli.output import print_json

    if as_json:
        print_json(facts)
    else:
        http = f", http://{facts.http}" if facts.http else ""
        what = f"{facts.role} {facts.node}".strip() if facts.role != "standalone" else "streaming"
        print(f"ready: {what} on {facts.address}{http}, store {facts.store}")
    sys.stdout.flush()
