"""The comparison with other logs: its rows, and what it says of peers that are not here."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from typer.testing import CliRunner

from woodpecker.bench.pairs import Plan
from woodpecker.bench.peers import kafka_server, run, sqlite
from woodpecker.bench.peers.base import NotHere, Peer, PeerPlace, client_library, find_program
from woodpecker.bench.target import open_target
from woodpecker.cli.main import app
from woodpecker.errors import InvalidRequest

WANTED = run.PeersPlan(
    plan=Plan(pairs=1, seconds=0.02), peers=("sqlite", "absent"), size=100,
    in_flight=(1, 8), rates=(100.0,), warm_up_s=0.01,
)  # fmt: skip


def quiet(_what: str) -> None:
    """Progress nobody looks at."""


@asynccontextmanager
async def absent(_place: PeerPlace):
    raise NotHere("it is elsewhere")
    yield list[Peer]()


async def test_each_system_has_a_row_for_each_load_with_its_settings_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PEERS", {"sqlite": sqlite.started, "absent": absent})
    async with open_target(str(tmp_path)) as target:
        rows = await run.run(target, WANTED, quiet)
    names = [row.name for row in rows]
    assert "absent: not measured: it is elsewhere" in names
    assert any(name.startswith("SQLite: ") and "synchronous FULL" in name for name in names)
    for system in ("Woodpecker, file", "SQLite"):
        mine = [row for row in rows if row.name.startswith(f"{system} 100 B ")]
        what = [row.name.removeprefix(f"{system} 100 B ") for row in mine]
        assert what == ["await x1", "await x8", "batches of 1024 x4", "at 100/s"]
        assert all(row.figures["entries_s"] > 0 for row in mine)
        assert [row.ratio is not None for row in mine] == [True, False, True, False]
    assert list(tmp_path.iterdir()) == []


async def test_a_peer_that_fails_is_left_out_and_the_others_go_on(tmp_path, monkeypatch):
    class Weak:
        async def append(self, _payload):
            """Good enough for one."""

        async def append_many(self, payloads):
            raise OSError("too much")

    @asynccontextmanager
    async def weak(_place: PeerPlace):
        yield [Peer(name="Weak", settings="none", log=Weak())]

    monkeypatch.setattr(run, "PEERS", {"sqlite": sqlite.started, "absent": weak})
    async with open_target(str(tmp_path)) as target:
        names = [row.name for row in await run.run(target, WANTED, quiet)]
    assert [name.partition(" 100 B ")[2] for name in names if name.startswith("Weak 100 B")] == [
        "await x1", "await x8",
    ]  # fmt: skip
    assert any("Weak: left out from here on: OSError('too much')" in name for name in names)
    assert "SQLite 100 B at 100/s" in names


async def test_what_sqlite_acknowledges_is_in_the_table(tmp_path):
    place = PeerPlace(directory=tmp_path, cache=tmp_path)
    async with sqlite.started(place) as (peer,):
        await peer.log.append(b"a")
        await peer.log.append_many([b"b", b"c"])
    import sqlite3

    rows = sqlite3.connect(tmp_path / "bench.sqlite").execute("SELECT payload FROM log").fetchall()
    assert rows == [(b"a",), (b"b",), (b"c",)]


async def test_a_bucket_is_refused(monkeypatch, tmp_path):
    async with open_target(str(tmp_path), "s3://bucket/x?endpoint=http://127.0.0.1:1") as target:
        with pytest.raises(InvalidRequest, match="--store DIR"):
            await run.run(target, WANTED, quiet)
        monkeypatch.setattr(type(target), "remove", lambda _: _nothing())


async def _nothing() -> None:
    """There is no such bucket."""


def test_what_is_missing_is_named_in_one_line(tmp_path):
    with pytest.raises(NotHere, match="pip install none"):
        client_library("no_such_client_of_a_peer", "none")
    with pytest.raises(NotHere, match="apt-get install none"):
        find_program("no-such-server-of-a-peer", "apt-get install none")


async def test_a_broker_without_java_is_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotHere, match="--kafka HOST:PORT"):
        async with kafka_server.kafka_server(tmp_path, tmp_path):
            pass


def test_an_unknown_peer_is_refused(tmp_path):
    arguments = ["bench", "peers", "--store", str(tmp_path), "--peer", "none"]
    assert CliRunner().invoke(app, arguments).exit_code == 3
