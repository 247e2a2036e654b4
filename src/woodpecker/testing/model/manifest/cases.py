"""Worlds of manifests in which the rules hold, and the mutants that must be caught."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from woodpecker.core import transitions
from woodpecker.core.collect import SealedItem
from woodpecker.core.commands import CloseSegment, Command, Owner, TrimLog
from woodpecker.core.manifest import Manifest
from woodpecker.testing.model import cases
from woodpecker.testing.model.manifest.model import ManifestModel
from woodpecker.testing.model.manifest.state import RULES, Answer, Setup


def _world(*cast: str, is_large: bool = False, blocks: int = 1, segments: int = 1) -> cases.World:
    setup = Setup(cast=cast, blocks=blocks, segments=segments)
    return cases.World(name=str(setup), make=partial(ManifestModel, setup), is_large=is_large)


def _mutant(name: str, setup: Setup, review: str = "-", /, **rules: object) -> cases.Mutant:
    changed = replace(RULES, **rules)  # type: ignore[arg-type]  # the names are those of Rules
    return cases.Mutant(name=name, make=partial(ManifestModel, setup, changed), review=review)


def owned_by_epoch(manifest: Manifest | None, command: Command) -> Answer:
    """Whoever has the right epoch owns the log, whichever incarnation of it."""
    owner = getattr(command, "owner", None)
    if manifest is not None and owner is not None and owner.epoch == manifest.epoch:
        same = Owner(log_id=manifest.log_id, epoch=manifest.epoch, token=manifest.token)
        command = replace(command, owner=same)  # type: ignore[arg-type]
    return transitions.apply(manifest, command)


def uses_ids_twice(manifest: Manifest | None, command: Command) -> Answer:
    """The id of a segment that was dropped goes to the next one."""
    after = transitions.apply(manifest, command)
    is_dropped = isinstance(command, CloseSegment) and command.end is None
    if is_dropped and isinstance(after, Manifest):
        return replace(after, next_segment_id=command.segment_id)  # type: ignore[union-attr]
    return after


def trims_anything(manifest: Manifest | None, command: Command) -> Answer:
    """A trim point may lie above what is closed and what anybody has seen."""
    if isinstance(command, TrimLog):
        command = replace(command, before=command.before + 1, visible=command.before + 1)
    return transitions.apply(manifest, command)


def never_took_effect(_: Manifest | None, __: Command) -> bool:
    """A CAS without an answer is taken for not applied."""
    return False


def is_no_longer_open(manifest: Manifest | None, command: Command) -> bool:
    """Whatever closed the segment, it is taken for my close."""
    if isinstance(command, CloseSegment) and manifest is not None:
        return all(s.id != command.segment_id or s.end for s in manifest.segments)
    return transitions.took_effect(manifest, command)


def deletes_what_is_not_named(manifest: Manifest, item: SealedItem) -> bool:
    """What the manifest does not name is garbage."""
    named = {
        (s.id, s.end.seq, s.end.digest) for s in manifest.segments if s.end and s.sealed is not None
    }
    return (item.segment_id, item.end_seq, item.digest) not in named


WORLDS = (
    _world("writer", "writer", blocks=1, segments=2),
    _world("writer", "writer", "sealer"),
    _world("writer", "writer", "trimmer", "dropper"),
    _world("writer", "sealer", "sealer", "collector"),
    _world("writer", "deleter", "creator"),
    _world("writer", "writer", "writer", is_large=True),
    _world("writer", "deleter", "creator", "writer", is_large=True),
    _world("writer", "writer", "sealer", "collector", is_large=True),
)

PAIR = Setup(cast=("writer", "writer"))
REBORN = Setup(cast=("writer", "deleter", "creator", "writer"))

MUTANTS = (
    _mutant("the token is the host's name", PAIR, "48 states", token=lambda _: "host"),
    _mutant("the epoch alone makes the owner", REBORN, "6", apply=owned_by_epoch),
    _mutant("deletion removes the record", REBORN, "22", deletion_removes_the_record=True),
    _mutant("an id is used twice", PAIR, "109 states", apply=uses_ids_twice),
    _mutant("an empty segment is dropped without a fence", PAIR, fences_empty_segments=False),
    _mutant("a CAS without an answer counts as not applied", PAIR, took_effect=never_took_effect),
    _mutant(
        "whoever closed it, it counts as mine",
        replace(PAIR, segments=2),
        took_effect=is_no_longer_open,
    ),
    _mutant(
        "a writer goes on in the segment that it tries to close",
        replace(PAIR, blocks=2),
        "by reasoning",
        writes_after_choosing_end=True,
    ),
    _mutant(
        "a conflict is taken for fencing",
        Setup(cast=("writer", "trimmer"), segments=2),
        conflict_is_fenced=True,
    ),
    _mutant(
        "a trim point above what was seen", Setup(cast=("writer", "trimmer")), apply=trims_anything
    ),
    _mutant(
        "what the manifest does not name is deleted",
        Setup(cast=("writer", "sealer", "collector")),
        "14",
        deletes=deletes_what_is_not_named,
    ),
)

MANIFEST = cases.Part(name="manifest", worlds=WORLDS, mutants=MUTANTS)
