"""The probe of a store's conditions says what the store cannot do, never that it is away for ever."""

from __future__ import annotations

import pytest

from woodpecker.errors import OutcomeUnknown, Unavailable
from woodpecker.storage.memory import MemoryObjectStore
from woodpecker.storage.probing import probe_feature


class Cutting(MemoryObjectStore):
    """The connection is cut in the middle of every create."""

    async def create(self, key, data):
        raise OutcomeUnknown("cut")


async def test_a_probe_without_a_definite_answer_says_unavailable_not_unfit() -> None:
    with pytest.raises(Unavailable, match="no definite answer"):
        await probe_feature(Cutting(), "create_if_absent", "token")
