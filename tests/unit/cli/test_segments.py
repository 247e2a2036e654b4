"""`segment` and `node` commands on a store without LogStore nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.kit import Cli


@pytest.fixture
def log(cli: Cli, tmp_path: Path) -> Cli:
    cli.ok("log", "create", "orders", "--mode", "file")
    cli.append("orders", b"a\nb\n", tmp_path)
    cli.append("orders", b"c\n", tmp_path)
    return cli


def test_segments_of_a_log(log: Cli) -> None:
    first, second = log.json("segment", "list", "orders")
    assert (first["id"], first["kind"], first["base_seq"], first["end_seq"]) == (0, "file", 0, 2)
    assert (second["base_seq"], second["end_seq"], second["members"]) == (2, 3, [])
    text = log.ok("segment", "list", "orders").decode()
    assert "first seq" in text and "host " in text


def test_one_segment(log: Cli) -> None:
    shown = log.json("segment", "show", "orders", "1")
    assert shown == log.json("segment", "list", "orders")[1]
    assert b"end_seq" in log.ok("segment", "show", "orders", "1")
    assert "has no segment 7" in log.fails(4, "segment", "show", "orders", "7")
    assert "does not exist" in log.fails(4, "segment", "list", "none")


def test_fence_and_seal(log: Cli) -> None:
    before = log.json("log", "describe", "orders")["epoch"]
    assert log.json("segment", "fence", "orders") == {"name": "orders", "next_seq": 3}
    assert log.json("log", "describe", "orders")["epoch"] == before + 1
    log.json("segment", "seal", "orders")
    assert {s["state"] for s in log.json("segment", "list", "orders")} == {"sealed"}
    assert log.json("segment", "seal", "orders") == {"name": "orders", "sealed": 0}
    assert b"0 segments sealed now" in log.ok("segment", "seal", "orders")
    assert b"its next seq is 3" in log.ok("segment", "fence", "orders", "--yes")


def test_nodes_where_there_are_none(cli: Cli) -> None:
    cli.ok("log", "create", "orders")
    assert cli.json("node", "list") == []
    for command in ("show", "drain", "cancel-drain", "forget"):
        assert "has ever registered" in cli.fails(4, "node", command, "n1")


def test_a_log_of_mode_quorum_says_what_it_lacks(cli: Cli, tmp_path: Path) -> None:
    cli.ok("log", "create", "orders", "--mode", "quorum", "--append-timeout-ms", "300")
    (tmp_path / "input").write_bytes(b"a\n")
    line = cli.fails(9, "append", "orders", str(tmp_path / "input"))
    assert "none has ever registered" in line
