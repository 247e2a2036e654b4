"""Who lives: sessions, words, questions, mass loss."""

from __future__ import annotations

from dataclasses import replace

from woodpecker.streaming.core import fleet
from woodpecker.streaming.core.fleet import Fleet, Standing
from woodpecker.streaming.core.records import NodeRecord

TTL_MS = 10_000.0


class Watch:
    """A coordinator that looks each second."""

    def __init__(self, count: int) -> None:
        self.now_ms = 0.0
        self.fleet = Fleet()
        self.records = {
            f"n{i}": NodeRecord(node=f"n{i}", incarnation="a", address="") for i in range(count)
        }
        self.beating = set(self.records)
        self.answering = set(self.records)
        self.pass_s(1)

    def pass_s(self, seconds: int, *, is_blind: bool = False) -> None:
        for _ in range(seconds):
            self.now_ms += 1_000
            for name in self.beating:
                record = self.records[name]
                self.records[name] = replace(record, beat=record.beat + 1)
            if not is_blind:
                seen = {n: (record, str(record.beat)) for n, record in self.records.items()}
                self.fleet = fleet.looked_at(self.fleet, seen, self.now_ms, TTL_MS)
            for name, record in self.records.items():
                if name in self.answering:
                    self.fleet = fleet.heard(self.fleet, name, record.incarnation, self.now_ms)
                else:
                    self.fleet = fleet.unreached(
                        self.fleet, name, record.incarnation, self.now_ms, self.now_ms, TTL_MS
                    )

    def standing(self, name: str, incarnation: str = "a") -> Standing:
        return self.fleet.standing(name, incarnation, self.now_ms, TTL_MS)

    def gone(self) -> set[str]:
        return {name for name in self.records if self.standing(name) is Standing.GONE}

    def lose(self, *names: str) -> None:
        self.beating -= set(names)
        self.answering -= set(names)


def test_before_anybody_has_looked_nobody_is_gone() -> None:
    before = Fleet()
    assert before.standing("n0", "a", 0.0, TTL_MS) is Standing.UNSURE
    after = fleet.looked_at(before, {}, 0.0, TTL_MS)
    assert after.standing("n0", "a", 0.0, TTL_MS) is Standing.GONE


def test_who_beats_or_answers_lives() -> None:
    watch = Watch(3)
    watch.beating.discard("n0")
    watch.answering.discard("n1")
    watch.pass_s(60)
    assert [watch.standing(f"n{i}") for i in range(3)] == [Standing.LIVE] * 3


def test_a_silent_session_is_asked_before_it_is_given_up() -> None:
    watch = Watch(3)
    watch.lose("n0")
    watch.pass_s(9)
    assert watch.standing("n0") is Standing.LIVE
    watch.pass_s(3)
    assert watch.standing("n0") is Standing.GONE
    watch.answering.add("n0")
    watch.pass_s(1)
    assert watch.standing("n0") is Standing.LIVE, "it was only gone for a while"


def test_a_list_that_lacks_nodes_is_no_proof_of_their_death() -> None:
    """As of a metadata store that was reset, or a record of a newer format."""
    watch = Watch(3)
    records = watch.records
    watch.records, watch.beating = {"n1": records["n1"]}, set()
    watch.pass_s(1)
    assert [watch.standing(name) for name in records] == [Standing.LIVE] * 3
    watch.records = records
    watch.pass_s(1)
    assert [watch.standing(name) for name in records] == [Standing.LIVE] * 3
    watch.answering = {"n1"}
    for _ in range(20):
        watch.records = {"n1": records["n1"]}
        watch.pass_s(1)
        for name in ("n0", "n2"):
            watch.fleet = fleet.unreached(
                watch.fleet, name, "a", watch.now_ms, watch.now_ms, TTL_MS
            )
    assert [watch.standing(name) for name in records] == [
        Standing.GONE, Standing.LIVE, Standing.GONE,
    ]  # fmt: skip
    assert list(watch.fleet.nodes) == ["n1"], "nor are they shown"


def test_another_process_of_its_name_and_a_goodbye_count_at_once() -> None:
    watch = Watch(3)
    watch.records["n0"] = replace(watch.records["n0"], incarnation="b")
    watch.records["n1"] = replace(watch.records["n1"], is_up=False)
    watch.pass_s(1)
    assert watch.standing("n0", "a") is Standing.GONE and watch.standing("n0", "b") is Standing.LIVE
    assert watch.standing("n1") is Standing.GONE and watch.standing("nobody") is Standing.GONE


def test_more_than_half_gone_at_once_is_not_believed_for_a_ttl() -> None:
    watch = Watch(4)
    watch.lose("n0", "n1", "n2")
    watch.pass_s(12)
    assert watch.gone() == set(), "it may be we who hear nothing"
    watch.pass_s(5)
    assert watch.gone() == {"n0", "n1", "n2"}


def test_mass_loss_that_is_over_has_no_consequences() -> None:
    watch = Watch(4)
    everybody = ("n0", "n1", "n2", "n3")
    watch.lose(*everybody)
    for _ in range(12):
        watch.pass_s(1)
        assert watch.gone() == set()
    watch.answering.update(everybody)
    watch.pass_s(30)
    assert watch.gone() == set()


def test_those_long_dead_do_not_count_for_mass_loss() -> None:
    watch = Watch(5)
    watch.lose("n0", "n1")
    watch.pass_s(20)
    assert watch.gone() == {"n0", "n1"}
    watch.lose("n2")
    watch.pass_s(12)
    assert watch.gone() == {"n0", "n1", "n2"}


def test_after_an_outage_of_metadata_sessions_begin_anew() -> None:
    watch = Watch(3)
    watch.lose("n0")
    watch.pass_s(60, is_blind=True)
    watch.pass_s(5)
    assert watch.gone() == set()
    watch.pass_s(8)
    assert watch.gone() == {"n0"}


def test_who_may_be_given_something() -> None:
    watch = Watch(5)
    records = watch.records
    records["n0"] = replace(records["n0"], draining=True)
    records["n1"] = replace(records["n1"], frozen=True)
    records["n2"] = replace(records["n2"], features_max=0, features_min=0)
    watch.answering.discard("n3")
    watch.pass_s(5)
    fit = [name for name in records if watch.fleet.is_fit(name, watch.now_ms, 1)]
    assert fit == ["n4"]
    watch.fleet = fleet.heard(watch.fleet, "n4", "a", watch.now_ms, clock_off_us=-400_000_000)
    assert not watch.fleet.is_fit("n4", watch.now_ms, 1)


def believes_all_silence(fleet_: Fleet) -> Fleet:
    """The mutant: nobody looks at how many are gone."""
    return replace(fleet_, mass_ms=None)


def test_mass_loss_believed_is_caught() -> None:
    watch = Watch(4)
    watch.lose("n0", "n1", "n2")
    for _ in range(12):
        watch.pass_s(1)
        watch.fleet = believes_all_silence(watch.fleet)
    assert watch.gone() != set(), "what the rule prevents"


def test_a_coordinator_whose_own_clock_is_wrong_still_gives_nodes_work() -> None:
    hours_us = 3 * 3_600_000_000
    for count in (2, 3, 4):
        watch = Watch(count)
        for name in watch.records:
            watch.fleet = fleet.heard(watch.fleet, name, "a", watch.now_ms, clock_off_us=hours_us)
        assert all(watch.fleet.is_fit(name, watch.now_ms, 1) for name in watch.records)
        watch.fleet = fleet.heard(watch.fleet, "n0", "a", watch.now_ms, clock_off_us=0)
        assert watch.fleet.is_fit("n1", watch.now_ms, 1) == (count > 2)  # most say so


def test_a_coordinator_on_the_node_whose_clock_is_wrong_has_no_second_vote() -> None:
    watch = Watch(3)
    for name, off_us in (("n0", 0), ("n1", 3 * 3_600_000_000), ("n2", 3 * 3_600_000_000)):
        watch.fleet = fleet.heard(watch.fleet, name, "a", watch.now_ms, clock_off_us=off_us)
    fit = [name for name in watch.records if watch.fleet.is_fit(name, watch.now_ms, 1)]
    assert fit == ["n1", "n2"], "n0 opens nothing that the others have served"
