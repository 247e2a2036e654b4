"""What users and adapters rely on has a docstring: errors, ports, core modules, the public names."""

from __future__ import annotations

import ast
import inspect

import pytest
from tests.architecture.source import Module, modules

import woodpecker
from woodpecker import errors

CORES = ("woodpecker.core", "woodpecker.streaming.core")


@pytest.mark.parametrize("error", errors.ALL_ERRORS, ids=lambda error: error.__name__)
def test_error_says_when_it_is_raised(error: type[errors.WoodpeckerError]) -> None:
    assert error.__doc__
    assert "code" in vars(error), "a code of its own"


def test_every_error_class_is_listed_with_a_code_of_its_own() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.WoodpeckerError)
    } - {errors.WoodpeckerError}
    assert defined == set(errors.ALL_ERRORS)
    assert len({error.code for error in errors.ALL_ERRORS}) == len(errors.ALL_ERRORS)


def _undocumented(module: Module, *, methods: bool) -> list[str]:
    missing = [] if ast.get_docstring(module.tree) else [module.shown]
    for node in module.tree.body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        parts: list[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = [node]
        if methods:
            parts += [
                item
                for item in node.body
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                and not item.name.startswith("_")
            ]
        missing += [
            f"{module.shown}:{part.lineno} {part.name}"
            for part in parts
            if not ast.get_docstring(part)
        ]
    return missing


def test_every_port_method_is_documented() -> None:
    ports = [module for module in modules() if module.path.name in {"base.py", "ports.py"}]
    assert len(ports) >= 3
    assert not [missing for port in ports for missing in _undocumented(port, methods=True)]


def test_every_core_module_and_its_public_classes_are_documented() -> None:
    core = [module for module in modules() if module.name.startswith(CORES)]
    assert core
    assert not [missing for module in core for missing in _undocumented(module, methods=False)]


def test_every_public_name_is_documented() -> None:
    names = [name for name in vars(woodpecker) if not name.startswith("_")]
    things = [(name, getattr(woodpecker, name)) for name in names]
    callables = [(n, t) for n, t in things if inspect.isclass(t) or inspect.isfunction(t)]
    assert not [name for name, thing in callables if not inspect.getdoc(thing)]
