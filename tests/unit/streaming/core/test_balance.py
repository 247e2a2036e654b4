"""Balance: sticky, deterministic, few moves that gain."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from woodpecker.streaming.core import balance
from woodpecker.streaming.core.balance import Load, Move, lightest, moves, total


def loads(**nodes: list[float]) -> dict[str, dict[str, Load]]:
    return {
        node: {f"{node}.{i}": Load(bytes_s=x, memory_bytes=1) for i, x in enumerate(xs)}
        for node, xs in nodes.items()
    }


def test_the_lightest_fit_node_and_ties_by_id() -> None:
    totals = {node: total(held) for node, held in loads(b=[1.0], a=[1.0], c=[5.0, 5.0]).items()}
    assert lightest(totals, ["c", "b", "a"]) == "a"
    assert lightest(totals, ["c", "b"]) == "b"
    assert lightest(totals, []) is None
    assert lightest(totals, ["a", "new"]) == "new"


def test_next_to_nothing_is_no_load() -> None:
    """A hundred bytes of memory made one of two idle nodes the lighter one, whatever it had."""
    some, more = Load(memory_bytes=64, count=10), Load(memory_bytes=582, bytes_s=20.0, count=6)
    assert lightest({"a": some, "b": more}, ["a", "b"]) == "b"


def test_what_is_even_stays() -> None:
    nodes = loads(a=[1.0, 1.0], b=[1.0, 1.0])
    assert moves(nodes, [n for held in nodes.values() for n in held], ["a", "b"], 3) == []


def test_a_new_node_gets_its_share_also_in_a_large_cluster() -> None:
    nodes = loads(**{f"n{i:02}": [1.0] * 4 for i in range(50)}, new=[])
    movable = [name for held in nodes.values() for name in held]
    found = moves(nodes, movable, list(nodes), 3)
    assert len(found) == 3 and {move.target for move in found} == {"new"}


def test_what_may_not_move_stays_and_unfit_nodes_get_nothing() -> None:
    nodes = loads(a=[9.0, 1.0], b=[])
    assert moves(nodes, ["a.1"], ["a", "b"], 3) == [Move(pchannel="a.1", source="a", target="b")]
    assert moves(nodes, ["a.0", "a.1"], ["a"], 3) == []


def test_one_hot_pchannel_is_not_passed_round() -> None:
    assert moves(loads(a=[100.0], b=[]), ["a.0"], ["a", "b"], 3) == []


NODES = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(0, 1000).map(float), max_size=6), min_size=1
)


def cost(nodes: dict[str, dict[str, Load]]) -> float:
    scores = balance._Scores({node: total(held) for node, held in nodes.items()})
    return sum(scores.of(total(held)) ** 2 for held in nodes.values())


@settings(max_examples=50)
@given(NODES)
def test_moves_gain_come_to_an_end_and_are_the_same_each_time(
    drawn: dict[str, list[float]],
) -> None:
    nodes = loads(**drawn)
    movable = [name for held in nodes.values() for name in held]
    for _ in range(40):
        found = moves(nodes, movable, list(nodes), 3)
        assert found == moves(dict(reversed(nodes.items())), set(movable), set(nodes), 3)
        assert len({move.pchannel for move in found}) == len(found) <= 3
        if not found:
            return
        before = cost(nodes)
        for move in found:
            nodes[move.target][move.pchannel] = nodes[move.source].pop(move.pchannel)
        assert cost(nodes) < before
    raise AssertionError("it never ends")
