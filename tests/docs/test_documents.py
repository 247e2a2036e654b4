"""The documents keep what they say: links lead somewhere, commands exist, Python parses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changes/*.md")])
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    """GitHub's anchors of the headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    broken = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = document.parent / path if path else document
        if not target.exists() or (
            anchor and anchor not in _anchors(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_documents_parses(document: Path) -> None:
    for language, source in FENCE.findall(document.read_text(encoding="utf-8")):
        if language == "python":
            compile(source, str(document), "exec")


def test_the_files_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    sources = ROOT / "src" / "woodpecker"
    named = sorted(set(re.findall(r"`([\w/]+\.py)`", text)))
    assert len(named) > 50
    assert [name for name in named if not any(sources.rglob(name))] == []


def test_the_readmes_first_commands_are_targets_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    language, first = FENCE.findall(readme)[0]
    commands = [line.partition("#")[0].strip() for line in first.splitlines()]
    assert (language, commands) == ("", ["make demo", "make test"])
    for command in commands:
        # the same words .ci/run looks for; make -n only says what it would do
        assert f"readme_command '{command}'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        subprocess.run(
            ["make", "-n", command.split()[1]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )


@pytest.mark.parametrize("name", [".ci/run"])
def test_scripts_are_valid_bash_and_executable(name: str) -> None:
    assert (ROOT / name).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / name], check=True)
