"""The one loop that changes manifests: what it says when the store does not answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from woodpecker.core.commands import AlterLog, CreateLog
from woodpecker.core.manifest import Options
from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.metadata.catalog import Catalog
from woodpecker.metadata.memory import MemoryMetadata, MemoryRecords
from woodpecker.runtime.runtime import SystemRuntime

ID = "0" * 31 + "1"


class Failing(MemoryMetadata):
    """Every put first asks ``before``, which may raise."""

    before: Callable[[], None] = staticmethod(lambda: None)

    async def put(self, key: str, value: bytes, *, expect: str | None) -> str:
        self.before()
        return await super().put(key, value, expect=expect)


async def make() -> tuple[Failing, Catalog]:
    runtime = SystemRuntime()
    store = Failing(runtime, MemoryRecords(), name="m")
    catalog = Catalog(store, runtime)
    await catalog.change(
        "a", CreateLog(name="a", log_id=ID, now_ms=0, options=Options(), attributes={})
    )
    return store, catalog


def alter(text: str) -> AlterLog:
    return AlterLog(log_id=ID, options=Options(), attributes={"text": text}, storage=None)


async def test_a_change_that_was_never_accepted_is_unavailable_not_unknown() -> None:
    store, catalog = await make()

    def locked() -> None:
        raise Unavailable("locked; nothing was changed")

    store.before = locked
    with pytest.raises(Unavailable):
        await catalog.change("a", alter("mine"), timeout_ms=50)


async def test_one_lost_answer_makes_the_outcome_unknown() -> None:
    store, catalog = await make()
    answers = iter([OutcomeUnknown("cut")])

    def first_lost() -> None:
        raise next(answers, Unavailable("away"))

    store.before = first_lost
    with pytest.raises(OutcomeUnknown):
        await catalog.change("a", alter("mine"), timeout_ms=50)


async def test_a_version_that_moved_without_the_effect_settles_the_lost_answer() -> None:
    store, catalog = await make()
    others = Catalog(MemoryMetadata(SystemRuntime(), store._records, name="m"), SystemRuntime())
    answers = iter([OutcomeUnknown("cut")])

    def first_lost() -> None:
        raise next(answers, Unavailable("away"))

    store.before = first_lost
    load = catalog.load
    count = 0

    async def moving_load(name: str):
        nonlocal count
        count += 1
        if count == 2:
            await others.change("a", alter("theirs"))
        return await load(name)

    catalog.load = moving_load  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await catalog.change("a", alter("mine"), timeout_ms=50)
