"""State of the manifest model: one record changed by compare-and-swap, those who change it, and storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from woodpecker.core import transitions
from woodpecker.core.collect import Collector, SealedItem
from woodpecker.core.commands import Command, Owner, Refusal
from woodpecker.core.manifest import Manifest

Answer = Manifest | Refusal


def _deletes(manifest: Manifest, item: SealedItem) -> bool:
    return Collector(manifest).is_garbage(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Each rule that the model can be run without."""

    apply: Callable[[Manifest | None, Command], Answer] = transitions.apply
    took_effect: Callable[[Manifest | None, Command], bool] = transitions.took_effect
    token: Callable[[str], str] = lambda name: f"token of {name}"  # of an attempt to open
    writes_after_choosing_end: bool = False
    conflict_is_fenced: bool = False
    deletion_removes_the_record: bool = False
    deletes: Callable[[Manifest, SealedItem], bool] = _deletes
    fences_empty_segments: bool = True


RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Who takes part. A writer opens the log, writes ``blocks`` blocks a segment, in ``segments`` segments."""

    cast: tuple[str, ...]
    blocks: int = 1
    segments: int = 1

    def __str__(self) -> str:
        return f"{', '.join(self.cast)}; {self.blocks} blocks in each of {self.segments} segments"


class Change(NamedTuple):
    """One command on its way into the record, as ``metadata/catalog.py`` carries it.

    ``version``, ``after``: what was sent last, under which condition; ``is_sent``: its answer is awaited.
    """

    command: int
    version: int | None = None
    after: int | None = None
    is_sent: bool = False


class Me(NamedTuple):
    """Who an opener is."""

    log_id: str
    epoch: int
    token: str

    def owner(self) -> Owner:
        """As commands name it."""
        return Owner(log_id=self.log_id, epoch=self.epoch, token=self.token)


class Actor(NamedTuple):
    """Somebody with a part to play. ``at``: the next line of it; ``change``: a CAS under way."""

    at: str = "start"
    change: Change | None = None
    manifest: int | None = None  # as read or written last
    me: Me | None = None
    segment: int | None = None  # that it has open
    base: int = 0  # seq where that begins
    written: int = 0  # blocks in it
    opened: int = 0  # segments
    listed: frozenset[SealedItem] = frozenset()


class Cell(NamedTuple):
    """Storage of one segment: what is written under its keys. ``held`` blocks, all acknowledged."""

    log_id: str
    segment: int
    writer: str
    base: int
    held: int
    is_fenced: bool


class Sent(NamedTuple):
    """A CAS in the network: it may arrive at any time, whoever waits for it."""

    version: int
    after: int


STALE = -1
"""A version that has passed: nothing sent on it can take effect any more."""


class World(NamedTuple):
    """Everything. ``landed``: CASes that took effect, as long as somebody waits to hear of it."""

    actors: tuple[Actor, ...]
    manifest: int | None = None
    version: int = 0
    sent: frozenset[Sent] = frozenset()
    landed: frozenset[Sent] = frozenset()
    cells: tuple[Cell, ...] = ()
    objects: frozenset[SealedItem] = frozenset()


class Values:
    """Manifests and commands by number."""

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.commands: list[Command] = []
        self._numbers: dict[str, int] = {}

    def manifest(self, manifest: Manifest) -> int:
        """Its number."""
        return self._number(manifest, self.manifests)

    def command(self, command: Command) -> int:
        """Its number."""
        return self._number(command, self.commands)

    def _number(self, value: object, values: list) -> int:  # type: ignore[type-arg]
        text = repr(value)  # they hold dicts, and so have no hash
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(values)
            values.append(value)
        return number
