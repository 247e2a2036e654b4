"""The command line on a real S3 server: it works, and refuses bad buckets, keys and places plainly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.unit.cli.kit import Cli

from woodpecker.testing.servers.rclone import RcloneServer
from woodpecker.testing.servers.seaweed import SeaweedServer

DATA = b"".join(b"%d\n" % number for number in range(10_000)) + b"last"


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedServer(tmp_path_factory.mktemp("seaweed"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seaweed: SeaweedServer) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for name, value in seaweed.credentials.items():
        monkeypatch.setenv(name, value)


def test_a_log_in_a_bucket(seaweed: SeaweedServer, tmp_path: Path) -> None:
    cli = Cli(seaweed.url(prefix="plain"))
    cli.ok("log", "create", "x", "--segment-max-blocks", "2")
    cli.append("x", DATA, tmp_path)
    assert cli.ok("read", "x") == DATA
    assert cli.ok("read", "x", "--from", "-1") == b"last"
    cli.ok("log", "gc", "x")
    assert cli.json("log", "verify", "x")["next_seq"] == 10_001
    assert cli.json("log", "describe", "x")["options"]["mode"] == "object"
    cli.ok("export", "x", str(tmp_path / "x.wal"))
    local = Cli(str(tmp_path / "local"))
    local.ok("import", "x", str(tmp_path / "x.wal"))
    assert local.ok("read", "x") == DATA


def test_a_buffer_makes_open_segments_files(seaweed: SeaweedServer, tmp_path: Path) -> None:
    cli = Cli(seaweed.url(prefix="buffered"))
    buffered = ("--buffer", (tmp_path / "buffer").as_uri())
    cli.ok(*buffered, "log", "create", "x")
    (tmp_path / "input").write_bytes(DATA)
    cli.ok(*buffered, "append", "x", str(tmp_path / "input"))
    assert cli.ok(*buffered, "read", "x") == DATA
    cli.ok(*buffered, "log", "gc", "x")
    assert cli.ok("read", "x") == DATA, "sealed into the bucket: no buffer is needed"


def test_doctor_on_a_bucket(seaweed: SeaweedServer) -> None:
    found = Cli(seaweed.url(prefix="examined")).json("doctor")
    assert found["usable"] is True
    names = {check["name"] for check in found["checks"] if check["ok"]}
    assert names >= {"create if absent", "compare and swap", "put of 4 KiB", "throughput of get"}
    assert "Mode object fits" in found["advice"]


@pytest.fixture
def rclone(tmp_path: Path):
    """It makes no buckets by itself, as SeaweedFS does, and ignores conditions silently."""
    server = RcloneServer(tmp_path / "rclone")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


def test_a_bucket_that_is_not_there(rclone: RcloneServer) -> None:
    cli = Cli(f"s3://nothing/x?endpoint={rclone.endpoint}")
    assert "aws s3 mb s3://nothing" in cli.fails(4, "log", "create", "x")
    done = cli("--output", "json", "doctor")
    assert (done.exit_code, json.loads(done.stdout)["usable"]) == (16, False)


def test_a_store_that_ignores_conditions_is_refused(rclone: RcloneServer) -> None:
    cli = Cli(f"s3://bucket/x?endpoint={rclone.endpoint}")
    assert "has no create-if-absent" in cli.fails(3, "log", "create", "x")
    done = cli("doctor")
    assert done.exit_code == 16
    assert "FAIL  create if absent" in done.stdout
    assert "Not usable: create if absent" in done.stdout


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")]
)
def test_wrong_credentials(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    cli = Cli(seaweed.url(prefix="closed"))
    said = cli.fails(3, "log", "create", "x")
    assert "bucket" in said
    assert seaweed.SECRET_KEY not in said
    assert cli("doctor").exit_code == 16


def test_a_prefix_that_holds_something_else(seaweed: SeaweedServer) -> None:
    Cli(seaweed.url(prefix="outer/inner")).ok("log", "create", "x")
    said = Cli(seaweed.url(prefix="outer")).fails(3, "log", "create", "x")
    assert "not a Woodpecker store and is not empty" in said
    assert Cli(seaweed.url(prefix="outer/inner")).ok("log", "list") == b"x\n"


def test_a_server_that_does_not_answer(seaweed: SeaweedServer) -> None:
    cli = Cli("s3://bucket/x?endpoint=http://127.0.0.1:9&timeout_ms=500&connect_timeout_ms=200")
    said = cli.fails(13, "log", "list")
    assert "127.0.0.1:9" in said or "s3://bucket" in said
