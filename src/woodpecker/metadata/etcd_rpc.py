"""Calls to an etcd cluster: endpoints, TLS, login, failover. No request that writes is sent twice.

A request goes out only on a connection that stands, so what was certainly not sent is known, and
the next endpoint is tried; once a write was sent, a lost reply is ``OutcomeUnknown``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from woodpecker.errors import Closed, InvalidRequest, OutcomeUnknown, Unavailable
from woodpecker.metadata import etcd_pb2 as pb
from woodpecker.metadata.etcd_errors import is_stale_token, map_error
from woodpecker.runtime.runtime import Runtime

CONNECT_POLL_MS = 5
ROUND_PAUSE_MS = 50
WHY_TIMEOUT_MS = 200
OPTIONS = (
    ("grpc.enable_retries", 0),  # the caller decides by effect
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # back-off belongs to this store alone
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # also bounds one connection attempt
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # etcd refuses less than 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", -1),  # a page of large records
    ("grpc.max_send_message_length", -1),
)


class Message(Protocol):
    """A generated protobuf message."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802


Reply = TypeVar("Reply", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[Reply]):
    """One RPC of etcd. ``repeatable``: sending it twice does no harm."""

    path: str
    decode: Callable[[bytes], Reply]
    repeatable: bool
    stream: bool = False


RANGE = Method(path="/etcdserverpb.KV/Range", decode=pb.RangeResponse.FromString, repeatable=True)
TXN = Method(path="/etcdserverpb.KV/Txn", decode=pb.TxnResponse.FromString, repeatable=False)
GRANT = Method(
    path="/etcdserverpb.Lease/LeaseGrant",
    decode=pb.LeaseGrantResponse.FromString,
    repeatable=True,  # a grant whose reply is lost runs out unused
)
REVOKE = Method(
    path="/etcdserverpb.Lease/LeaseRevoke",
    decode=pb.LeaseRevokeResponse.FromString,
    repeatable=True,
)
KEEP_ALIVE = Method(
    path="/etcdserverpb.Lease/LeaseKeepAlive",
    decode=pb.LeaseKeepAliveResponse.FromString,
    repeatable=True,
    stream=True,
)
WATCH = Method(
    path="/etcdserverpb.Watch/Watch",
    decode=pb.WatchResponse.FromString,
    repeatable=True,
    stream=True,
)
AUTHENTICATE = Method(
    path="/etcdserverpb.Auth/Authenticate",
    decode=pb.AuthenticateResponse.FromString,
    repeatable=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdTls:
    """TLS files in PEM form. Without ``ca_file`` the system's authorities count."""

    ca_file: str | Path | None = None
    certificate_file: str | Path | None = None
    key_file: str | Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises: InvalidRequest: one cannot be read."""
        return grpc.ssl_channel_credentials(
            _read(self.ca_file), _read(self.key_file), _read(self.certificate_file)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdLogin:
    """User and password, for a cluster with authentication."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"EtcdLogin(user={self.user!r})"


class EtcdConnection:
    """Channels to all endpoints; one is used until it fails.

    Args:
        endpoints: ``host`` or ``host:port``, IPv6 in brackets.
        timeout_ms: for one call with all its tries.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        runtime: Runtime,
        *,
        tls: EtcdTls | None,
        login: EtcdLogin | None,
        timeout_ms: int,
    ) -> None:
        if not endpoints:
            raise InvalidRequest("etcd needs at least one endpoint: etcd://host:2379/prefix")
        self.endpoints = tuple(_with_port(endpoint) for endpoint in endpoints)
        self._runtime = runtime
        self._credentials = tls.credentials() if tls else None
        self._login = login
        self._token: str | None = None
        self._timeout_ms = timeout_ms
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._current = 0
        self._closed = False

    async def call(self, method: Method[Reply], request: Message) -> Reply:
        """Send ``request`` and return the reply.

        Raises:
            Unavailable: certainly not applied, or ``method`` may be repeated.
            OutcomeUnknown: sent, no definite answer. InvalidRequest: refused for good.
        """
        until_ms = self._runtime.monotonic_ms() + self._timeout_ms
        while True:
            endpoint, channel = await self._connect(until_ms)
            try:
                return await self._send(channel, method, request, self._share(method, until_ms))
            except grpc.aio.AioRpcError as error:
                self._turn(endpoint)
                failure = map_error(error, endpoint, repeatable=method.repeatable)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._closed or (task is not None and task.cancelling()):
                    raise
                raise self._cut_by_close(method) from None
            if not isinstance(failure, Unavailable):
                raise failure
            if self._left_ms(until_ms) <= ROUND_PAUSE_MS:
                raise failure
            await self._runtime.sleep_ms(ROUND_PAUSE_MS)

    async def stream(
        self, method: Method[Reply], requests: AsyncIterator[Message]
    ) -> AsyncGenerator[Reply, None]:
        """Open a stream and yield what arrives. Raises: Unavailable, InvalidRequest: it has ended."""
        until_ms = self._runtime.monotonic_ms() + self._timeout_ms
        endpoint, channel = await self._connect(until_ms)
        try:
            call = self._open_stream(channel, method, requests, await self._metadata(channel))
            try:
                async for reply in call:
                    yield reply
            finally:
                call.cancel()
        except grpc.aio.AioRpcError as error:
            self._turn(endpoint)
            if is_stale_token(error):
                self._token = None
            raise map_error(error, endpoint, repeatable=True) from error

    async def close(self) -> None:
        """Close all channels; calls under way fail."""
        self._closed = True
        for channel in self._channels.values():
            await channel.close()

    async def _connect(self, until_ms: float) -> tuple[str, grpc.aio.Channel]:
        """The current endpoint's channel, or the next one's that can be connected in time."""
        while True:
            for _ in self.endpoints:
                endpoint = self.endpoints[self._current]
                channel = self._channel(endpoint)
                if await self._is_ready(channel, until_ms):
                    return endpoint, channel
                self._turn(endpoint)
            if self._left_ms(until_ms) <= ROUND_PAUSE_MS:
                raise await self._unreachable()
            await self._runtime.sleep_ms(ROUND_PAUSE_MS)

    async def _is_ready(self, channel: grpc.aio.Channel, until_ms: float) -> bool:
        give_up_ms = until_ms - self._left_ms(until_ms) * (1 - 1 / len(self.endpoints))
        while True:
            if self._closed:
                raise Closed("the metadata store was closed; open a new one")
            state = channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                return True
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return False
            if self._runtime.monotonic_ms() >= give_up_ms:
                return False
            await self._runtime.sleep_ms(CONNECT_POLL_MS)

    async def _unreachable(self) -> Unavailable:
        """The error when no endpoint could be connected; a read that fails at once tells why."""
        endpoint = self.endpoints[self._current]
        try:
            await self._unary(
                self._channel(endpoint), RANGE, pb.RangeRequest(key=b"\0"), (), WHY_TIMEOUT_MS
            )
            why = "it answers again"
        except grpc.aio.AioRpcError as error:
            why = error.details() or error.code().name
        return Unavailable(
            f"no etcd endpoint could be reached within {self._timeout_ms} ms "
            f"({', '.join(self.endpoints)}); nothing was sent; the last one said: {why}"
        )

    async def _send(
        self, channel: grpc.aio.Channel, method: Method[Reply], request: Message, timeout_ms: float
    ) -> Reply:
        token = self._token
        try:
            return await self._unary(
                channel, method, request, await self._metadata(channel), timeout_ms
            )
        except grpc.aio.AioRpcError as error:
            if self._login is None or not is_stale_token(error):
                raise
        if self._token == token:  # nobody has logged in meanwhile
            self._token = None
        metadata = await self._metadata(channel)
        return await self._unary(channel, method, request, metadata, timeout_ms)

    async def _unary(
        self,
        channel: grpc.aio.Channel,
        method: Method[Reply],
        request: Message,
        metadata: Sequence[tuple[str, str]],
        timeout_ms: float,
    ) -> Reply:
        timeout_s = max(timeout_ms, 1) / 1000
        if not method.stream:
            unary: Any = channel.unary_unary(
                method.path, request_serializer=_encode, response_deserializer=method.decode
            )
            only: Reply = await unary(request, metadata=metadata, timeout=timeout_s)
            return only
        call = self._open_stream(channel, method, [request], metadata, timeout_s)
        try:
            async for reply in call:
                answer: Reply = reply
                return answer
        finally:
            call.cancel()
        raise Unavailable(f"etcd ended {method.path} without an answer; try again")

    def _open_stream(
        self,
        channel: grpc.aio.Channel,
        method: Method[Reply],
        requests: Any,  # noqa: ANN401  grpc takes iterables of both kinds
        metadata: Sequence[tuple[str, str]],
        timeout_s: float | None = None,
    ) -> Any:  # noqa: ANN401  grpc's call classes are not typed alike
        streaming: Any = channel.stream_stream(
            method.path, request_serializer=_encode, response_deserializer=method.decode
        )
        return streaming(requests, metadata=metadata, timeout=timeout_s)

    async def _metadata(self, channel: grpc.aio.Channel) -> Sequence[tuple[str, str]]:
        require_leader = ("hasleader", "true")  # a cut-off member then refuses at once
        if self._login is None:
            return (require_leader,)
        if self._token is None:
            request = pb.AuthenticateRequest(name=self._login.user, password=self._login.password)
            reply = await self._unary(
                channel, AUTHENTICATE, request, (require_leader,), self._timeout_ms
            )
            self._token = reply.token
        return (require_leader, ("token", self._token))

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        if self._closed:
            raise Closed("the metadata store was closed; open a new one")
        if endpoint not in self._channels:
            self._channels[endpoint] = (
                grpc.aio.secure_channel(endpoint, self._credentials, options=OPTIONS)
                if self._credentials
                else grpc.aio.insecure_channel(endpoint, options=OPTIONS)
            )
        return self._channels[endpoint]

    def _turn(self, endpoint: str) -> None:
        """Go on to the next endpoint, unless another call has done so."""
        if self.endpoints[self._current] == endpoint:
            self._current = (self._current + 1) % len(self.endpoints)

    def _share(self, method: Method[Reply], until_ms: float) -> float:
        """How long one try may take: one that can be repeated elsewhere leaves time for that."""
        left_ms = self._left_ms(until_ms)
        if method.repeatable and len(self.endpoints) > 1:
            return min(left_ms, self._timeout_ms / 2)
        return left_ms

    def _left_ms(self, until_ms: float) -> float:
        return until_ms - self._runtime.monotonic_ms()

    def _cut_by_close(self, method: Method[Reply]) -> Closed | OutcomeUnknown:
        if method.repeatable:
            return Closed("the metadata store was closed during the call; open a new one")
        return OutcomeUnknown("the metadata store was closed during the write; read the key again")


def _with_port(endpoint: str) -> str:
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        return f"{endpoint}:2379"
    if not host or not port.isdecimal() or "/" in endpoint:
        raise InvalidRequest(f"etcd endpoint {endpoint!r} is not host:port")
    return endpoint


def _read(file: str | Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"TLS file {file} cannot be read ({error})") from error


def _encode(message: Message) -> bytes:
    return message.SerializeToString()
