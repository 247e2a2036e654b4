"""Files and functions stay small: a limit that grows with nobody's need is no limit."""

from __future__ import annotations

import ast

from tests.architecture.source import functions, modules

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60  # docstrings do not count


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    doc = ast.get_docstring(node, clean=False)
    doc_lines = 0
    if doc is not None:
        statement = node.body[0]
        doc_lines = (statement.end_lineno or statement.lineno) - statement.lineno + 1
    return (node.end_lineno or node.lineno) - node.lineno + 1 - doc_lines


def test_files_are_at_most_500_lines() -> None:
    sizes = {module.shown: len(module.text.splitlines()) for module in modules()}
    assert sizes
    assert not {path: lines for path, lines in sizes.items() if lines > MAX_FILE_LINES}


def test_functions_are_at_most_60_lines() -> None:
    sizes = {
        f"{module.shown}:{node.lineno} {node.name}": _body_lines(node)
        for module in modules()
        for node in functions(module)
    }
    assert sizes
    assert not {name: lines for name, lines in sizes.items() if lines > MAX_FUNCTION_LINES}
