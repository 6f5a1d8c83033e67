"""The balanced table: figures of the seeds that have every cell, ranks, and what it leaves out."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from helpers.scripts import loaded_script
from ladder_training.compare.plan import read_variants

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def balance() -> Iterator[ModuleType]:
    with loaded_script("benchmarks/study/balance.py") as module:
        yield module


def write_cells(study: Path, balance: ModuleType, method: str, seed: int, value: float) -> None:
    """Cells of every task whose figure is `value`; of two cells one lies as far below it as the other above."""
    for task in balance.TASKS:
        folder = study / balance.SHORT.comparison(method, task) / "cells" / method
        for number, name in enumerate(task.cells):
            file = folder / f"seed-{seed}" / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            content = json.loads(file.read_text()) if file.is_file() else {"metrics": {}}
            shift = 0.0 if len(task.cells) == 1 else (-0.01, 0.01)[number]
            content["metrics"].setdefault(task.part, {})[task.metric] = value + shift
            file.write_text(json.dumps(content))


def test_equal_figures_share_the_better_rank(balance: ModuleType) -> None:
    assert balance.ranks({"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0}) == {"a": 4, "b": 1, "c": 1, "d": 3}


def test_a_figure_is_the_mean_of_its_cells_of_the_seeds_that_have_them_all(balance: ModuleType, tmp_path: Path) -> None:
    for seed, value in ((0, 0.20), (2, 0.30)):
        write_cells(tmp_path, balance, "byol", seed, value)
    task = next(task for task in balance.TASKS if len(task.cells) == 2)
    assert balance.figures(tmp_path, balance.SHORT, "byol", task) == pytest.approx({0: 20.0, 2: 30.0})
    (tmp_path / "detection96/cells/byol/seed-2" / f"{task.cells[1]}.json").unlink()
    assert balance.figures(tmp_path, balance.SHORT, "byol", task) == pytest.approx({0: 20.0})


def test_the_table_ranks_methods_and_not_bounds_and_names_what_is_missing(balance: ModuleType, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        shift = (0.0, 0.02, 0.5)[seed]  # SimCLR lacks the last seed, so nobody's counts
        write_cells(tmp_path, balance, "byol", seed, 0.2 + shift)
        write_cells(tmp_path, balance, "ladder", seed, 0.4 + shift)
        write_cells(tmp_path, balance, "supervised", seed, 0.9)
    for seed in (0, 1):
        write_cells(tmp_path, balance, "simclr", seed, 0.3)
    better = balance.TASKS[0]  # in one task SimCLR is ahead of the Ladder
    for seed in (0, 1):
        cell = tmp_path / f"peers96/cells/simclr/seed-{seed}" / f"{better.cells[0]}.json"
        content = json.loads(cell.read_text())
        content["metrics"][better.part][better.metric] = 0.5
        cell.write_text(json.dumps(content))
    lines = balance.table(tmp_path, balance.SHORT).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| Ladder", "| SimCLR", "| BYOL", "| supervised"]
    assert lines[2] == "| Ladder | 41.0 ± 1.4 (2) |" + " 41.0 ± 1.4 (1) |" * 5 + " 2 | 1.2 |"
    assert lines[3] == "| SimCLR | 50.0 ± 0.0 (1) |" + " 30.0 ± 0.0 (2) |" * 5 + " 2 | 1.8 |"
    assert lines[5] == "| supervised |" + " 90.0 ± 0.0 |" * 6 + "  |  |"
    assert lines[-1].startswith("Seeds: 0, 1. Not in the table")
    assert lines[-1].endswith("MoCo v2, SimSiam, Barlow Twins, VICReg, DenseCL, untrained.")


def test_methods_without_a_seed_in_common_make_no_table(balance: ModuleType, tmp_path: Path) -> None:
    write_cells(tmp_path, balance, "byol", 0, 0.2)
    write_cells(tmp_path, balance, "simclr", 1, 0.2)
    assert balance.table(tmp_path, balance.SHORT) == "No seed is shared by the methods."


def test_every_method_of_the_table_is_a_variant_that_compare_takes(balance: ModuleType) -> None:
    for budget in (balance.SHORT, balance.LONG):
        variants = read_variants(str(ROOT / f"benchmarks/study/{budget.peers}.yaml"))
        assert {*budget.methods, *budget.bounds} - {"byol", "ladder", "random"} <= set(variants)


def test_after_the_long_runs_all_own_cells_are_those_of_one_comparison(balance: ModuleType, tmp_path: Path) -> None:
    places = {
        (method, task.name): balance.LONG.comparison(method, task)
        for method in balance.LONG.methods
        for task in balance.TASKS
    }
    assert {place for (method, _), place in places.items() if method in balance.OWN} == {"convergence96"}
    assert {place for (method, _), place in places.items() if method not in balance.OWN} == {"peers96_long"}
