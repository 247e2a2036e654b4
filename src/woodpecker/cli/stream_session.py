"""A command's way to the streaming service: by the addresses given, else by what the store has on record."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from woodpecker.cli.session import Session, run

if TYPE_CHECKING:
    from woodpecker.runtime.runtime import Runtime
    from woodpecker.streaming.client.client import StreamingClient
    from woodpecker.streaming.ports import Dialer
    from woodpecker.streaming.requests import Channel, Request

T = TypeVar("T")
Reply = TypeVar("Reply")

ASK_TIMEOUT_S = 30.0
QUIET_MS = 1_500.0  # a wait that is shorter is not worth a word


def with_streaming(
    session: Session,
    work: Callable[[StreamingClient], Awaitable[T]],
    *,
    timeout_s: float | None = None,
) -> T:
    """Run ``work`` with an open client. Raises: Unavailable: no service is on record, or it does not answer."""

    async def main() -> T:
        from woodpecker.app_streaming import connect
        from woodpecker.streaming.client.client import TIMEOUT_S

        access = session.access
        async with connect(
            await _addresses(session),
            timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
            name="command",
            secret=access.secret or None,
            tls_ca=access.tls_ca,
            tls_cert=access.tls_cert,
            tls_key=access.tls_key,
        ) as client:
            return await _telling(work(client), lambda: client.trouble)

    return run(main())


def with_desk(session: Session, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Run ``work`` with the means to ask coordinator and owners."""

    async def main() -> T:
        return await work_with_desk(session, await _addresses(session), work)

    return run(main())


async def work_with_desk(
    session: Session, addresses: list[str], work: Callable[[Desk], Awaitable[T]]
) -> T:
    """The same within an event loop, the addresses being known."""
    from woodpecker.app_streaming import make_dialer
    from woodpecker.runtime.runtime import SystemRuntime

    runtime = SystemRuntime()
    dialer = make_dialer(runtime, session.access)
    try:
        desk = Desk(dialer, addresses, runtime)
        try:
            return await _telling(work(desk), lambda: desk.trouble)
        finally:
            await desk.close()
    finally:
        await dialer.close()


async def _telling(work: Awaitable[T], trouble: Callable[[], str]) -> T:
    """Do ``work``; what keeps it waiting is told on stderr, once until it is something else."""
    from woodpecker.runtime.runtime import SystemRuntime

    runtime = SystemRuntime()

    async def tell() -> None:
        said = ""
        while True:
            await runtime.sleep_ms(QUIET_MS)
            if (now := trouble()) and now != said:
                said = now
                print(f"woodpecker: still trying: {now}", file=sys.stderr)

    telling = runtime.spawn(tell(), "tell what keeps the command waiting")
    try:
        return await work
    finally:
        telling.cancel()


class Desk:
    """Asks what users of channels need not ask."""

    def __init__(self, dialer: Dialer, addresses: list[str], runtime: Runtime) -> None:
        from woodpecker.streaming.client.environment import Environment
        from woodpecker.streaming.client.routing import Routing
        from woodpecker.streaming.settings import DEFAULTS

        self._env = Environment(
            runtime=runtime,
            dialer=dialer,
            routing=Routing(runtime, dialer, addresses, "command"),
            settings=DEFAULTS,
            timeout_ms=int(ASK_TIMEOUT_S * 1000),
            name="command",
        )
        self._env.routing.start()

    @property
    def trouble(self) -> str:
        """As ``StreamingClient.trouble``."""
        return self._env.routing.trouble

    async def close(self) -> None:
        """Stop following the map."""
        await self._env.routing.close()

    async def ask(self, request: Request[Reply], what: str, *, changes: bool = False) -> Reply:
        """Ask the coordinator. Raises: as ``client.calls.ask_coordinator``."""
        from woodpecker.streaming.client.calls import ask_coordinator

        return await ask_coordinator(self._env, request, what, changes=changes)

    async def ask_owner(self, pchannel: str, request: Request[Reply], what: str) -> Reply:
        """Ask whoever owns a pchannel. Raises: as ``client.calls.ask_owner``."""
        from woodpecker.streaming.client.calls import ask_owner

        return await ask_owner(self._env, pchannel, request, what)

    async def channel(self, name: str) -> Channel:
        """What is known of a channel. Raises: NotFound."""
        from woodpecker.errors import NotFound
        from woodpecker.streaming.requests import Locate

        found = await self.ask(Locate(names=(name,)), f"find channel {name!r}")
        for info in found.channels:
            if info.name == name:
                return info
        raise NotFound(f"there is no channel {name!r}: see `woodpecker channel list`")


async def _addresses(session: Session) -> list[str]:
    given = session.config.text("streaming.address")
    from woodpecker.app_streaming import addresses_of, service_addresses

    if given is not None:
        return service_addresses(given)

    async with session.connect(reads=True) as store:
        return await addresses_of(store)
