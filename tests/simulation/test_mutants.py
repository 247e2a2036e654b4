"""Bugs planted in rules and drivers: the simulator finds each, or the model of the rule does.

``woodpecker sim run --mutant NAME`` looks for one; docs/testing.md has the table.
"""

from __future__ import annotations

import pytest

from woodpecker.testing.model.manifest.cases import MUTANTS as OF_MANIFESTS
from woodpecker.testing.model.object.cases import MUTANTS as OF_OBJECTS
from woodpecker.testing.model.quorum.cases import MUTANTS as OF_QUORUMS
from woodpecker.testing.sim.mutants import all_mutants, planted
from woodpecker.testing.sim.run import run_seed

FOUND_BY_SEED = {
    "ack_out_of_order": 230,
    "ack_when_sent": 8,
    "own_put_taken_for_a_rivals": 0,
    "exists_means_stored": 12,
    "unreadable_means_fenced": 137,
    "close_without_drain": 0,
    "live_close_without_mark": 0,
    "recovery_does_not_fence": 1,
    "foreign_mark_walked_over": 1,
    "end_behind_a_gap": 230,
    "end_one_too_early": 0,
    "register_not_folded": 6,
    "empty_segment_reused": 0,
    "epoch_not_raised": 0,
    "conflict_means_fenced": 3,
    "lost_answer_means_refused": 16,
    "end_mark_deleted_by_gc": 0,
    "blocks_deleted_before_sealed": 0,
    "sweep_deletes_what_is_not_named": 6,
    "control_blocks_dropped": 15,
    "trim_without_intention": 104,
    "trim_passes_cursors": 5,
    "tail_behind_a_gap": 230,
    "resolve_judges_an_open_segment": 33,
    "unknown_called_not_written": 253,
    "expect_seq_not_checked": 0,
    "repeat_written_again": 25,
    "ack_before_sync": 0,
    "fenced_node_takes_blocks": 10,
    "forgets_dropped_segments": 63,
    "reader_past_the_lac": 10,
    "lac_of_one_disk": 1,
    "end_by_a_minority": 118,
    "end_is_the_least": 19,
    "closed_before_it_is_safe": 1,
}
BY_MODEL_ONLY = {  # what must come together is too rare; the model's name of it
    "mark_answers_by_itself": "a mark alone proves NotWritten",
    "owned_by_epoch_alone": "the epoch alone makes the owner",
    "fenced_node_answers_queued_blocks": "a repaired block answers the writer",
    "block_accepted_with_a_gap": "a block is taken though one before it is missing",
    "empty_disk_votes": "a lost disk votes",
    "cut_journal_votes": "a cut node votes as usual",
    "old_disk_votes": "a copy that lost a record votes as usual",
    "forgotten_blocks_count": "what a lost disk had acknowledged counts",
}
SEEDS = 100  # tried from there on: where the code has moved, another one finds it


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FOUND_BY_SEED)
def test_a_planted_bug_is_found(name: str) -> None:
    first, kind = FOUND_BY_SEED[name], all_mutants()[name].kind
    with planted(name):
        assert any(not run_seed(first + more, kind=kind).is_good for more in range(SEEDS))


def test_each_is_found_by_somebody() -> None:
    of_logs = {name for name, mutant in all_mutants().items() if mutant.kind != "stream"}
    assert {*FOUND_BY_SEED, *BY_MODEL_ONLY} == of_logs
    models = {mutant.name for mutant in (*OF_OBJECTS, *OF_QUORUMS, *OF_MANIFESTS)}
    assert set(BY_MODEL_ONLY.values()) <= models
