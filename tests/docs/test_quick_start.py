"""The README's quick start runs as printed, in one store after another."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text(encoding="utf-8")
STORE = "/tmp/woodpecker-quickstart"


def _section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


QUICK_START = _section("Quick start")


def _blocks(document: str, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(document) if found == language]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The command as an installed one, and no settings of whoever runs the tests."""
    command = tmp_path / "bin" / "woodpecker"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nfrom woodpecker.cli.main import main\nmain()\n", encoding="utf-8"
    )
    command.chmod(0o755)
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("WOODPECKER_", "XDG_"))}
    return {
        **keep,
        "HOME": str(tmp_path),
        "PATH": f"{command.parent}:{keep['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }


def _run(argv: list[str], text: str, env: dict[str, str], tmp_path: Path) -> str:
    done = subprocess.run(
        argv, input=text.replace(STORE, str(tmp_path / "store")), env=env, cwd=tmp_path,
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_readmes_programs(env: dict[str, str], tmp_path: Path) -> None:
    first, blocking = _blocks(QUICK_START, "python")
    for round_number in range(2):  # a second run finds its own log
        seq = 4 * round_number
        out = _run([sys.executable], first, env, tmp_path)
        assert out == f"{seq} b'paid'\n{seq + 1} b'packed'\n{seq + 2} b'shipped'\n"
        assert _run([sys.executable], blocking, env, tmp_path) == f"{seq + 3} b'returned'\n"


def test_the_readmes_commands(env: dict[str, str], tmp_path: Path) -> None:
    (commands,) = _blocks(QUICK_START, "sh")
    for round_number in range(2):
        lines = _run(["sh", "-e"], commands, env, tmp_path).splitlines()
        first = 2 * round_number
        assert lines[1] == f"2 entries appended to events: seq {first} .. {first + 1}"
        assert lines[2:4] == ["started", "stopped"]
        assert lines[4].startswith(f"log events is sound: seq 0 .. {first + 2} (exclusive)")


def test_the_commands_of_the_command_lines_document(env: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = _blocks(text, "")[0].replace("woodpecker read orders --follow\n", "")
    lines = _run(["sh", "-e"], commands, env, tmp_path).splitlines()
    assert lines[1:] == ["3 entries appended to orders: seq 0 .. 2", "packed", "shipped"]


def test_the_readmes_cluster(env: dict[str, str], tmp_path: Path) -> None:
    start, use = _blocks(_section("A cluster on your machine"), "sh")
    port = _three_free_ports()
    env = {**env, "WOODPECKER_STORE": ""}
    start = start.replace("7101", str(port)).replace("/tmp/woodpecker-cluster", str(tmp_path / "c"))
    for number in range(3):
        use = use.replace(str(7101 + number), str(port + number))
    errors = tmp_path / "errors"
    with errors.open("wb") as stderr:
        cluster = subprocess.Popen(
            start.split(), env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    assert cluster.stdout is not None
    try:
        with cluster.stdout:
            is_ready = any(line.startswith("ready: wp://") for line in cluster.stdout)
            assert is_ready, errors.read_text()
            lines = _run(["sh", "-e"], use, env, tmp_path).splitlines()
    finally:
        cluster.send_signal(signal.SIGINT)
        assert cluster.wait(60) == 0
    assert lines[1] == "2 entries appended to events: seq 0 .. 1"
    assert any(
        line.split()[:3] in (["0", "quorum", "closed"], ["0", "quorum", "sealed"]) for line in lines
    )
    assert lines[-2:] == ["started", "stopped"]


def _three_free_ports() -> int:
    """The first of three, below those from which the system picks by itself."""
    for port in range(23_000, 32_000, 7):
        probes = [socket.socket() for _ in range(3)]
        try:
            for number, probe in enumerate(probes):
                probe.bind(("127.0.0.1", port + number))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return port
    raise AssertionError("no three free ports in a row")
