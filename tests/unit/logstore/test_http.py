"""The HTTP server of a process: what it answers, and what cannot hurt it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from woodpecker.errors import InvalidRequest, Unavailable
from woodpecker.logstore import http
from woodpecker.logstore.http import HttpServer, Page, parse_address


def _look(page: Page):
    return lambda: lambda: page


def _boom() -> Page:
    raise ValueError("a bug")


PAGES = {
    "/fine": _look(Page(body=b"fine\n")),
    "/ill": _look(Page(status=503, body=b"ill\n", content_type="text/x")),
    "/bug": lambda: _boom,
}


@pytest.fixture
async def server():
    server = HttpServer(("127.0.0.1", 0), PAGES)
    yield server
    await server.close()


def _get(server: HttpServer, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    request = urllib.request.Request(f"http://{server.address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read(), reply.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["Content-Type"]


async def _ask(server: HttpServer, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    return await asyncio.to_thread(_get, server, path, method)


async def test_pages_by_path(server: HttpServer) -> None:
    assert await _ask(server, "/fine?x=1") == (200, b"fine\n", "text/plain; charset=utf-8")
    assert await _ask(server, "/ill") == (503, b"ill\n", "text/x")
    assert await _ask(server, "/fine", "HEAD") == (200, b"", "text/plain; charset=utf-8")
    status, body, _ = await _ask(server, "/none")
    assert (status, body) == (404, b"not found; there are: /bug /fine /ill\n")


async def test_it_only_reads(server: HttpServer) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert (await _ask(server, "/fine", method))[0] == 501


async def test_a_bug_in_a_page_is_its_answer_and_the_next_one_is_served(server, caplog) -> None:
    assert await _ask(server, "/bug") == (
        500,
        b"a bug: see the log\n",
        "text/plain; charset=utf-8",
    )
    assert "HTTP /bug failed" in caplog.text
    assert (await _ask(server, "/fine"))[0] == 200


async def test_a_loop_that_hangs_is_told(server: HttpServer, monkeypatch) -> None:
    monkeypatch.setattr(http, "LOOP_TIMEOUT_S", 0.05)
    answers: list[tuple[int, bytes, str]] = []
    asker = threading.Thread(target=lambda: answers.append(_get(server, "/fine")))
    asker.start()
    while not answers:  # the loop does nothing else meanwhile
        time.sleep(0.01)
    asker.join()
    assert answers[0][:2] == (503, b"the event loop does not answer\n")


async def test_too_many_connections_are_turned_away_and_leave_room_again(
    server: HttpServer,
) -> None:
    host, port = parse_address(server.address, "address")
    idle = [socket.create_connection((host, port)) for _ in range(http.CONNECTIONS)]
    extra = socket.create_connection((host, port))
    try:
        assert (await asyncio.to_thread(extra.recv, 100)).startswith(b"HTTP/1.1 503 Busy")
    finally:
        for connection in (*idle, extra):
            connection.close()
    while (await _ask(server, "/fine"))[0] != 200:  # as soon as a thread has seen the end
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\r\n\r\n",
        b"GET /fine\r\n\r\n",
        b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"",
    ],
)
async def test_nonsense_ends_the_connection_and_nothing_else(server: HttpServer, sent) -> None:
    host, port = parse_address(server.address, "address")
    with socket.create_connection((host, port)) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        await asyncio.to_thread(connection.recv, 100)
    assert (await _ask(server, "/fine"))[0] == 200


async def test_a_body_is_not_taken_for_a_second_request(server: HttpServer) -> None:
    host, port = parse_address(server.address, "address")
    body = b"GET /ill HTTP/1.1\r\nHost: x\r\n\r\n"
    head = f"GET /fine HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head + body)
        received = b""
        while part := await asyncio.to_thread(connection.recv, 4096):
            received += part
    assert received.count(b"HTTP/1.1 ") == 1


async def test_a_taken_port_is_an_error_with_advice(server: HttpServer) -> None:
    with pytest.raises(Unavailable, match="choose another --http"):
        HttpServer(parse_address(server.address, "address"), PAGES)


def test_addresses() -> None:
    assert parse_address("host:1", "--listen") == ("host", 1)
    assert parse_address("[::1]:80", "--listen") == ("::1", 80)
    for bad in ("host", "host:", ":1", "host:x", "host:70000", "host:-1", ""):
        with pytest.raises(InvalidRequest, match="use HOST:PORT"):
            parse_address(bad, "--listen")
