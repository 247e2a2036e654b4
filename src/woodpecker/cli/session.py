"""One run of the command line: its settings, its client, its event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from woodpecker.cli.exits import Terminated
from woodpecker.config import Config, Value, load
from woodpecker.errors import InvalidRequest

if TYPE_CHECKING:
    from woodpecker.access import Access
    from woodpecker.client.client import Client
    from woodpecker.client.log import Log

T = TypeVar("T")


@dataclass(slots=True)
class Session:
    """Global flags; the settings are put together when a command first asks."""

    flags: dict[str, Value]
    _config: Config | None = None

    @property
    def config(self) -> Config:
        """The settings. Raises: InvalidRequest."""
        if self._config is None:
            self._config = load(self.flags)
        return self._config

    @property
    def is_json(self) -> bool:
        """Whether results are printed as JSON."""
        return self.config["output"] == "json"

    @property
    def store(self) -> str:
        """URL or directory of the store."""
        return str(self.config["store"])

    @property
    def access(self) -> Access:
        """How LogStore nodes are reached. Raises: InvalidRequest."""
        from woodpecker.access import make_access

        text = self.config.text
        return make_access(
            os.environ,
            secret_file=text("secret_file"),
            tls_ca=text("tls_ca"),
            tls_cert=text("tls_cert"),
            tls_key=text("tls_key"),
            zone=text("zone"),
        )

    def with_flags(self, flags: Mapping[str, Value]) -> Session:
        """The same with flags of one command; they win over the global ones."""
        given = {name: value for name, value in flags.items() if value is not None}
        return Session({**self.flags, **given})

    def connect(self, *, reads: bool = False, background: bool = False) -> Client:
        """A client by the settings, not open yet.

        Args:
            reads: the command only reads: a store that is not there is not made.
            background: seal and collect while it runs.
        """
        from woodpecker.app import connect

        return connect(
            self.store,
            metadata=self.config.text("metadata"),
            buffer=self.config.text("buffer"),
            read_only=reads or bool(self.config["read_only"]),
            background=background,
            secret_file=self.config.text("secret_file"),
            tls_ca=self.config.text("tls_ca"),
            tls_cert=self.config.text("tls_cert"),
            tls_key=self.config.text("tls_key"),
            zone=self.config.text("zone"),
        )

    def writable(self) -> None:
        """Raises: InvalidRequest: the settings say ``read_only``."""
        if self.config["read_only"]:
            raise InvalidRequest("read_only is set: this command would write")

    def with_client(
        self,
        work: Callable[[Client], Awaitable[T]],
        *,
        reads: bool = False,
        background: bool = False,
    ) -> T:
        """Run ``work`` with an open client."""

        async def main() -> T:
            if not reads:
                self.writable()
            async with self.connect(reads=reads, background=background) as client:
                return await work(client)

        return run(main())

    def with_log(
        self,
        name: str,
        work: Callable[[Log], Awaitable[T]],
        *,
        reads: bool = False,
        background: bool = False,
    ) -> T:
        """Run ``work`` with an existing log."""

        async def main(client: Client) -> T:
            return await work(await client.open_log(name))

        return self.with_client(main, reads=reads, background=background)


def run(work: Awaitable[T]) -> T:
    """Run to the end. Ctrl-C and SIGTERM cancel ``work``, which closes what it has open."""

    async def main() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        is_terminated = False

        def terminate() -> None:
            nonlocal is_terminated
            is_terminated = True
            task.cancel()

        with suppress(NotImplementedError, ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(signal.SIGTERM, terminate)
        try:
            return await work
        except asyncio.CancelledError:
            if is_terminated:
                raise Terminated from None
            raise

    return asyncio.run(main())
