"""Every line of shell in README, docs and CONTRIBUTING: checked here by its kind, or marked why it is not.

`ladder` commands go through the real parser with every option (what they do is tested in tests/cli and the rooms they
lead to), scripts must exist and know their options, targets of make and extras of pip must be there.
"""

import re
import shlex
from pathlib import Path

import pytest

from helpers.paths import ROOT
from ladder_training.cli.commands import Command
from ladder_training.cli.entry import main

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "model_cards" / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if DOCS / "study" not in page.parents]
NOT_RUN = {  # the beginning of a line -> why no test runs it
    "#SBATCH": "read by SLURM",
    "#!": "names the shell",
    "export HOST0=": "needs a SLURM cluster",
    "if [ $? -eq 143 ]": "needs a SLURM cluster",
    "pre-commit": "changes the clone that it runs in",
    "for name in": "hours of benchmarks; each script has a quick variant that is tested",
}


def lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks; one that ends in a backslash goes on."""
    blocks = re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.sub(r"\s*\\\n\s*", " ", "\n".join(blocks)).splitlines()
    kept = [line if line.startswith(("#SBATCH", "#!")) else re.sub(r"(^|\s)#\s.*$", "", line).strip() for line in found]
    return [line for line in kept if line]


EVERY = [(str(page.relative_to(ROOT)), line) for page in PAGES for line in lines(page)]


def problem(line: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is wrong with a line; None if it is checked and right, or marked."""
    if any(line.startswith(beginning) for beginning in NOT_RUN):
        return None
    if re.match(r"(srun )?(bash -c '|accelerate launch |ladder )", line):
        return _command(line, monkeypatch)
    if found := re.match(r"(?:\S*/)?python3? (?!-)(\S+\.py)(.*)", line):
        return _script(found[1], found[2])
    if re.match(r"(?:\S*/)?python3? -m pytest", line):
        paths = [word for word in line.split() if word.startswith("tests")]
        return next((f"no {path}" for path in paths if not (ROOT / path).exists()), None)
    if line.split()[0] == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        asked = [word for word in line.split()[1:] if "=" not in word]
        return next((f"no target {word}" for word in asked if not re.search(rf"(?m)^{word}:", targets)), None)
    if line.startswith("pip install"):
        setup = (ROOT / "setup.py").read_text(encoding="utf-8")
        extras = re.findall(r"\[([\w,]+)\]", line)
        return next((f"no extra {extra}" for extra in extras if f'"{extra}": ' not in setup), None)
    if re.match(r"bash \S+|\.?\S*\.sh\b", line):
        script = next(word for word in line.split() if word.endswith(".sh"))
        return None if (ROOT / script).is_file() else f"no {script}"
    return "of no known kind; check it here, or say in NOT_RUN why it is not"


def _command(line: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    words = line.split("-m ladder_training ")[-1] if "-m ladder_training" in line else line.split("ladder ", 1)[1]
    taken: list[object] = []
    monkeypatch.setattr(Command, "function", lambda self: lambda options: taken.append(options) or 0)
    code = main(shlex.split(words.rstrip("'")))
    return None if code == 0 and len(taken) == 1 else f"exit code {code}"


def _script(name: str, rest: str) -> str | None:
    path = ROOT / name
    if not path.is_file():
        return f"no {name}"
    known = path.read_text(encoding="utf-8") + (ROOT / "benchmarks" / "report.py").read_text(encoding="utf-8")
    options = re.findall(r"(--[a-z_-]+)", rest)
    return next((f"{name} has no {option}" for option in options if option not in known), None)


@pytest.mark.parametrize(("page", "line"), EVERY, ids=[f"{page}: {line[:50]}" for page, line in EVERY])
def test_a_line_is_right(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem(line, monkeypatch) is None


def test_the_lines_are_found() -> None:
    assert len(EVERY) >= 50
    assert {page for page, _ in EVERY} >= {"README.md", "CONTRIBUTING.md", "docs/scale.md", "docs/study.md"}


@pytest.mark.parametrize(
    "line",
    [
        "ladder pretrain --no_such_option 3",
        "accelerate launch -m ladder_training pretrain small --no_such_option 3",
        "python benchmarks/no_such.py",
        "python benchmarks/step.py --no_such_option",
        "make no_such_target",
        "pip install '.[no_such_extra]'",
        "curl https://example.org",
    ],
)
def test_a_planted_mistake_is_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problem(line, monkeypatch) is not None
