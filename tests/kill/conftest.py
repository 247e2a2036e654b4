"""The short runs with faults have minutes of their own (``make kill-short``), not those of ``make test``."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "kill_short" in config.getoption("markexpr"):
        return
    left_out = [item for item in items if item.get_closest_marker("kill_short")]
    items[:] = [item for item in items if not item.get_closest_marker("kill_short")]
    config.hook.pytest_deselected(items=left_out)
