"""The pages of the documentation: their commands can be given, their Python runs, their links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from ladder_training.cli.commands import COMMANDS, Command
from ladder_training.cli.entry import main

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "cells" not in path.parts and DOCS / "study" not in path.parents)
NOT_RUN = {"theory.md"}  # its blocks are mathematics and the output of a script


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path) -> list[str]:
    """The `ladder` commands of a page; a line that ends in a backslash goes on."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.startswith("ladder ")]


COMMANDS_OF_PAGES = [
    pytest.param(command, id=f"{page.relative_to(DOCS)}:{command[:60]}") for page in PAGES for command in commands(page)
]
PYTHON_OF_PAGES = [
    pytest.param(code, id=f"{page.relative_to(DOCS)}:{number}")
    for page in PAGES
    if page.name not in NOT_RUN
    for number, code in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("command", COMMANDS_OF_PAGES)
def test_a_command_is_one_that_the_parser_takes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(Command, "function", lambda self: lambda options: taken.append(options) or 0)
    assert main(shlex.split(command)[1:]) == 0
    assert len(taken) == 1


def test_there_are_commands_and_python_to_check() -> None:
    assert len(COMMANDS_OF_PAGES) >= 20
    assert len(PYTHON_OF_PAGES) >= 2


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `runs/digits` is a finished run of two steps."""
    folder = tmp_path_factory.mktemp("pages")
    words = "--max_steps 2 --per_device_train_batch_size 16 --monitor_steps 0 --warmup_steps 1 --disable_tqdm true"
    assert main(["pretrain", "digits", "--output", str(folder / "runs/digits"), *words.split()]) == 0
    return folder


@pytest.mark.parametrize("code", PYTHON_OF_PAGES)
def test_python_runs_as_written(code: str, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits_run)
    exec(compile(code, "page", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_local_links_lead_somewhere(page: Path) -> None:
    generated = {DOCS / "reference" / "commands.md", DOCS / "reference" / "recipes.md"}
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        assert path.exists() or path in generated, f"{page}: {target}"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [page for page in PAGES if str(page.relative_to(DOCS)) not in navigation]
    assert missing == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    subprocess.run(["make", "-C", str(ROOT), "types-links"], check=True, capture_output=True)
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    assert all(f"ladder {name}" in page for name in COMMANDS)
