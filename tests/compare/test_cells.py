"""Cells are read back by every later version: the fixture was written by the version that made docs/study."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ladder_training.cli.entry import main
from ladder_training.compare import command

OLD = Path(__file__).parents[1] / "fixtures" / "old_comparison"
# The command that wrote the fixture's cells (docs/study.md), with one of its eight short runs.
WORDS = """compare imagenette64.yaml --dataset runs/dev/imagenette128 --level_losses both both both both
--level_weights 1 1 1 1 --optimizer lars --learning_rate 0.8 --max_steps 100 --warmup_steps 10 --monitor_steps 50
--methods byol ladder --seeds 42 --evaluations evaluations.yaml --gradients false --output . --stability true
--stability_steps 100 --stability_batch_sizes 16 --stability_learning_rates 0.8""".split()  # noqa: SIM905


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old comparison, from which no data can be reached and in which nothing may be run."""

    def refuse(plan: Any, items: list, jobs: int, after: Any) -> None:
        raise AssertionError(f"cells are missing: {', '.join(str(item) for item in items)}")

    copy = tmp_path / "old"
    shutil.copytree(OLD, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(command, "run_all", refuse)
    return copy


def test_cells_of_an_earlier_version_are_found_without_the_data(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "cells").rglob("*.json")}
    (folder / "comparison.md").unlink()
    assert main(WORDS) == 0
    assert (folder / "comparison.md").read_bytes() == (OLD / "comparison.md").read_bytes()
    assert {path: path.read_bytes() for path in (folder / "cells").rglob("*.json")} == before
    summary = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    (run,) = summary["stability"]["runs"]["ladder"]
    saved = json.loads((folder / "cells/ladder/seed-42/stability-lr0.8-batch16.json").read_text(encoding="utf-8"))
    assert run["knn"] == saved["knn"] and run["learning_rate"] == 0.8


def test_another_setting_is_noticed_in_a_cell_of_an_earlier_version(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*WORDS, "--learning_rate", "0.4"]) == 2
    assert "learning_rate 0.8, now it is 0.4" in capsys.readouterr().err


def test_a_missing_cell_needs_the_data_again(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "cells/byol/seed-42/knn-imagenette128.json").unlink()
    assert main(WORDS) == 2
    assert "knn cannot be evaluated on runs/dev/imagenette128: " in capsys.readouterr().err
