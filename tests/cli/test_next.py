"""Every command that makes something ends by naming the command that comes next, and that command exists."""

import ast
import re
from pathlib import Path

import pytest

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


def test_exporting_says_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from helpers.models import tiny_native_backbone

    tiny_native_backbone(seed=1).save_pretrained(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--format", "transformers", "--output", str(tmp_path / "out")]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"next: ladder finetune classification --model {tmp_path / 'model'}")
