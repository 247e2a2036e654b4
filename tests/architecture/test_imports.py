"""Who may import whom: import-linter's contracts, and what each package may use from outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.architecture.source import ROOT, SRC, Module, modules

BANNED_IN_PURE_CODE = {
    "asyncio", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip

PURE = (
    "woodpecker.core", "woodpecker.codec", "woodpecker.errors", "woodpecker.streaming.core",
    "woodpecker.streaming.codec", "woodpecker.streaming.frames", "woodpecker.streaming.requests",
    "woodpecker.streaming.ports", "woodpecker.streaming.settings",
)  # fmt: skip

# Third-party modules by the longest matching prefix; what has no row of its own may use none.
THIRD_PARTY = {
    "woodpecker": set[str](),
    "woodpecker.codec": {"xxhash", "msgspec", "zstandard", "lz4"},
    "woodpecker.config": {"msgspec"},
    "woodpecker.storage.cloud": {"obstore"},
    "woodpecker.metadata.etcd": {"grpc", "google"},
    "woodpecker.segments": {"xxhash"},
    "woodpecker.observability.prometheus": {"prometheus_client"},
    "woodpecker.logstore.metrics": {"prometheus_client"},
    "woodpecker.logstore.service": {"msgspec", "prometheus_client"},
    "woodpecker.observability.otel": {"opentelemetry"},
    "woodpecker.bench": {"obstore", "localbucket"},
    "woodpecker.streaming.codec": {"msgspec", "xxhash"},
    "woodpecker.streaming.node.cursor_data": {"msgspec"},
    "woodpecker.streaming.pages": {"msgspec", "prometheus_client"},
    "woodpecker.streaming.transport.grpc": {"google", "grpc", "grpc_reflection"},
    "woodpecker.cli": {"typer", "click", "rich", "msgspec", "uvloop"},
    "woodpecker.testing": {
        "pytest", "pytest_asyncio", "hypothesis", "aiohttp", "yarl", "multidict", "psutil",
        "cryptography", "obstore",
    },
}  # fmt: skip

ADAPTERS = {
    "woodpecker.storage": ("memory", "local", "cloud", "through_nodes"),
    "woodpecker.metadata": ("memory", "sqlite", "etcd", "objects"),
    "woodpecker.segments": ("file", "object", "quorum"),
    "woodpecker.rpc": ("tcp", "memory"),
    "woodpecker.streaming.transport": ("grpc", "memory"),
}


def _allowed_third_party(name: str) -> set[str]:
    # "cloud" also covers its helpers: cloud_s3.py, cloud/...
    return THIRD_PARTY[max((row for row in THIRD_PARTY if name.startswith(row)), key=len)]


def _is_pure(module: Module) -> bool:
    return module.name.startswith(PURE)


def _adapter_of(name: str) -> str | None:
    """The adapter a module belongs to: itself, a helper file ``<adapter>_x``, or inside it."""
    package, _, rest = name.rpartition(".")
    for port, adapters in ADAPTERS.items():
        for adapter in adapters:
            full = f"{port}.{adapter}"
            if name == full or name.startswith(f"{full}."):
                return full
            if package == port and rest.startswith(f"{adapter}_"):
                return full
    return None


def test_contracts_of_import_linter_hold(tmp_path: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-logo", "--cache-dir", tmp_path],
        cwd=ROOT, env={"PYTHONPATH": str(SRC), "NO_COLOR": "1"},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_outside_modules_are_those_allowed(module: Module) -> None:
    roots = {name.partition(".")[0] for name in module.imports()}
    third_party = roots - set(sys.stdlib_module_names) - {"woodpecker"}
    assert third_party <= _allowed_third_party(module.name)


def test_pure_code_imports_nothing_impure() -> None:
    wrong = {
        module.name: sorted(
            {name.partition(".")[0] for name in module.imports()} & BANNED_IN_PURE_CODE
        )
        for module in modules()
        if _is_pure(module)
    }
    assert wrong
    assert not {name: banned for name, banned in wrong.items() if banned}


def test_adapters_do_not_import_each_other() -> None:
    wrong = []
    for module in modules():
        mine = _adapter_of(module.name)
        if mine is None:
            continue
        others = {_adapter_of(name) for name in module.imports()} - {None, mine}
        wrong += [(module.name, other) for other in others]
    assert not wrong


def test_only_the_simulators_command_imports_the_test_kit() -> None:
    allowed = ("woodpecker.testing", "woodpecker.cli.sim", "woodpecker.bench.servers")
    assert not [
        module.name
        for module in modules()
        if not module.name.startswith(allowed)
        and any(name.startswith("woodpecker.testing") for name in module.imports())
    ]


LOAD_CORE = """
import importlib, pkgutil, sys, types
for name in ("woodpecker", "woodpecker.streaming"):
    package = types.ModuleType(name)  # stands in for __init__.py, which imports the clients
    package.__path__ = [sys.argv[1] + "/" + name.replace(".", "/")]
    sys.modules[name] = package
before = set(sys.modules)
core = importlib.import_module(sys.argv[2])
names = [info.name for info in pkgutil.walk_packages(core.__path__, sys.argv[2] + ".")]
for name in names:
    importlib.import_module(name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
ours = sorted(name for name in sys.modules if name.startswith("woodpecker."))
print(",".join(sorted(loaded)), "|", ",".join(ours))
"""


@pytest.mark.parametrize(
    ("package", "some"),
    [("woodpecker.core", "manifest"), ("woodpecker.streaming.core", "values")],
)
def test_loading_a_core_loads_nothing_impure(package: str, some: str) -> None:
    """What a file does not import may still come through another: look at what is really loaded."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOAD_CORE, str(SRC), package],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded, ours = (part.strip().split(",") for part in done.stdout.split("|"))
    assert f"{package}.{some}" in ours
    assert all(name.startswith(PURE) for name in set(ours) - {"woodpecker.streaming"})
    impure = {"asyncio", "logging", "random", "secrets", "socket", "sqlite3", "ssl", "threading"}
    assert not impure & set(loaded)
    assert set(loaded) <= {*sys.stdlib_module_names, "woodpecker"}
