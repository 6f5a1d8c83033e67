"""The table of accuracy on the way: means over the seeds that both methods have, and where it was logged."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from helpers.paths import ROOT
from helpers.scripts import loaded_script


@pytest.fixture(scope="module")
def progress() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/progress.py") as module:
        yield module


def write_cell(folder: Path, method: str, seed: int, last: float) -> None:
    values = {stage: [0.25, last] for stage in ("stage1", "stage2", "stage3", "stage4", "all")}
    file = folder / "cells" / method / f"seed-{seed}" / "pretrain.json"
    file.parent.mkdir(parents=True)
    cell = {"seed": seed, "cpu_seconds": 1000.4 + seed, "log": {"knn": {"step": [0, 500], **values}}}
    file.write_text(json.dumps(cell))


def test_it_gives_means_over_the_seeds_that_both_have(progress: ModuleType, tmp_path: Path) -> None:
    for seed, last in ((0, 0.5), (1, 0.6), (2, 0.9)):  # the Ladder lacks the last one
        write_cell(tmp_path, "byol", seed, last)
    for seed, last in ((0, 0.7), (1, 0.71)):
        write_cell(tmp_path, "ladder", seed, last)
    lines = progress.table(tmp_path, [0, 500]).splitlines()
    assert lines[2] == "| 0 | " + " | ".join(["25.0 / 25.0"] * 5) + " |"
    assert lines[3] == "| 500 | " + " | ".join(["55.0 / 70.5"] * 5) + " |"
    assert lines[5:] == ["Seeds: 0, 1.", *(f"Processor seconds of {name}: 1,000, 1,001." for name in progress.METHODS)]


def test_a_step_without_a_value_and_a_folder_without_runs_have_a_line(progress: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no seed has a pretraining cell of both byol and ladder"):
        progress.table(tmp_path, [0])
    for method in progress.METHODS:
        write_cell(tmp_path, method, 0, 0.5)
    with pytest.raises(SystemExit, match=r"seed 0 logged no kNN accuracy at step 250, but at \[0, 500\]"):
        progress.table(tmp_path, [250])


def test_the_laboratory_book_shows_what_it_prints(progress: ModuleType) -> None:
    page = (ROOT / "docs/study.md").read_text(encoding="utf-8")
    (steps,) = re.findall(r"progress\.py docs/study/convergence96 --steps ([\d ]+)\n", page)
    printed = progress.table(ROOT / "docs/study/convergence96", [int(step) for step in steps.split()])
    assert printed.split("\n\n")[0] in page
