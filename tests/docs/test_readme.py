"""The README: its Python runs as written, and its commands have the options that they use."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.paths import ROOT
from helpers.pictures import panels
from ladder_training.cli.commands import COMMANDS as COMMAND_LINE
from ladder_training.cli.entry import main

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


def run(code: str) -> dict[str, Any]:
    """Run a block of the README in the current folder and return its names."""
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_folder_of_a_run_is_what_load_says(run_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_of_the_readme)
    native, ours = run(PYTHON[1]), run(PYTHON[3])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = native["backbone"](images).feature_maps
        named = ours["features"].feature_maps(images)
        assert list(named) == ["stage1", "stage2", "stage3", "stage4"] and len(maps) == 4
        for got, wanted in zip(maps, named.values(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
        pooled = native["model"](images).pooler_output.flatten(1)
        torch.testing.assert_close(pooled, maps[-1].mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
        trained = ours["training"].feature_maps(images)
    assert all(torch.allclose(trained[stage], named[stage], rtol=1e-4, atol=1e-5) for stage in named)
    assert ours["training"].target is not None


def test_the_weights_are_in_the_detector(run_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run_of_the_readme)
    names = run(PYTHON[2])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    inside = names["detector"].eval().model.backbone.model
    with torch.no_grad():
        wanted = names["backbone"].eval()(images).feature_maps
        for got, expected in zip(inside(images).feature_maps, wanted, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_the_python_of_training_runs(run_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of its steps; the whole is a slow test."""
    monkeypatch.chdir(run_of_the_readme)
    shutil.rmtree("runs/python", ignore_errors=True)
    assert '"max_steps": 600, "warmup_steps": 20' in PYTHON[4]
    run(PYTHON[4].replace('"max_steps": 600, "warmup_steps": 20', '"max_steps": 2, "warmup_steps": 1'))
    assert (Path("runs/python") / "pretraining" / "config.json").is_file()


@pytest.mark.slow
def test_the_python_of_training_makes_features_better(
    run_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """What its comment says, by its own tables: the kNN accuracy of every stage above that of the untrained network."""
    monkeypatch.chdir(run_of_the_readme)
    shutil.rmtree("runs/python", ignore_errors=True)
    run(PYTHON[4])
    rows = re.findall(r"^(stage\d|mean) +(0\.\d+)", capsys.readouterr().out, flags=re.MULTILINE)
    before, after = (dict(rows[start : start + 5]) for start in (0, 5))
    assert before.keys() == after.keys() and len(before) == 5
    assert f"their mean rises from {before['mean'][1:5]} to " in README
    assert float(after["mean"]) > float(before["mean"]) + 0.03
    assert all(float(after[stage]) > float(before[stage]) for stage in before)


def test_every_python_block_was_found() -> None:
    assert len(PYTHON) == README.count("```python") == 5


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


def test_the_first_snippet_draws_the_picture_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that holds only what it names: the backbone in the box."""
    (tmp_path / "model_cards").symlink_to(ROOT / "model_cards")
    monkeypatch.chdir(tmp_path)
    names = run(PYTHON[0])
    assert names["model"].num_parameters() == 1_230_240
    after = README.split(PYTHON[0])[1]
    shown = re.search(r"!\[[^\]]+\]\(([^)]+)\)", after)[1]
    drawn, committed = (panels(Image.open(path)) for path in ("look/pca.png", ROOT / shown))
    assert drawn.shape == committed.shape == (10, 24, 24, 3)
    # matplotlib 3.9 places the panels two pixels higher than 3.11 and magnifies them otherwise: 2.5 at most. Components
    # in another order change a panel by 8 and more.
    assert np.abs(drawn - committed).mean(axis=(1, 2, 3)).max() < 5


def test_the_results_are_those_of_the_study() -> None:
    """Each row stands in a table of 96 pixels on docs/results.md, which is made from the committed cells."""
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("<!-- table imagenette64")[0]
    rows = re.findall(r"^\| [^|]+ \| (\d+\.\d ± \d+\.\d) \| (\d+\.\d ± \d+\.\d) \| ([^|]+) \|$", README, re.MULTILINE)
    assert len(rows) >= 6
    assert [row for row in rows if f"| {' | '.join(row)} |" not in page] == []


def test_it_is_short_and_its_pictures_have_words() -> None:
    assert len(README.splitlines()) <= 200
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README)
    assert len(pictures) == 2
    assert all(len(words) > 20 for words, _ in pictures)


def test_the_map_of_the_commands_is_complete() -> None:
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| `ladder "))
    told = set(re.findall(r"`ladder (\w+)`", rows))
    assert told == set(COMMAND_LINE) - {"demo"}


def test_local_links_exist() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", README):
        assert (ROOT / target).exists(), target
