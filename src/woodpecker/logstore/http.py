"""Read-only HTTP of one process: metrics, health, status. In threads, so that it answers (503) even when
the event loop hangs: that is what health checks are for.

Bounded: a few connections at a time, each with a short time limit; GET and HEAD only; no body is read.
Made of the standard library's server, which speaks HTTP/1.1 well enough for probes and scrapers. It has no
login: keep it on loopback or a private network.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from woodpecker.errors import InvalidRequest, Unavailable

CONNECTIONS = 16
REQUEST_TIMEOUT_S = 5.0  # to send a request, and for the next one on the same connection
LOOP_TIMEOUT_S = 2.0  # the loop has to answer within this

_log = logging.getLogger("woodpecker.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


Look = Callable[[], Callable[[], Page]]
"""Looks at the process in its loop, quickly; what it returns makes the page of that in another thread."""


class HttpServer:
    """Serves ``pages`` by path on ``address`` from the running loop's process until ``close``."""

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Look]) -> None:
        try:
            self._server = _Server(address, pages, asyncio.get_running_loop())
        except (OSError, OverflowError) as error:
            raise Unavailable(
                f"HTTP cannot listen on {address[0]}:{address[1]}: {error}; choose another --http"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="woodpecker-http", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """``host:port`` it really listens on."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    async def close(self) -> None:
        """Stop listening; requests under way get their answers or are cut."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(
        self,
        address: tuple[str, int],
        pages: Mapping[str, Look],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.pages = pages
        self._loop = loop
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """One thread per connection, while there are threads to have."""
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(
                    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """In the connection's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A peer that goes away is no news."""
        _log.debug("HTTP connection from %s broke", client_address, exc_info=True)

    def look(self, look: Look) -> Callable[[], Page]:
        """Run ``look`` in the loop. Raises: TimeoutError: the loop does not answer."""

        async def call() -> Callable[[], Page]:
            return look()

        try:
            future = asyncio.run_coroutine_threadsafe(call(), self._loop)
        except RuntimeError as error:  # the loop is closed
            raise TimeoutError from error
        try:
            return future.result(LOOP_TIMEOUT_S)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            future.cancel()
            raise TimeoutError from None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S
    server_version = "woodpecker"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body nobody reads must not be taken for a request
        page = self._page(self.path.partition("?")[0])
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(page.body)

    def _page(self, path: str) -> Page:
        look = self.server.pages.get(path)
        if look is None:
            paths = " ".join(sorted(self.server.pages))
            return Page(status=404, body=f"not found; there are: {paths}\n".encode())
        try:
            return self.server.look(look)()
        except TimeoutError:
            return Page(status=503, body=b"the event loop does not answer\n")
        except Exception:  # noqa: BLE001  whatever it is, the next request is served
            _log.exception("HTTP %s failed", path)
            return Page(status=500, body=b"a bug: see the log\n")

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def parse_address(text: str, what: str) -> tuple[str, int]:
    """``host:port`` or ``[host]:port``. Raises: InvalidRequest."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdigit() and int(port) <= 65_535
    if not colon or not host or "/" in host or not is_port:
        raise InvalidRequest(f"{what} {text!r}: use HOST:PORT, for instance 127.0.0.1:7100")
    return host, int(port)
