"""The README: its Python runs as written, and its commands have the options that they use."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from helpers.paths import ROOT
from ladder_training.cli.entry import main
from ladder_training.config.recipe import read_recipe

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.splitlines()
    if line.startswith("ladder ")
]


@pytest.fixture(scope="module")
def run_of_the_readme(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `runs/mine` is a finished run of two steps."""
    folder = tmp_path_factory.mktemp("readme")
    words = "--max_steps 2 --per_device_train_batch_size 16 --monitor_steps 0 --warmup_steps 1 --disable_tqdm true"
    assert main(["pretrain", "digits", "--output", str(folder / "runs/mine"), *words.split()]) == 0
    return folder


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs_as_written(code: str, run_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_of_the_readme)
    shutil.rmtree("runs/python", ignore_errors=True)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_every_python_block_was_found() -> None:
    assert len(PYTHON) == README.count("```python") == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_options_they_use(command: str, capsys: pytest.CaptureFixture) -> None:
    words = shlex.split(command)[1:]
    asked = [words[0], *([words[1]] if words[0] == "evaluate" else []), "--help"]
    assert main(asked) == 0
    known = capsys.readouterr().out
    inherited = {"--max_steps"}  # of TrainingArguments, which the short help names below our own
    for word in words:
        if word.startswith("--"):
            assert word in known or word in inherited, f"{command}: {word} is not in the command's help"


def test_commands_cover_what_the_command_line_has() -> None:
    assert {command.split()[1] for command in COMMANDS} >= {"pretrain", "inspect", "evaluate", "export", "push"}


def test_the_recipe_is_the_packaged_one() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert [read_recipe("digits").text.strip()] == [block.strip() for block in blocks]


def test_local_links_exist() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", README):
        assert (ROOT / target).exists(), target
