"""``Dialer`` over gRPC: one channel per address, made when it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

from woodpecker.access import Access
from woodpecker.core.backoff import delay_ms
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming import frames
from woodpecker.streaming.core.refusals import Class, Refusal, Refused
from woodpecker.streaming.ports import Stream
from woodpecker.streaming.requests import Request
from woodpecker.streaming.transport.grpc_access import (
    HEADER,
    SCHEME,
    client_credentials,
    token_of,
)
from woodpecker.streaming.transport.grpc_frames import STREAMS, UNARY, StreamMethod
from woodpecker.streaming.transport.grpc_settings import DEFAULTS, GrpcSettings
from woodpecker.streaming.transport.grpc_status import cause_of, refusal_of
from woodpecker.streaming.transport.pipe import Pipe
from woodpecker.streaming.transport.services import StreamKind, ended

CAPACITY = 2  # frames that wait beside gRPC's own buffers
NO_METHOD = (
    "/woodpecker.streaming/None"  # nobody serves it: no harm is done if such a call gets through
)
PROBE_TIMEOUT_S = 1.0
# What a server answers that does not know the call, or the caller; all else is said by who is before it.
ANSWERS = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)

Reply = TypeVar("Reply")


class GrpcDialer:
    """``Dialer``. Raises: InvalidRequest: a TLS file holds something else."""

    def __init__(
        self, runtime: Runtime, access: Access | None = None, settings: GrpcSettings = DEFAULTS
    ) -> None:
        access = access or Access()
        self.runtime = runtime
        self._options = settings.client_options()
        self._credentials = client_credentials(access)
        self.metadata = ((HEADER, SCHEME + token_of(access.secret)),) if access.secret else ()
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._streams: dict[int, GrpcStream] = {}
        self._made = 0
        self.is_closed = False

    def endpoint(self, address: str) -> GrpcEndpoint:
        return GrpcEndpoint(self, address)

    async def close(self) -> None:
        self.is_closed = True
        for stream in list(self._streams.values()):
            stream.cut()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()

    # --- for endpoints and streams ---

    def channel(self, address: str) -> grpc.aio.Channel:
        """The one to ``address``. Raises: Refused(UNAVAILABLE): this dialer is closed."""
        if self.is_closed:
            text = f"{address}: this client is closed; nothing was sent"
            raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text))
        if address not in self._channels:
            self._channels[address] = (
                grpc.aio.insecure_channel(address, options=self._options)
                if self._credentials is None
                else grpc.aio.secure_channel(address, self._credentials, options=self._options)
            )
        return self._channels[address]

    def run(
        self,
        stream: GrpcStream,
        write: Coroutine[Any, Any, None],
        read: Coroutine[Any, Any, None],
    ) -> None:
        """Tasks of a stream, which is cut with the dialer. ``read`` ends with the call."""
        self._made += 1
        number = self._made
        self._streams[number] = stream

        async def main() -> None:
            writing = self.runtime.spawn(write, f"write {stream.what}")
            try:
                await read
            finally:
                writing.cancel()  # gRPC never ends a write of a call that is cut while it connects
                await asyncio.gather(writing, return_exceptions=True)
                del self._streams[number]

        task = self._tasks[number] = self.runtime.spawn(main(), f"carry {stream.what}")
        task.add_done_callback(lambda _: self._tasks.pop(number))


class GrpcEndpoint:
    """``Endpoint`` at an address."""

    def __init__(self, dialer: GrpcDialer, address: str) -> None:
        self.address = address
        self._dialer = dialer

    def produce(self) -> Stream[frames.ProduceUp, frames.ProduceDown]:
        return self._open(StreamKind.PRODUCE)

    def consume(self) -> Stream[frames.ConsumeUp, frames.ConsumeDown]:
        return self._open(StreamKind.CONSUME)

    def discover(self) -> Stream[frames.DiscoverUp, frames.DiscoverDown]:
        return self._open(StreamKind.DISCOVER)

    def status(self) -> Stream[frames.WatchStatus, frames.NodeStatus]:
        return self._open(StreamKind.STATUS)

    async def call(self, request: Request[Reply], *, timeout_ms: int = 10_000) -> Reply:
        method = UNARY[type(request)]
        what = f"{type(request).__name__} to {self.address}"
        channel = self._dialer.channel(self.address)
        start_ms = self._dialer.runtime.monotonic_ms()
        unary: Any = channel.unary_unary(
            method.path,
            request_serializer=method.request_message.SerializeToString,
            response_deserializer=method.reply_message.FromString,
        )
        try:
            await self._connect(channel, what, timeout_ms)
            left_ms = timeout_ms - (self._dialer.runtime.monotonic_ms() - start_ms)
            reply = await unary(
                method.encode_request(request),
                metadata=self._dialer.metadata,
                timeout=max(left_ms, 1) / 1000,
            )
        except grpc.aio.AioRpcError as error:
            raise Refused(refusal_of(error, what)) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._dialer.is_closed or (task is not None and task.cancelling()):
                raise
            raise ended(what) from None  # gRPC cancels who waits when a channel is closed
        return method.decode_reply(reply)  # type: ignore[no-any-return]  # the request's reply

    async def _connect(self, channel: grpc.aio.Channel, what: str, timeout_ms: int) -> None:
        """Until the channel stands, so that what surely was not sent is known to be so."""
        cause, runtime, attempt = "it is not answered", self._dialer.runtime, 0
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    state = channel.get_state(try_to_connect=True)
                    if state is grpc.ChannelConnectivity.READY:
                        return
                    if state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        await channel.wait_for_state_change(state)
                    elif found := await _why_not(channel):
                        cause = found
                        break
                    else:
                        attempt += 1
                        await runtime.sleep_ms(delay_ms(attempt, runtime.random()))
        except (TimeoutError, grpc.aio.UsageError):
            pass  # UsageError: the channel was closed meanwhile
        text = f"{what}: no connection: {cause}; nothing was sent"
        raise Refused(Refusal(kind=Class.UNAVAILABLE, message=text))

    def _open(self, kind: StreamKind) -> GrpcStream:
        return GrpcStream(self._dialer, STREAMS[kind], self.address, f"{kind} to {self.address}")


async def _why_not(channel: grpc.aio.Channel) -> str:
    """Why a channel does not stand, which gRPC tells only who calls; "": it should stand by now."""
    probe: Any = channel.unary_unary(NO_METHOD)
    try:
        await probe(b"", timeout=PROBE_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() not in ANSWERS:
            return cause_of(error)
    return ""


class GrpcStream:
    """The client's end of a stream.

    gRPC ends a whole call when one read or write of it is cancelled, so both are done by tasks of the
    stream, and who sends and receives waits at a pipe.
    """

    def __init__(self, dialer: GrpcDialer, method: StreamMethod, address: str, what: str) -> None:
        self.what = what
        self._method = method
        self._out: Pipe[Any] = Pipe(CAPACITY, lambda: ended(what))
        self._into: Pipe[Any] = Pipe(CAPACITY, lambda: ended(what))
        self._call: Any = None
        try:
            channel = dialer.channel(address)
        except Refused:
            self.cut()
            return
        open_stream: Any = channel.stream_stream(
            method.path,
            request_serializer=method.up.message.SerializeToString,
            response_deserializer=method.down.message.FromString,
        )
        self._call = open_stream(metadata=dialer.metadata)
        dialer.run(self, self._write(), self._read())

    async def send(self, frame: Any) -> None:
        await self._out.put(frame)

    async def receive(self) -> Any:
        return await self._into.take()

    async def close(self) -> None:
        self._out.close()

    def cut(self) -> None:
        self._out.cut()
        self._into.cut()
        if self._call is not None:
            self._call.cancel()

    async def _write(self) -> None:
        try:
            while (frame := await self._out.take()) is not None:
                await self._call.write(self._method.up.encode(frame))
            await self._call.done_writing()
        except (Refused, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader learns why
        except (TypeError, ValueError) as error:
            self._refuse(f"{self.what}: a frame cannot be sent as it is: {error}")
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise

    def _refuse(self, why: str) -> None:
        """Nobody waits for ever for the answer to what was never sent."""
        self._out.cut()
        self._into.close(Refused(Refusal(kind=Class.INVALID, message=why)))
        self._call.cancel()

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                frame = self._method.down.decode(message)
                if frame is not None:
                    await self._into.put(frame)
            self._into.close()
        except grpc.aio.AioRpcError as error:
            self._into.close(Refused(self._refusal(error)))
        except Refused as error:
            self._into.close(error)
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
            if not self._into.is_closed:  # else for a reason that is still to be told
                self._into.cut()
        finally:
            self._out.cut()
            self._call.cancel()

    def _refusal(self, error: grpc.aio.AioRpcError) -> Refusal:
        return refusal_of(error, self.what)
