"""Several processes on one directory store: every number is won once, kills lose nothing answered."""

from __future__ import annotations

import asyncio
import os
import sys

from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.local import LocalObjectStore

COUNTER = """
import asyncio, sys
from woodpecker.errors import AlreadyExists, Conflict, OutcomeUnknown
from woodpecker.runtime.runtime import SystemRuntime
from woodpecker.storage.local import LocalObjectStore

async def main(root, name):
    store = LocalObjectStore(root, SystemRuntime())
    try:
        await store.create("meta/count", b"")
    except AlreadyExists:
        pass
    number = 0
    while True:
        data, info = await store.get("meta/count")
        mark = f"{name}:{number} ".encode()
        try:
            await store.replace("meta/count", bytes(data)[-4000:] + mark, etag=info.etag)
        except (Conflict, OutcomeUnknown):
            if mark not in bytes((await store.get("meta/count"))[0]):
                continue
        await store.create(f"done/{name}/{number:06}", mark)
        print(number, flush=True)
        number += 1

asyncio.run(main(*sys.argv[1:]))
"""


async def test_rivals_killed_at_any_time_lose_nothing_they_reported(tmp_path):
    root = tmp_path / "root"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    async def rival(name, reports):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNTER, str(root), name, env=env,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        reported = [int(await process.stdout.readline()) for _ in range(reports)]
        process.kill()
        rest = await process.stdout.read()
        await process.wait()
        return name, len(reported) + rest.count(b"\n")

    done = await asyncio.gather(*(rival(f"p{n}", 15 + 7 * n) for n in range(4)))
    store = LocalObjectStore(root, SystemRuntime())
    history = bytes((await store.get("meta/count"))[0]).split()
    for name, reported in done:
        keys = [i.key async for page in store.list(f"done/{name}/") for i in page]
        assert keys[:reported] == [f"done/{name}/{number:06}" for number in range(reported)]
        mine = [mark for mark in history if mark.startswith(name.encode() + b":")]
        assert mine == [f"{name}:{number}".encode() for number in range(len(mine))]
        assert len(mine) >= reported
    await store.close()
