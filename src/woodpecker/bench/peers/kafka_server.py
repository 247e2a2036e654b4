"""A real Apache Kafka of one node (KRaft), from its published jars, for as long as a run lasts.

Needs ``java`` (17 or newer), and ``mvn`` the first time: it fetches the jars into a cache of ours.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from woodpecker.bench.peers.base import NotHere, find_program
from woodpecker.bench.processes import HOST, TAIL_BYTES, free_port, serving

VERSION = "4.1.2"
CLUSTER_ID = "d29vZHBlY2tlcmJlbmNoMA"  # any 16 bytes
FETCH_TIMEOUT_S, FORMAT_TIMEOUT_S = 600, 60
HEAP = "-Xmx1g"
POM = f"""<project>
<modelVersion>4.0.0</modelVersion>
<groupId>bench</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies>
</project>
"""
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"""


@asynccontextmanager
async def kafka_server(directory: Path, cache: Path) -> AsyncIterator[tuple[str, int]]:
    """Address and process id of the broker. Raises: NotHere."""
    java = find_program("java", "give --kafka HOST:PORT, or install java 17 and mvn to start one")
    jars = await _jars(cache)
    port, controller = free_port(), free_port()
    properties = directory / "kafka.properties"
    properties.write_text(
        PROPERTIES.format(host=HOST, port=port, controller=controller, data=directory / "kafka")
    )
    run = [java, HEAP, "-cp", f"{jars}/*"]
    setup = [*run, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
    await _done(setup, FORMAT_TIMEOUT_S)
    argv = [*run, "kafka.Kafka", str(properties)]
    async with serving(argv, port, directory / "kafka.log") as process:
        yield f"{HOST}:{port}", process.pid


async def _jars(cache: Path) -> Path:
    """The directory of the jars, fetched if need be; it appears whole or not at all."""
    jars = cache / f"kafka-{VERSION}"
    if not await asyncio.to_thread(jars.is_dir):
        maven = find_program(
            "mvn", "give --kafka HOST:PORT, or install mvn, which fetches its jars"
        )
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            await _done([maven, *_fetch(Path(scratch))], FETCH_TIMEOUT_S)
            os.rename(Path(scratch, "jars"), jars)
    return jars


def _fetch(scratch: Path) -> list[str]:
    """What Maven has to do, in ``scratch``."""
    pom = scratch / "pom.xml"
    pom.write_text(POM)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime"]
    return ["-q", "-B", "-f", str(pom), *goal, f"-DoutputDirectory={scratch / 'jars'}"]


async def _done(argv: Sequence[str], timeout_s: float) -> None:
    """Raises: NotHere: it failed, or took too long."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise NotHere(f"{argv[0]} took more than {timeout_s} s") from None
    if process.returncode:
        raise NotHere(f"{argv[0]} failed: {output.decode()[-TAIL_BYTES:]}")
