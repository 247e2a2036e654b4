"""The examples for other languages: clients that have nothing of Woodpecker but its .proto files, or reflection."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

import pytest
from tests.integration.cluster_kit import clean_env
from tests.integration.streaming_kit import up

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def service(tmp_path):
    found = up(tmp_path)
    await found.start()
    yield found
    found.cleanup()


async def program(*argv: str) -> list[str]:
    """The lines it prints."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=clean_env(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    return out.decode().splitlines()


async def test_by_reflection_alone(service):
    script = str(ROOT / "examples/any_language.py")
    lines = await program(sys.executable, script, service.address, "orders", "paid", "packed")
    assert [line.split()[1] for line in lines] == ["paid", "packed"]
    lines = await program(sys.executable, script, service.address, "orders", "shipped")
    assert [line.split()[1] for line in lines] == ["paid", "packed", "shipped"]


@pytest.mark.slow
async def test_in_javascript_by_the_proto_files(service, tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js with npm: apt install nodejs npm")
    folder = tmp_path / "examples/node"
    shutil.copytree(ROOT / "examples/node", folder)
    proto = tmp_path / "src/woodpecker/streaming/proto"
    shutil.copytree(ROOT / "src/woodpecker/streaming/proto", proto)
    await program("npm", "install", "--silent", "--prefix", str(folder))
    lines = await program("node", str(folder / "client.js"), service.address, "orders", "a", "b")
    assert [line.split()[1] for line in lines] == ["a", "b"]
