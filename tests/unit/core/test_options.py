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


@pytest.mark.parametrize("name", [n for n, b in BOUNDS.items() if not b.choices])
def test_each_number_has_its_bounds(name: str):
    bound = BOUNDS[name]
    for value in (bound.low, bound.high):
        assert getattr(make_options(Options(), {name: value}), name) == value
    for wrong in (bound.low - 1, bound.high + 1, True, "7", 7.5):
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


def test_a_mode_becomes_a_kind():
    assert make_options(Options(), {"mode": "file"}).mode is Kind.FILE


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(InvalidRequest, match="did you mean 'segment_max_bytes'"):
        make_options(Options(), {"segment_max_byte": 1})
    with pytest.raises(InvalidRequest, match="options are"):
        make_options(Options(), {"xyz": 1})
