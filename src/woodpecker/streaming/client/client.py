"""The way in: channels of one streaming service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from woodpecker.core.ids import check_name
from woodpecker.errors import Closed, InvalidRequest, NotFound
from woodpecker.runtime.runtime import Runtime, SystemRuntime
from woodpecker.streaming.client.calls import ask_coordinator
from woodpecker.streaming.client.channel import Channel, Lanes
from woodpecker.streaming.client.environment import Environment
from woodpecker.streaming.client.messages import Payload, as_bytes
from woodpecker.streaming.client.routing import Routing
from woodpecker.streaming.core.values import Position
from woodpecker.streaming.ports import Dialer
from woodpecker.streaming.requests import (
    Broadcast,
    CreateChannel,
    DeleteChannel,
    ListChannels,
    Locate,
)
from woodpecker.streaming.settings import DEFAULTS, StreamSettings

TIMEOUT_S = 60.0
CREATE_AT_ONCE = 128


class StreamingClient:
    """A connection to a streaming service; use it in ``async with``, or ``open`` and ``close`` it.

    It finds out by itself who serves what, and follows when that changes.
    Concurrency: any number of tasks of one event loop; not thread-safe (see ``woodpecker.blocking``).
    """

    def __init__(
        self,
        dialer: Dialer,
        addresses: Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        name: str = "",
        runtime: Runtime | None = None,
        settings: StreamSettings = DEFAULTS,
    ) -> None:
        """Made by ``woodpecker.streaming.connect`` and by ``woodpecker up``.

        Args:
            dialer: reaches addresses; closed with the client.
            addresses: of coordinators or nodes; one that answers is enough.
            timeout_s: for how long a call or a message is tried before it fails.
            name: shown to those it talks to.
        """
        if not addresses:
            raise InvalidRequest("give the address of at least one coordinator or node")
        if timeout_s <= 0:
            raise InvalidRequest(f"timeout_s {timeout_s:g} is not above 0")
        runtime = runtime or SystemRuntime()
        self._env = Environment(
            runtime=runtime,
            dialer=dialer,
            routing=Routing(runtime, dialer, addresses, name),
            settings=settings,
            timeout_ms=int(timeout_s * 1000),
            name=name,
        )
        self._lanes: Lanes | None = None
        self._is_closed = False

    async def open(self) -> Self:
        """Begin to follow who serves what; called by ``async with``. It waits for nobody. Idempotent."""
        if self._is_closed:
            raise Closed("this client is closed; connect again")
        if self._lanes is None:
            self._lanes = Lanes(self._env)
            self._env.routing.start()
        return self

    async def close(self) -> None:
        """Let go of everything. Idempotent. Close producers and subscriptions before."""
        lanes, self._lanes = self._lanes, None
        is_first, self._is_closed = not self._is_closed, True
        if lanes is not None:
            await lanes.close()
            await self._env.routing.close()
        if is_first:
            await self._env.dialer.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def trouble(self) -> str:
        """What keeps a call from its answer, in words, while it is tried again; "": nothing now."""
        return self._env.routing.trouble

    # --- channels ---

    async def create_channel(
        self,
        name: str,
        *,
        exist_ok: bool = False,
        retention_age_s: int | None = None,
        attributes: dict[str, str] | None = None,
    ) -> Channel:
        """Create a channel.

        Args:
            exist_ok: open it instead if it is there; its options stay as they are.
            retention_age_s: how long messages are kept at least; None: for ever.
            attributes: free-form text kept with the channel.
        Raises: AlreadyExists; InvalidRequest: bad name or option; Unavailable, OutcomeUnknown.
        """
        request = CreateChannel(
            name=check_name(name, "channel"),
            request=self._env.runtime.token(),
            exist_ok=exist_ok,
            retention_age_s=_age(retention_age_s),
            attributes=_texts(attributes or {}),
        )
        lanes = self._check()
        info = await ask_coordinator(self._env, request, f"create channel {name!r}", changes=True)
        return Channel(self._env, lanes, info)

    async def create_channels(
        self,
        names: Iterable[str],
        *,
        exist_ok: bool = False,
        retention_age_s: int | None = None,
        attributes: dict[str, str] | None = None,
    ) -> list[Channel]:
        """Create many channels, as ``create_channel`` does one; much faster than one after the other.

        Returns: a handle for each name, in order.
        Raises: as ``create_channel``, for the first that fails. Names are looked at before; else those before
            it, and some after it, are there: repeat it with ``exist_ok``.
        """
        if isinstance(names, str):
            raise InvalidRequest(f"names={names!r}: give several names, or call create_channel")
        wanted = [check_name(name, "channel") for name in names]
        made: dict[int, Channel] = {}
        waiting = iter(enumerate(wanted))

        async def work() -> None:
            for number, name in waiting:
                made[number] = await self.create_channel(
                    name, exist_ok=exist_ok, retention_age_s=retention_age_s, attributes=attributes
                )

        spawn = self._env.runtime.spawn
        tasks = [spawn(work(), "create channels") for _ in wanted[:CREATE_AT_ONCE]]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [made[number] for number in range(len(wanted))]

    async def open_channel(self, name: str) -> Channel:
        """Open an existing channel. Raises: NotFound, Unavailable."""
        lanes = self._check()
        check_name(name, "channel")
        found = await ask_coordinator(self._env, Locate(names=(name,)), f"open channel {name!r}")
        for info in found.channels:
            if info.name == name:
                return Channel(self._env, lanes, info)
        raise NotFound(f"there is no channel {name!r}; create_channel() makes one")

    async def list_channels(self, prefix: str = "") -> list[str]:
        """Names of the channels beginning with ``prefix``, sorted. Raises: Unavailable."""
        self._check()
        names: list[str] = []
        while True:
            request = ListChannels(prefix=prefix, start_after=names[-1] if names else "")
            page = await ask_coordinator(self._env, request, "list channels")
            names += [info.name for info in page.channels]
            if not page.more:
                return names

    async def delete_channel(self, name: str, *, missing_ok: bool = False) -> None:
        """Delete a channel with all of its messages, transactions and cursors.

        Raises: NotFound: it never was there, unless ``missing_ok``. Unavailable, OutcomeUnknown.
        """
        self._check()
        request = DeleteChannel(name=name, request=self._env.runtime.token())
        try:
            await ask_coordinator(self._env, request, f"delete channel {name!r}", changes=True)
        except NotFound:
            if not missing_ok:
                raise

    async def broadcast(
        self,
        channels: Iterable[str],
        payload: Payload,
        *,
        key: str,
        type: str = "",
        resources: Iterable[str] = (),
    ) -> dict[str, Position]:
        """Send one message to several channels: to all of them, once each, or to none.

        Args:
            channels: at most 1,000 names.
            payload: at most 64 KiB.
            key: names the broadcast: with the same key it is done once, and answered again.
            resources: two broadcasts that share one of these have one order on all channels.
        Returns: a position for each channel; one deleted meanwhile has none.
        Raises: NotFound, InvalidRequest: refused whole. Unavailable, OutcomeUnknown: repeat it with that key.
        """
        self._check()
        request = Broadcast(
            key=key,
            targets=tuple(channels),
            payload=as_bytes(payload, "a payload"),
            type=type,
            resources=tuple(resources),
        )
        done = await ask_coordinator(self._env, request, f"broadcast {key!r}", changes=True)
        return dict(done.positions)

    def _check(self) -> Lanes:
        if self._lanes is None:
            raise Closed("this client is not open: use it in 'async with'")
        return self._lanes


def _age(seconds: object) -> int | None:
    """Raises: InvalidRequest."""
    if seconds is None:
        return None
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds < 1 << 40:
        raise InvalidRequest(f"retention_age_s={seconds!r}: whole seconds, at least 1, or None")
    return seconds


def _texts(attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Raises: InvalidRequest."""
    try:
        for name, text in attributes.items():
            (name + text).encode()
    except (TypeError, AttributeError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"attributes={attributes!r}: a mapping of text to text") from error
    return tuple(attributes.items())
