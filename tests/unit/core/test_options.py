"""Options of a log: names, types and bounds are checked, errors help."""

from __future__ import annotations

import pytest

from woodpecker.core.ids import Kind
from woodpecker.core.manifest import Options
from woodpecker.core.options import BOUNDS, make_options
from woodpecker.errors import InvalidRequest


def test_the_defaults_lie_within_their_own_bounds():
    defaults = Options()
    values = {name: getattr(defaults, name) for name in BOUNDS}
    assert make_options(defaults, values) == defaults


NUMBERS = [n for n, b in BOUNDS.items() if not b.choices and not b.is_list]
LISTS = [n for n, b in BOUNDS.items() if b.is_list]


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_has_its_bounds(name: str):
    bound = BOUNDS[name]
    for value in (bound.low, bound.high):
        assert getattr(make_options(Options(), {name: value}), name) == value
    between = [bound.low + 1] if bound.step > 1 else []
    for wrong in (bound.low - 1, bound.high + 1, *between, True, "7", 7.5):
        with pytest.raises(InvalidRequest, match=name):
            make_options(Options(), {name: wrong})
    if bound.nullable:
        assert getattr(make_options(Options(), {name: None}), name) is None
    else:
        with pytest.raises(InvalidRequest, match=name):
            make_options(Options(), {name: None})


@pytest.mark.parametrize("name", [n for n, b in BOUNDS.items() if b.choices])
def test_each_choice_is_one_of_a_few(name: str):
    for choice in BOUNDS[name].choices:
        assert getattr(make_options(Options(), {name: choice}), name) == choice
    for wrong in ("", "other", None, 1, ["file"]):
        with pytest.raises(InvalidRequest, match=name):
            make_options(Options(), {name: wrong})


@pytest.mark.parametrize("name", LISTS)
def test_each_list_of_names_is_kept_as_text(name: str):
    for given in ("b,a", ["a", "b", "a"], ("b", "a")):
        assert getattr(make_options(Options(), {name: given}), name) == "a,b"
    assert getattr(make_options(Options(), {name: 7}), name) == "7"
    assert getattr(make_options(Options(), {name: None}), name) is None
    for wrong in ("", "a,,b", "a b", [], [1], True, 7.5, {"a": 1}):
        with pytest.raises(InvalidRequest, match=name):
            make_options(Options(), {name: wrong})


@pytest.mark.parametrize(
    "changes",
    [
        {"affinity": "hard", "placement": "random"},
        {"affinity": "hard", "placement_zones": "a,b"},
        {"affinity": "hard", "placement_groups": "a,b"},
        {"affinity": "hard", "placement": "single-az-multi-rg", "placement_groups": "a"},
        {
            "affinity": "hard",
            "placement": "multi-az-single-rg",
            "placement_zones": "a",
            "replicas": 5,
        },
    ],
)
def test_options_that_contradict_each_other_are_refused(changes: dict[str, object]):
    with pytest.raises(InvalidRequest, match="affinity='hard'"):
        make_options(Options(), changes)
    make_options(Options(), {**changes, "affinity": "soft"})


@pytest.mark.parametrize(
    "changes",
    [
        {"placement": "random", "placement_zones": "a"},
        {"placement_zones": "a,b,c"},
        {"placement": "single-az-single-rg", "placement_zones": "a", "placement_groups": "x,y"},
        {"placement": "multi-az-single-rg", "placement_zones": "a,b,c", "replicas": 5},
    ],
)
def test_hard_is_fine_where_it_can_be_kept(changes: dict[str, object]):
    assert make_options(Options(), {**changes, "affinity": "hard"}).affinity == "hard"


def test_a_mode_becomes_a_kind():
    assert make_options(Options(), {"mode": "file"}).mode is Kind.FILE


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(InvalidRequest, match="did you mean 'segment_max_bytes'"):
        make_options(Options(), {"segment_max_byte": 1})
    with pytest.raises(InvalidRequest, match="options are"):
        make_options(Options(), {"xyz": 1})
