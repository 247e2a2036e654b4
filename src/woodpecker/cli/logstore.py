"""``woodpecker logstore serve``: one LogStore node."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from woodpecker.cli.exits import INTERNAL
from woodpecker.cli.session import Session
from woodpecker.cli.setting_flags import with_settings
from woodpecker.config import SETTINGS, Config

if TYPE_CHECKING:
    from woodpecker.logstore.service import Ready, ServiceSettings

FLAGS = (
    "store", "metadata", "zone", "secret_file", "tls_ca", "tls_cert", "tls_key",
    *(name for name in SETTINGS if name.startswith("logstore.")),
)  # fmt: skip
KILLED = 143
END_LIMIT_S = 30.0  # longer than all parts take to end, each bounded
GC_THRESHOLDS = (50_000, 20, 1_000)


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
    import asyncio

    session: Session = ctx.obj
    session = session.with_flags(flags)
    settings = _settings(session.config)
    log_to_stderr()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, as_json=as_json or session.is_json))


async def _serve(settings: ServiceSettings, *, as_json: bool) -> None:
    from woodpecker.cli.serving import done_before, stop_signals
    from woodpecker.logstore.service import Service

    service = Service(settings)

    async def start() -> None:
        _say_ready(await service.start(), as_json=as_json)
        gc.collect()
        gc.freeze()  # what is loaded now stays: collections need not look at it again
        gc.set_threshold(*GC_THRESHOLDS)

    with stop_signals(at_second=lambda: os._exit(KILLED)) as stop:
        try:
            if await done_before(stop, start()):
                await service.run(stop)
        finally:
            _end_for_sure()
            await service.close()


def _end_for_sure() -> None:
    """However a disk or a store hangs: the process ends."""
    timer = threading.Timer(END_LIMIT_S, os._exit, (INTERNAL,))
    timer.daemon = True
    timer.start()


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


def log_to_stderr() -> None:
    """A server's log: what it does, with times, instead of the bare warnings of a command."""
    root = logging.getLogger("woodpecker")
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)


def loop_factory() -> Any:  # noqa: ANN401  uvloop is not there for everybody
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
