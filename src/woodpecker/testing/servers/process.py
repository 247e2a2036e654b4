"""One server process on loopback: start, wait until it answers, stop, kill, start again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from woodpecker.errors import NotFound, Unavailable

STOP_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
POLL_S = 0.02
STOPPED_S = 1.0

LAUNCH = Path(__file__).with_name("launch.py")

_given_ports: set[int] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where a server runs.

    Attributes:
        address: it listens on.
        netns: descriptor of its network namespace; None: the one of this process.
        is_tied: it is killed when the thread that starts it ends, however this process ends.
    """

    address: str = "127.0.0.1"
    netns: int | None = None
    is_tied: bool = False

    def command(self, argv: Sequence[str]) -> list[str]:
        """What to run to have ``argv`` there; needs ``pass_fds``."""
        if self.netns is None and not self.is_tied:
            return list(argv)
        netns = "-" if self.netns is None else str(self.netns)
        return [sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), netns, *argv]

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """For ``subprocess.Popen``."""
        return () if self.netns is None else (self.netns,)


LOOPBACK = Host()


def wait_until_stopped(pid: int) -> None:
    """After SIGSTOP: on a busy machine threads go on for a moment, and answer what came meanwhile."""
    until = time.monotonic() + STOPPED_S
    tasks = Path(f"/proc/{pid}/task")
    while time.monotonic() < until:
        with contextlib.suppress(OSError):  # a thread, or the process, has ended
            states = [
                (task / "stat").read_text().rpartition(") ")[2][0] for task in tasks.iterdir()
            ]
            if set(states) <= {"T", "t", "Z"}:
                return
        time.sleep(0.001)


def free_port(*, beside: int = 0) -> int:
    """A loopback port free now, not given before; ``beside``: port + beside is free as well."""
    for _ in range(1000):
        if beside:  # below the range from which the system picks by itself, here and with beside
            port = random.randrange(12_000, 22_000)
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
        if port not in _given_ports and all(_is_free(p) for p in {port, port + beside}):
            _given_ports.add(port)
            return port
    raise Unavailable("no free loopback port found; end other servers and try again")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_program(name: str, package: str) -> str:
    """Path of a program that ``pip install package`` brings.

    Raises:
        NotFound: it is not installed; the text says how to get it.
    """
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        raise NotFound(f"program {name} is not installed; run: pip install {package}")
    return found


class ServerProcess:
    """A child process that serves HTTP on loopback.

    Args:
        argv: the command; started again unchanged by ``restart``.
        ready_url: any HTTP answer from here means that it is up.
        data_dir: its working directory; output goes to ``server.log`` in it.
        env: added to the environment.
        host: where it runs.
    Concurrency: one task.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        ready_url: str,
        data_dir: Path,
        env: Mapping[str, str] | None = None,
        host: Host = LOOPBACK,
    ) -> None:
        self.argv = list(argv)
        self.data_dir = data_dir
        self._ready_url = ready_url
        self._env = dict(env or {})
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None  # of the last one that was ended

    @property
    def log_file(self) -> Path:
        """Its output."""
        return self.data_dir / "server.log"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended, by itself or by us."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start and wait until it answers. Raises: Unavailable with the end of its output."""
        self.spawn()
        await self.wait_ready()

    def spawn(self) -> None:
        """Start it; does not wait."""
        assert not self.is_running, f"{self.argv[0]} is running already"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._host.command(self.argv), cwd=self.data_dir, env={**os.environ, **self._env},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=self._host.pass_fds,
            )  # fmt: skip

    async def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until it answers; one that does not is killed.

        Raises: Unavailable with the end of its output.
        """
        try:
            await asyncio.wait_for(self._wait_ready(), timeout_s)
        except (TimeoutError, Unavailable) as error:
            await self.kill()
            text = self.log_file.read_text(errors="replace")[-2000:]
            raise Unavailable(f"{self.argv[0]} did not start: {error}\n{text}") from error

    def pause(self) -> None:
        """SIGSTOP: connections stand, nothing answers."""
        self._signal(signal.SIGSTOP)
        if self.pid is not None:
            wait_until_stopped(self.pid)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it politely, after a while by force."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it at once, as a crash would."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Start it again on the same data and port (after ``stop`` or ``kill``)."""
        await self.stop()
        await self.start()

    async def _wait_ready(self) -> None:
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                if self._process is None or self._process.poll() is not None:
                    raise Unavailable("the process ended")
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(self._ready_url) as response:
                        if response.status < 500:
                            return
                await asyncio.sleep(POLL_S)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.argv[0]} is not running"
        self._process.send_signal(number)  # a process not waited for keeps its pid

    async def _end(self, first_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(first_signal)
            process.send_signal(signal.SIGCONT)
        waited_s = 0.0
        while process.poll() is None:
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
            if waited_s > STOP_TIMEOUT_S:
                process.kill()
        self.exit_code = process.wait()
