"""Maps: versions, changes, digests."""

from __future__ import annotations

from dataclasses import replace

from woodpecker.streaming.core.assignment_map import EMPTY_MAP, applied
from woodpecker.streaming.frames import MapEntry, MapVersion


def entry(name: str, term: int) -> MapEntry:
    return MapEntry(pchannel=name, term=term, node="n", incarnation="i", address="a", serving=True)


def version(counter: int, epoch: int = 1) -> MapVersion:
    return MapVersion(epoch=epoch, counter=counter)


ONE = EMPTY_MAP.changed(version(1), [entry("a", 1), entry("b", 1)])
TWO = ONE.changed(version(2), [entry("b", 2), entry("c", 1)], ["a"])


def test_the_digest_is_of_what_is_there_not_of_how_it_came() -> None:
    assert TWO.digest == EMPTY_MAP.changed(version(9), [entry("c", 1), entry("b", 2)]).digest
    assert TWO.digest != ONE.digest
    assert ONE.changed(version(3), [], ["a", "b", "no"]).digest == EMPTY_MAP.digest


def test_changes_and_whole_maps_lead_to_the_same() -> None:
    assert applied(EMPTY_MAP, ONE.whole()) == ONE
    assert applied(ONE, TWO.since(ONE)) == TWO
    assert applied(ONE, TWO.whole()) == TWO


def test_what_is_not_newer_is_dropped() -> None:
    assert applied(TWO, ONE.whole()) is TWO
    assert applied(TWO, TWO.whole()) is TWO
    newer = EMPTY_MAP.changed(version(1, epoch=2), [])
    assert applied(TWO, newer.whole()) == newer
    assert applied(newer, TWO.whole()) is newer


def test_what_does_not_fit_asks_for_the_whole() -> None:
    assert applied(EMPTY_MAP, TWO.since(ONE)) is None
    assert applied(ONE, replace(TWO.since(ONE), digest="0" * 32)) is None
