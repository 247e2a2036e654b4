"""The register: the fold of any prefix is the checkpoint at that cut, whatever the grouping."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from woodpecker.core.register import (
    EMPTY_REGISTER,
    BlockFacts,
    DropProducer,
    EndLog,
    GrantProducer,
    ProducerBatch,
    fold,
)

IDS = st.sampled_from(["a", "b", "c"])
CONTROLS = st.one_of(
    st.just(EndLog()),
    st.builds(GrantProducer, id=IDS, epoch=st.integers(0, 5)),
    st.builds(DropProducer, id=IDS),
)
SMALL = st.integers(0, 50)
BATCHES = st.builds(
    ProducerBatch, id=IDS, epoch=SMALL, sequence=SMALL, seq=SMALL, count=SMALL, timestamp_us=SMALL
)
BLOCKS = st.lists(
    st.builds(
        BlockFacts,
        controls=st.lists(CONTROLS, max_size=3).map(tuple),
        batches=st.lists(BATCHES, max_size=4).map(tuple),
    ),
    max_size=20,
)


@given(BLOCKS, st.lists(st.integers(0, 20), max_size=5))
def test_a_fold_in_parts_is_the_fold_of_all(blocks, cuts):
    register = EMPTY_REGISTER
    places = [0, *sorted(min(cut, len(blocks)) for cut in cuts), len(blocks)]
    for begin, end in pairwise(places):
        register = fold(register, blocks[begin:end])
        assert register == fold(EMPTY_REGISTER, blocks[:end])


@given(BLOCKS)
def test_a_fold_is_sorted_and_leaves_out_what_has_no_facts(blocks):
    register = fold(EMPTY_REGISTER, blocks)
    assert list(register.producers) == sorted(register.producers)
    assert fold(EMPTY_REGISTER, [b for b in blocks if b.controls or b.batches]) == register
    assert all(len(state.results) <= 16 for _, state in register.producers)
