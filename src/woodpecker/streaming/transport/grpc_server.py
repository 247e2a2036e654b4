"""Services over gRPC, with reflection, TLS and a token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from woodpecker.access import Access
from woodpecker.errors import InvalidRequest
from woodpecker.runtime.runtime import Runtime
from woodpecker.streaming.core.refusals import Refused
from woodpecker.streaming.transport.grpc_access import HEADER, is_token, server_credentials
from woodpecker.streaming.transport.grpc_frames import (
    SERVICES,
    STREAMS,
    UNARY,
    StreamMethod,
    UnaryMethod,
)
from woodpecker.streaming.transport.grpc_settings import DEFAULTS, GrpcSettings
from woodpecker.streaming.transport.grpc_status import status_of
from woodpecker.streaming.transport.pipe import Pipe
from woodpecker.streaming.transport.services import Services, StreamKind, ended, failed

CAPACITY = 2  # frames that wait beside gRPC's own buffers
# gRPC tells of a cancelled call first as of one whose client has closed, then, at once, of the cancellation.
CLOSE_PAUSE_MS = 50
GOODBYE_S = 0.5  # for clients to be told; without it gRPC shouts at them


class GrpcServer:
    """One address. It is taken at once, and served from ``start`` on.

    Args:
        address: ``host:port``; port 0: any that is free.
    Raises: InvalidRequest: the address is in use or not ours; a TLS file holds something else.
    """

    def __init__(
        self,
        address: str,
        runtime: Runtime,
        access: Access | None = None,
        settings: GrpcSettings = DEFAULTS,
    ) -> None:
        access = access or Access()
        self._runtime = runtime
        self._services = Services()
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._ends: dict[int, _ServerEnd] = {}
        self._made = 0
        self._has_served = False
        guards = [_Guard(access.secret)] if access.secret else []
        self._server = grpc.aio.server(interceptors=guards, options=settings.server_options())
        self.address = f"{address.rpartition(':')[0]}:{self._bind(address, access)}"

    def _bind(self, address: str, access: Access) -> int:
        credentials = server_credentials(access)
        try:
            port = (
                self._server.add_insecure_port(address)
                if credentials is None
                else self._server.add_secure_port(address, credentials)
            )
        except RuntimeError as error:  # gRPC tells no more than where its log would be
            text = f"cannot listen on {address}: it is in use, or of another machine; give another port "
            raise InvalidRequest(text + "(--port or --listen), or end what runs there") from error
        return port

    async def start(self, services: Services) -> None:
        """Serve."""
        self._services = services
        self._server.add_generic_rpc_handlers([_Methods(self)])
        names = (*(service.full_name for service in SERVICES), reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        await self._server.start()
        self._has_served = True

    async def close(self) -> None:
        """Cut all streams and calls, wait for what served them, free the port."""
        if not self._has_served:
            await self._server.start()  # or gRPC would not let go of the port
        for end in list(self._ends.values()):
            end.cut()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._server.stop(GOODBYE_S)

    # --- for the methods ---

    async def answer(
        self, method: UnaryMethod, data: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Any:
        """Serve a unary call: to its end, whether the caller still wants to know it or not."""
        try:
            request = method.decode_request(method.parse_request(data))
            task = self._spawn(self._services.answer(request), f"answer {method.path}")
            task.add_done_callback(_seen)  # the caller may be gone by then
            return method.encode_reply(await asyncio.shield(task))
        except Refused as error:
            await _refuse(context, error)

    async def serve_stream(
        self, kind: StreamKind, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Serve a stream."""
        end = _ServerEnd(STREAMS[kind], kind)
        self._made += 1
        number = self._made
        self._ends[number] = end
        self._spawn(self._work(kind, end), f"serve {kind}")
        reading = self._spawn(end.read(context, self._runtime), f"read {kind}")
        try:
            await end.write(context)
        except Refused as error:
            await _refuse(context, error)
        finally:
            end.cut()
            reading.cancel()
            del self._ends[number]

    async def _work(self, kind: StreamKind, end: _ServerEnd) -> None:
        try:
            await self._services.stream(kind)(end)
            end.finish(None)
        except Refused as error:
            end.finish(error)
        except Exception as error:  # noqa: BLE001  the client is told, the log says why
            end.finish(failed(kind, error))

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        self._made += 1
        number = self._made
        task = self._tasks[number] = self._runtime.spawn(work, name)
        task.add_done_callback(lambda _: self._tasks.pop(number))
        return task


def _seen(task: asyncio.Task[Any]) -> None:
    """Nobody is to be shouted at because nobody waits for a refusal any more."""
    if not task.cancelled():
        task.exception()


class _ServerEnd:
    """The server's end of a stream; it lives on when the call is cancelled under it."""

    def __init__(self, method: StreamMethod, what: str) -> None:
        self._method = method
        self._out: Pipe[Any] = Pipe(CAPACITY, lambda: ended(what))
        self._into: Pipe[Any] = Pipe(CAPACITY, lambda: ended(what))

    async def send(self, frame: Any) -> None:
        await self._out.put(frame)

    async def receive(self) -> Any:
        return await self._into.take()

    async def close(self) -> None:
        self._out.close()

    def cut(self) -> None:
        self._out.cut()
        self._into.cut()

    def finish(self, reason: Refused | None) -> None:
        """The service is done: the client hears no more than what was sent, and why."""
        self._out.close(reason)
        self._into.refuse()

    async def read(self, context: grpc.aio.ServicerContext[Any, Any], runtime: Runtime) -> None:
        """Hand on what the client sends."""
        try:
            up = self._method.up
            while (data := await context.read()) is not grpc.aio.EOF:
                frame = up.decode(up.parse(data))
                if frame is not None:
                    await self._into.put(frame)
            await runtime.sleep_ms(CLOSE_PAUSE_MS)
            self._into.close()
        except Refused as error:
            self._out.close(error)
            self._into.cut()
        except grpc.aio.BaseError:
            self.cut()

    async def write(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Send what the service hands over, to its end. Raises: Refused: its end."""
        while (frame := await self._out.take()) is not None:
            await context.write(self._method.down.encode(frame))


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], error: Refused) -> None:
    code, details, trailers = status_of(error.refusal)
    await context.abort(code, details, trailers)


class _Methods(grpc.GenericRpcHandler):
    """Finds what serves a path."""

    def __init__(self, server: GrpcServer) -> None:
        self._found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for kind, stream in STREAMS.items():
            self._found[stream.path] = _stream_handler(server, kind, stream)
        for unary in UNARY.values():
            self._found[unary.path] = _unary_handler(server, unary)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._found.get(handler_call_details.method)


def _stream_handler(
    server: GrpcServer, kind: StreamKind, method: StreamMethod
) -> grpc.RpcMethodHandler[Any, Any]:
    async def behave(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await server.serve_stream(kind, context)

    make: Any = grpc.stream_stream_rpc_method_handler
    found: grpc.RpcMethodHandler[Any, Any] = make(
        behave,
        response_serializer=method.down.message.SerializeToString,
    )
    return found


def _unary_handler(server: GrpcServer, method: UnaryMethod) -> grpc.RpcMethodHandler[Any, Any]:
    async def behave(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await server.answer(method, data, context)

    make: Any = grpc.unary_unary_rpc_method_handler
    found: grpc.RpcMethodHandler[Any, Any] = make(
        behave,
        response_serializer=method.reply_message.SerializeToString,
    )
    return found


class _Guard(grpc.aio.ServerInterceptor):
    """Takes only calls that show the token."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        shown = [
            value for name, value in handler_call_details.invocation_metadata if name == HEADER
        ]
        if len(shown) == 1 and is_token(shown[0], self._secret):
            return await continuation(handler_call_details)
        handler = await continuation(handler_call_details)
        return None if handler is None else _denying(handler)


def _denying(handler: Any) -> Any:
    """The same kind of method, which refuses."""

    async def deny(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        text = (
            "the token of this cluster is missing or wrong: give the shared secret with "
            "WOODPECKER_SECRET_FILE (secret_file=, or --secret-file of what serves)"
        )
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

    make: Any = (
        grpc.stream_stream_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(deny)
