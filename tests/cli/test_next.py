"""Every command that makes something ends by naming the command that comes next, and that command exists."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from helpers.pictures import natural_image
from ladder_training.cli.commands import COMMANDS
from ladder_training.cli.entry import main

ROOT = Path(__file__).parents[2] / "training"
# Files that print the last words of the commands. `ladder explore` ends when its page is closed.
LAST_WORDS = {
    "pretrain": "pretraining/run.py",
    "evaluate": "cli/evaluate.py",
    "finetune": "cli/finetune.py",
    "embed": "cli/embed.py",
    "compare": "compare/command.py",
    "export": "cli/export.py",
    "import": "cli/import_weights.py",
    "card": "cli/publish.py",
    "report": "cli/publish.py",
    "push": "cli/publish.py",
    "inspect": "cli/inspect_data.py",
    "prepare": "preparation/command.py",
    "demo": "cli/demo.py",
}


def test_every_command_is_listed() -> None:
    assert set(COMMANDS) - set(LAST_WORDS) == {"explore"}


@pytest.mark.parametrize("name", LAST_WORDS)
def test_the_command_named_next_exists(name: str) -> None:
    tree = ast.parse((ROOT / LAST_WORDS[name]).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    named = [found for text in texts for found in re.findall(r"next: ladder (\w+)|^ladder (\w+) ", text)]
    assert any("next: " in text for text in texts)
    assert all((first or second) in COMMANDS for first, second in named) and named


@pytest.mark.parametrize("labelled", [False, True])
def test_the_command_named_after_pretraining_works(labelled: bool, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        path = Path("my photos", *([f"class{number % 2}"] if labelled else []), f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(natural_image(40, 40, seed=number)).save(path)
    words = "--output run --backbone resnet-tiny --image_size 32 --batch_size 8 --workers 0 --monitor_steps 0"
    assert main(["pretrain", "--dataset", "my photos", *words.split(), "--epochs", "1", "--use_cpu", "true"]) == 0
    said = capsys.readouterr().out
    assert "steps      5 (40 images, 1 passes)" in said and "step 5/5" in said
    last = said.strip().splitlines()[-1]
    assert last.startswith("next: ladder evaluate knn" if labelled else "next: ladder embed")
    assert main(shlex.split(last.removeprefix("next: ladder ").partition("  (")[0])) == 0


def test_a_plan_of_passes_counts_whole_batches_as_training_does(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(44):
        Path("photos").mkdir(exist_ok=True)
        Image.fromarray(natural_image(40, 40, seed=number)).save(f"photos/{number}.png")
    words = "--output run --backbone resnet-tiny --image_size 32 --batch_size 8 --workers 0 --use_cpu true --epochs 2"
    assert main(["pretrain", "--data", "photos", *words.split()]) == 0
    said = capsys.readouterr().out
    assert "steps      10 (80 images" in said and "step 10/10" in said


def test_exporting_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from helpers.models import tiny_native_backbone

    tiny_native_backbone(seed=1).save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--format", "transformers", "--output", str(tmp_path / "out")]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"next: ladder finetune classification --model {tmp_path / 'model'}")
