"""The Python blocks of the guide to channels run as printed, one after another, in one service."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import woodpecker as wp
from woodpecker.streaming import Channel, Standalone, StreamingClient

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, store: Path) -> list[CodeType]:
    text = document.read_text(encoding="utf-8").replace("/tmp/woodpecker-", f"{store}/")
    text = text.partition("\n## Channels\n")[2] if document.name == "README.md" else text
    return [compile(s, str(document), "exec", dont_inherit=True) for s in FENCE.findall(text)]


@pytest.mark.parametrize("document", ["README.md", "docs/streaming.md"])
def test_the_first_program(
    document: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # a second run finds its own channel
        exec(blocks(ROOT / document, tmp_path)[0], {"__name__": "x"})
        assert capsys.readouterr().out == "b'7' b'paid'\n"


def test_the_blocks_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"wp": wp}
    for source in blocks(ROOT / "docs" / "streaming.md", tmp_path)[1:]:
        exec(source, names)
    functions = [value for value in names.values() if inspect.isfunction(value)]

    async def run_all() -> None:
        async with (
            wp.connect("memory://") as store,
            Standalone(store) as service,
            service.connect() as client,
        ):
            await _run_in_order(client, functions)

    asyncio.run(run_all())
    out = capsys.readouterr().out
    assert "audit ['audit']\n" in out
    assert "\n1000\n" in out
    assert "True 0\n" in out
    assert "['orders']\n" in out
    names["from_a_thread"]()
    assert "Message(4 bytes" in capsys.readouterr().out


async def _run_in_order(client: StreamingClient, functions: Sequence[Callable[..., Any]]) -> None:
    channel = await client.create_channel("orders")
    done = []
    for function in functions:
        match [p.annotation for p in inspect.signature(function).parameters.values()]:
            case [annotation] if annotation is Channel:
                await function(channel)
            case [annotation] if annotation is StreamingClient:
                await function(client)
            case _:
                continue  # those that need no client here: of a server, and without asyncio
        done.append(function.__name__)
    assert done == ["channels", "produce", "transfer", "consume", "mail", "fresh", "announce"]
