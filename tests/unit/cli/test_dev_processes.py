"""Processes of a development cluster: ready or told why not, watched, ended with whoever started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from woodpecker.cli.dev_layout import Program
from woodpecker.cli.dev_processes import Child, stop_all
from woodpecker.errors import Unavailable
from woodpecker.testing.servers.process import free_port

SERVE = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Ready.count += 1
        self.send_response(200 if Ready.count > 1 else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVE


def program(tmp_path: Path, source: str) -> Program:
    port = free_port()
    return Program(
        name="one",
        role="test",
        address=f"127.0.0.1:{port}",
        argv=(sys.executable, "-c", source, str(port)),
        ready_url=f"http://127.0.0.1:{port}/",
        log=tmp_path / "logs" / "one.log",
    )


async def test_ready_when_it_says_so_and_ended_politely(tmp_path: Path) -> None:
    child = await Child.start(program(tmp_path, SERVE), tmp_path)
    ended: list[int] = []
    child.on_end(lambda _, code: ended.append(code))
    await child.wait_ready()
    assert child.is_running and os.getpgid(child.pid) == child.pid
    await stop_all([child])
    assert not child.is_running
    assert ended == [-signal.SIGTERM]
    await stop_all([child])


async def test_one_that_ends_at_once_is_told_with_the_end_of_its_output(tmp_path: Path) -> None:
    child = await Child.start(program(tmp_path, "raise SystemExit('no disk')"), tmp_path)
    with pytest.raises(Unavailable, match=r"one ended at once; .*one\.log ends with: no disk"):
        await child.wait_ready()


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    wrong = Program(
        name="one", role="x", address="", argv=("/none/such",), ready_url="", log=tmp_path / "l/x"
    )
    with pytest.raises(Unavailable, match="one cannot be started"):
        await Child.start(wrong, tmp_path)


async def test_one_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("woodpecker.cli.dev_processes.STOP_TIMEOUT_S", 0.2)
    child = await Child.start(program(tmp_path, STUBBORN), tmp_path)
    await child.wait_ready()
    await stop_all([child])
    assert not child.is_running


PARENT = """
import asyncio, sys
from pathlib import Path
from tests.unit.cli.test_dev_processes import SERVE, program
from woodpecker.cli.dev_processes import Child
async def main():
    child = await Child.start(program(Path(sys.argv[1]), SERVE), Path(sys.argv[1]))
    await child.wait_ready()
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs Linux: parents are not watched elsewhere"
)
async def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], cwd=root, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{root}/src:{root}"},
    )  # fmt: skip
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(await asyncio.to_thread(parent.stdout.readline))
    parent.kill()
    parent.wait()
    async with asyncio.timeout(20):
        while _runs(pid):
            await asyncio.sleep(0.02)


def _runs(pid: int) -> bool:
    """A zombie whose new parent has not looked yet does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
