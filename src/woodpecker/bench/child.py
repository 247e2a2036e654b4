"""Second processes of bench runs: a reader that follows, a writer that is killed, a raw sink."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from woodpecker.app import connect
from woodpecker.bench import sink
from woodpecker.bench.machine import now
from woodpecker.bench.payloads import Payloads
from woodpecker.errors import Overloaded


async def follow(url: str, log: str, count: int) -> None:
    """Print when each of ``count`` entries came, at the end."""
    arrivals: list[tuple[int, float]] = []
    async with connect(url, background=False) as client:
        print("ready", flush=True)
        async for batch in (await client.open_log(log)).read_batches(follow=True):
            moment = now()
            arrivals += [(seq, moment) for seq in range(batch.first_seq, batch.end_seq)]
            if batch.end_seq >= count:
                break
    print("\n".join(f"{seq} {moment!r}" for seq, moment in arrivals), flush=True)


async def write(url: str, log: str, volume_bytes: int, size: int, in_flight: int) -> None:
    """Write durably, say so, and wait to be killed."""
    async with connect(url, background=False) as client:
        handle = await client.create_log(
            log, segment_max_bytes=16 << 30, segment_max_blocks=1_000_000
        )
        async with await handle.open_writer() as writer:
            payloads = Payloads(size)
            for number in range(volume_bytes // size):
                try:
                    writer.submit(payloads.next())
                except Overloaded:
                    await writer.ready()
                    writer.submit(payloads.next())
                if in_flight and number % in_flight == in_flight - 1:
                    await writer.flush()
            await writer.flush()
            print("ready", flush=True)
            await asyncio.Event().wait()


def main(argv: list[str]) -> None:
    """``follow URL LOG COUNT``, ``write URL LOG BYTES SIZE IN_FLIGHT`` or ``sink FILE``."""
    match argv:
        case ["follow", url, log, count]:
            asyncio.run(follow(url, log, int(count)))
        case ["sink", path]:
            print("ready", flush=True)
            sink.serve(Path(path))
        case ["write", url, log, volume, size, in_flight]:
            asyncio.run(write(url, log, int(volume), int(size), int(in_flight)))
        case _:
            sys.exit(f"unknown: {argv}")


if __name__ == "__main__":
    main(sys.argv[1:])
