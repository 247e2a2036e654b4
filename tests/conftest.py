"""Rules for the whole suite: the slow tier, and no silent skips.

A skip is allowed at home and printed with its reason, which must say how to enable the test. Under
``WOODPECKER_NO_SKIPS=1`` (CI) every skip is a failure.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Generator

import pytest

pytest_plugins = ["woodpecker.testing.pytest_plugin"]  # as users say it

NO_SKIPS = os.environ.get("WOODPECKER_NO_SKIPS") == "1"
SLOW_LEFT_OUT = pytest.StashKey[int]()


def pytest_configure() -> None:
    """A suite that was started in the background inherits an ignored SIGINT; tests of Ctrl-C need it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tier as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
    config.stash[SLOW_LEFT_OUT] = len(slow)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not NO_SKIPS or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: a skip is a failure here (WOODPECKER_NO_SKIPS=1): {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under xdist only workers know what they left out: hand the count to the controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["slow_left_out"] = session.config.stash.get(SLOW_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    count = getattr(node, "workeroutput", {}).get("slow_left_out", 0)
    config.stash[SLOW_LEFT_OUT] = max(count, config.stash.get(SLOW_LEFT_OUT, 0))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    slow = config.stash.get(SLOW_LEFT_OUT, 0)
    if not skipped and not slow:
        return
    terminalreporter.section("not run, and how to run it")
    reasons = Counter(
        str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        for report in skipped
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4}  {reason.removeprefix('Skipped: ')}")
    if slow:
        terminalreporter.line(f"{slow:4}  slow tests: make test-slow")
