"""Commands of the streaming service without a service: what they are told, and what they make of text."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from tests.unit.streaming.client.kit import serving

from woodpecker.app_streaming import service_addresses
from woodpecker.cli.cluster import transaction_state
from woodpecker.cli.consuming import end_of, start_of
from woodpecker.cli.feed import Feed
from woodpecker.cli.produce import Form
from woodpecker.cli.producing import Request, in_transaction
from woodpecker.cli.stream_records import as_object, key_in, line_of, message_from_json
from woodpecker.errors import InvalidRequest
from woodpecker.streaming.client.messages import Message, Tick
from woodpecker.streaming.core.values import Position
from woodpecker.testing.virtual import on_virtual_time

WITHOUT_GRPC = """
import sys
sys.modules["grpc"] = sys.modules["grpc_reflection"] = None
sys.argv = ["woodpecker", *sys.argv[1:]]
from woodpecker.cli.main import main
main()
"""


def woodpecker(*args: str, start=("-m", "woodpecker"), **env: str):
    return subprocess.run(
        [sys.executable, *start, *args],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60, env={"PATH": "/usr/bin", **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        ("up", "--port", "0"),
        ("node", "serve", "--node", "n", "--listen", "127.0.0.1:0"),
        ("coordinator", "serve", "--listen", "127.0.0.1:0"),
        ("channel", "list"),
    ],
)
def test_without_the_extra_its_name_is_told(tmp_path, args) -> None:
    env = {"WOODPECKER_STREAMING_ADDRESS": "127.0.0.1:1", "HOME": str(tmp_path)}
    done = woodpecker("--store", str(tmp_path / "s"), *args, start=("-c", WITHOUT_GRPC), **env)
    assert done.returncode == 3
    assert b"pip install 'woodpecker-wal[grpc]'" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("node", "serve"), "--node is missing"),
        (("node", "serve", "--node", "a/b"), "node"),
        (("coordinator", "serve", "--listen", "0.0.0.0:7300"), "--advertise"),
        (("coordinator", "serve", "--listen", "7300"), "HOST:PORT"),
        (("coordinator", "serve", "--beat-ms", "9000"), "a third of session_ttl_ms"),
        (("consume", "x", "--follow", "--to", "5"), "without --to"),
        (("channel", "create", "x", "--attribute", "y"), "KEY=TEXT"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, args, said) -> None:
    done = woodpecker("--store", str(tmp_path / "s"), *args, HOME=str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert said in done.stderr.decode()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("address", "args"),
    [
        ("nowhere", ("channel", "list")),
        ("http://127.0.0.1:7300", ("consume", "orders")),
        ("127.0.0.1:7300,", ("cluster", "status")),
    ],
)
def test_an_address_that_is_none_is_refused_at_once(tmp_path, address, args) -> None:
    done = woodpecker(*args, WOODPECKER_STREAMING_ADDRESS=address, HOME=str(tmp_path))
    assert done.returncode == 3
    assert b"use HOST:PORT" in done.stderr


def test_who_waits_for_nobody_learns_soon_why(tmp_path) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "woodpecker", "channel", "list"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={"HOME": str(tmp_path), "WOODPECKER_STREAMING_ADDRESS": "127.0.0.1:1"},
    )  # fmt: skip
    assert waiting.stderr is not None
    watchdog = threading.Timer(15, waiting.kill)
    watchdog.start()
    line = waiting.stderr.readline().decode()
    watchdog.cancel()
    waiting.terminate()
    waiting.communicate()
    assert "still trying" in line and "127.0.0.1:1" in line and "refused" in line


@pytest.mark.parametrize(
    "given",
    ["grpc://a:1,b:2", "grpc://a:1,grpc://b:2", " a:1, b:2", ["a:1", "b:2"], ["grpc://a:1", "grpc://b:2"]],
)  # fmt: skip
def test_how_addresses_may_be_written(given) -> None:
    assert service_addresses(given) == ["a:1", "b:2"]


def test_a_port_that_is_taken_is_all_that_is_said(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = woodpecker("--store", str(tmp_path / "s"), "up", "--port", port, HOME=str(tmp_path))
    assert done.returncode == 3
    assert b"--port" in done.stderr
    assert b"leaves" not in done.stderr, "it never took part"


def test_a_transaction_that_never_was_is_not_called_forgotten() -> None:
    assert transaction_state("forgotten") == "not known: it never was, or was forgotten"
    assert transaction_state("aborted") == "aborted"


def test_where_no_service_ever_ran_that_is_told(tmp_path) -> None:
    store = str(tmp_path / "s")
    assert woodpecker("--store", store, "log", "create", "x", HOME=str(tmp_path)).returncode == 0
    done = woodpecker("--store", store, "channel", "list", HOME=str(tmp_path))
    assert done.returncode == 13
    assert b"woodpecker up" in done.stderr


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("12", 12),
        ("12.3", Position(12, 3)),
        ("tick:17", Tick(17)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_places(text, place) -> None:
    for found in (start_of(text), end_of(text)):
        assert (type(found), found) == (type(place), place)


def test_places_with_a_name() -> None:
    assert [start_of(text) for text in ("earliest", "latest")] == ["earliest", "latest"]
    assert [end_of(text) for text in ("tail", None)] == ["tail", None]


@pytest.mark.parametrize("text", ["", "-5", "12.", "tick:x", "yesterday"])
def test_what_is_no_place(text) -> None:
    with pytest.raises(InvalidRequest, match=r"--from.*use earliest, latest, a seq"):
        start_of(text)
    with pytest.raises(InvalidRequest, match=r"--to.*use tail, a seq"):
        end_of(text)


def test_a_name_of_the_other_end_is_none() -> None:
    with pytest.raises(InvalidRequest, match="--from 'tail'"):
        start_of("tail")
    with pytest.raises(InvalidRequest, match="--to 'latest': use tail, a seq"):
        end_of("latest")


@pytest.mark.parametrize(
    "message",
    [
        Message(b"plain"),
        Message("ü".encode(), key="k", type="t", properties={"a": "b"}),
        Message(b"\xff", key=b"\xfe", properties={b"\xfd": b"x"}),
    ],
)
def test_a_line_of_json_and_back(message) -> None:
    message._seq, message._index = 3, 1
    line = line_of(message)
    assert json.loads(line)["seq"] == 3
    again = message_from_json(line, 1)
    assert (again.payload, again.key, again.type) == (message.payload, message.key, message.type)
    assert again.pairs == message.pairs


def test_an_ephemeral_message_has_no_place() -> None:
    message = Message(b"x")
    message.is_ephemeral = True
    assert as_object(message) == {"ephemeral": True, "tick": -1, "payload": "x"}


@pytest.mark.parametrize(
    "line",
    [b"[]", b"{", b'{"key": "k"}', b'{"payload": 1}', b'{"payload": "a", "payload_base64": ""}',
     b'{"payload": "a", "colour": "red"}', b'{"payload_base64": "!"}',
     b'{"payload": "a", "properties": [["a"]]}'],
)  # fmt: skip
def test_what_is_no_message(line) -> None:
    with pytest.raises(InvalidRequest, match="line 7 is no message"):
        message_from_json(line, 7)


def test_keys_from_members() -> None:
    assert key_in(b'{"id": "a"}', "id", 1) == b"a"
    assert key_in(b'{"id": 7}', "id", 1) == b"7"
    for line in (b"{}", b"7", b"x", b"[]"):
        with pytest.raises(InvalidRequest, match="line 2"):
            key_in(line, "id", 2)


class SilentFeed(Feed):
    """Two lines, and then a pipe that nobody writes to."""

    def __init__(self) -> None:
        self.chunks = [b"one\ntwo\n"]

    async def read(self) -> bytes:
        return (
            self.chunks.pop() if self.chunks else await asyncio.get_running_loop().create_future()
        )


@on_virtual_time
async def test_a_transaction_that_is_stopped_says_what_becomes_of_it(capsys) -> None:
    request = Request(
        name="orders", file="-", form=Form.LINES, key_from=None, type=None, transaction=True, producer=None,
    )  # fmt: skip
    async with serving() as (_, client):
        channel = await client.open_channel("orders")
        async with channel.producer() as producer:
            task = asyncio.create_task(in_transaction(producer, SilentFeed(), request))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (
        capsys.readouterr().err == "woodpecker: stopped; nothing of the transaction will be seen\n"
    )
