"""Asking whichever node answers: which one is asked, when the next one is, and what is said at last."""

from __future__ import annotations

import asyncio

import pytest

from woodpecker.codec.messages import Done, Ping, Refused
from woodpecker.errors import Corrupt, InvalidRequest, Unavailable
from woodpecker.rpc import any_node as any_node_module
from woodpecker.rpc.any_node import AnyNode
from woodpecker.rpc.base import Answer
from woodpecker.runtime.runtime import SystemRuntime


class Node:
    """What happens at one address: an answer, or an error of the connection or of the request."""

    def __init__(self, *, connect=None, answer=None, is_mute=False) -> None:
        self.connect = connect
        self.is_mute = is_mute
        self.answer = answer or Done()
        self.asked = 0


class FakeLink:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.is_open = True

    def send(self, request, payload=b"", *, timeout_ms) -> asyncio.Future[Answer]:
        self.node.asked += 1
        future = asyncio.get_running_loop().create_future()
        if isinstance(self.node.answer, Exception):
            future.set_exception(self.node.answer)
        else:
            future.set_result(Answer(self.node.answer))
        return future

    async def close(self) -> None:
        self.is_open = False


class FakeTransport:
    def __init__(self, nodes: dict[str, Node]) -> None:
        self.nodes = nodes
        self.connections: list[str] = []

    async def connect(self, address: str, *, timeout_ms: int) -> FakeLink:
        self.connections.append(address)
        if self.nodes[address].is_mute:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        error = self.nodes[address].connect
        if error is not None:
            raise error
        return FakeLink(self.nodes[address])


class FirstOnes(SystemRuntime):
    """No chance: the first address is tried first."""

    def random(self) -> float:
        return 0.0


def any_of(**nodes: Node) -> tuple[AnyNode, FakeTransport]:
    transport = FakeTransport(nodes)

    async def addresses() -> list[str]:
        return list(nodes)

    return AnyNode(transport, addresses, FirstOnes()), transport  # type: ignore[arg-type]


async def test_one_link_serves_all_who_ask() -> None:
    any_node, transport = any_of(a=Node(), b=Node())
    await asyncio.gather(*(any_node.ask(Ping()) for _ in range(5)))
    assert transport.connections == ["a"]


async def test_the_next_node_is_taken_when_one_is_away_or_breaks() -> None:
    a, b, c = Node(connect=Unavailable("a is away")), Node(), Node()
    any_node, transport = any_of(a=a, b=b, c=c)
    assert (await any_node.ask(Ping())).message == Done()
    assert transport.connections == ["a", "b"]
    b.answer, b.connect = Unavailable("cut"), Unavailable("b is away")
    assert (await any_node.ask(Ping())).message == Done()
    assert (b.asked, c.asked) == (2, 1)


async def test_one_that_says_nothing_does_not_hold_up_the_next(monkeypatch) -> None:
    monkeypatch.setattr(any_node_module, "PATIENCE_MS", 1.0)
    any_node, transport = any_of(a=Node(is_mute=True), b=Node(is_mute=True), c=Node())
    assert (await any_node.ask(Ping())).message == Done()
    assert transport.connections == ["a", "b", "c"]
    assert len(asyncio.all_tasks()) == 1  # nobody waits for a and b any more


async def test_a_node_that_cannot_is_left_for_one_that_can() -> None:
    a = Node(answer=Refused(code="unavailable", text="no bucket here"))
    any_node, transport = any_of(a=a, b=Node())
    a_then_b = iter([0.0, 0.9])
    any_node._runtime.random = lambda: next(a_then_b)  # type: ignore[method-assign]
    assert (await any_node.ask(Ping())).message == Done()
    assert transport.connections == ["a", "b"]


async def test_a_refusal_is_the_error_it_names() -> None:
    any_node, _ = any_of(a=Node(answer=Refused(code="corrupt", text="bits")), b=Node())
    with pytest.raises(Corrupt, match="bits"):
        await any_node.ask(Ping())
    any_node, _ = any_of(a=Node(answer=Refused(code="from_the_future", text="what?")))
    with pytest.raises(Unavailable, match="what"):
        await any_node.ask(Ping())


async def test_when_none_answers_all_reasons_are_told() -> None:
    any_node, _ = any_of(a=Node(connect=Unavailable("a: x")), b=Node(connect=Unavailable("b: y")))
    with pytest.raises(Unavailable, match="no LogStore node answers: a: x; b: y"):
        await any_node.link()
    any_node, _ = any_of()
    with pytest.raises(Unavailable, match="none is known"):
        await any_node.link()


async def test_refused_credentials_are_told_rather_than_a_node_that_is_away() -> None:
    any_node, _ = any_of(
        a=Node(connect=InvalidRequest("wrong secret")), b=Node(connect=Unavailable("b: y"))
    )
    with pytest.raises(InvalidRequest, match="wrong secret"):
        await any_node.link()


async def test_closing_closes_the_link() -> None:
    any_node, _ = any_of(a=Node())
    link = await any_node.link()
    await any_node.close()
    assert not link.is_open
