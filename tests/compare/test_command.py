"""`ladder compare`: what is run, what is not run again, and what the table says."""

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.comparison import compare, summary_of
from ladder_training import evaluation
from ladder_training.compare import training_cell
from ladder_training.compare.evaluations import REPEAT_STRIDE
from ladder_training.errors import TrainingStopped


def test_work_goes_seed_by_seed_and_a_second_call_does_nothing(recipe: str, tmp_path: Path, calls: list[str]) -> None:
    folder = tmp_path / "out"
    assert compare(recipe, folder, seeds="0 1") == 0
    expected = [
        entry
        for seed, method in itertools.product((0, 1), ("byol", "ladder"))
        for entry in (f"pretrain {method} seed-{seed}", f"knn {method} seed-{seed}", f"linear {method} seed-{seed}")
    ]
    assert calls == expected
    before = {path: path.read_bytes() for path in (folder / "cells").rglob("*.json")}
    assert len(before) == 2 * 2 * 3
    (folder / "comparison.md").unlink()
    shutil.rmtree(folder / "figures")
    assert compare(recipe, folder, seeds="0 1") == 0
    assert calls == expected
    assert (folder / "comparison.md").exists()
    assert (folder / "figures" / "knn.png").read_bytes() == b"drawn"
    assert {path: path.read_bytes() for path in (folder / "cells").rglob("*.json")} == before


def test_cells_and_results_hold_no_path_of_this_machine(recipe: str, tmp_path: Path, calls: list[str]) -> None:
    folder = tmp_path / "out"
    compare(recipe, folder, seeds="0")
    for path in [*(folder / "cells").rglob("*.json"), folder / "comparison.json", folder / "comparison.md"]:
        assert str(tmp_path) not in path.read_text(encoding="utf-8"), path
    cell = json.loads((folder / "cells/byol/seed-0/knn-digits.json").read_text(encoding="utf-8"))
    assert cell["notes"] == ["looked into seed-0"]


def test_what_was_cut_off_goes_on_where_it_stopped(
    recipe: str, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    knn = evaluation.knn

    def interrupted(model: str, *args: Any, **kwargs: Any) -> Any:
        if "ladder" in model:
            raise KeyboardInterrupt
        return knn(model, *args, **kwargs)

    folder = tmp_path / "out"
    monkeypatch.setattr(evaluation, "knn", interrupted)
    assert compare(recipe, folder, seeds="0") == 130
    assert calls[-1] == "pretrain ladder seed-0"
    calls.clear()
    monkeypatch.setattr(evaluation, "knn", knn)
    assert compare(recipe, folder, seeds="0") == 0
    assert calls == ["knn ladder seed-0", "linear ladder seed-0"]


def test_a_missing_cell_without_weights_pretrains_again_and_says_so(
    recipe: str, tmp_path: Path, calls: list[str]
) -> None:
    folder = tmp_path / "out"
    compare(recipe, folder, seeds="0")
    pretrain_cell = folder / "cells/ladder/seed-0/pretrain.json"
    before = pretrain_cell.read_bytes()
    shutil.rmtree(folder / "runs")
    (folder / "cells/ladder/seed-0/linear-digits.json").unlink()
    calls.clear()
    assert compare(recipe, folder, seeds="0") == 0
    assert calls == ["pretrain ladder seed-0", "linear ladder seed-0"]
    assert pretrain_cell.read_bytes() == before
    cell = json.loads((folder / "cells/ladder/seed-0/linear-digits.json").read_text(encoding="utf-8"))
    assert cell["notes"][0] == "the network was pretrained again for this cell"


def test_cells_of_other_settings_are_refused_or_redone(
    recipe: str, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "out"
    compare(recipe, folder, seeds="0")
    calls.clear()
    for words, field in (
        (["--learning_rate", "2e-3"], "learning_rate 0.001, now it is 0.002"),
        (["--min_scale", "0.2"], "min_scale 0.08, now it is 0.2"),
        (["--level_weights", "1", "2", "1", "1"], "level_weights [1.0, 1.0, 1.0, 1.0], now it is [1, 2, 1, 1]"),
    ):
        methods = "ladder" if "level" in field else "byol ladder"
        assert compare(recipe, folder, *words, seeds="0", methods=methods) == 2
        message = capsys.readouterr().err
        assert field in message
        assert "--output" in message and "--redo" in message
    # What changes no weight is no difference.
    assert compare(recipe, folder, "--logging_steps", "1", "--dataloader_num_workers", "1", seeds="0") == 0
    assert calls == []
    assert compare(recipe, folder, "--learning_rate", "2e-3", "--redo", seeds="0") == 0
    assert calls == [
        f"{work} {method} seed-0" for method in ("byol", "ladder") for work in ("pretrain", "knn", "linear")
    ]
    assert compare(recipe, folder, "--learning_rate", "2e-3", seeds="0") == 0


def test_repeats_have_cells_and_seeds_of_their_own_and_count_as_their_mean(
    recipe: str, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, listed = tmp_path / "out", tmp_path / "evaluations.yaml"
    listed.write_text("- {task: knn, dataset: digits}\n", encoding="utf-8")
    command = ("--evaluations", str(listed))
    assert compare(recipe, folder, *command, seeds="0") == 0
    once = summary_of(folder)["rows"][1]["methods"]["ladder"]
    calls.clear()

    listed.write_text("- {task: knn, dataset: digits, repeats: 3}\n", encoding="utf-8")
    assert compare(recipe, folder, *command, seeds="0") == 0
    # The first is not run again.
    again = REPEAT_STRIDE
    assert calls == [f"knn {method} seed-{seed}" for method in ("byol", "ladder") for seed in (again, 2 * again)]
    row = summary_of(folder)["rows"][1]
    assert row["metric"] == "accuracy stage4" and row["repeats"] == 3
    # The fake ladder scores 0.01 more for each unit of the seed.
    assert once["values"]["0"] == pytest.approx(0.43)
    assert row["methods"]["ladder"]["values"]["0"] == pytest.approx(0.43 + 0.01 * again)
    assert "digits (mean of 3)" in (folder / "comparison.md").read_text(encoding="utf-8")

    # A seed with a repeat that was stopped has no figure.
    whole = evaluation.knn

    def stopped(model: str, *words: Any, seed: int, **settings: Any) -> SimpleNamespace:
        if seed == 2 * again:
            raise TrainingStopped("the loss is no number")
        return whole(model, *words, seed=seed, **settings)

    monkeypatch.setattr(evaluation, "knn", stopped)
    (folder / "cells/byol/seed-0/knn-digits-repeat-2.json").unlink()
    assert compare(recipe, folder, *command, seeds="0") == 0
    methods = summary_of(folder)["rows"][1]["methods"]
    assert (methods["byol"]["values"], methods["byol"]["collapsed"]) == ({}, [0])
    assert methods["ladder"]["count"] == 1


def test_other_evaluation_settings_redo_the_evaluation_only(recipe: str, tmp_path: Path, calls: list[str]) -> None:
    folder, listed = tmp_path / "out", tmp_path / "evaluations.yaml"
    listed.write_text("- {task: knn, dataset: digits, k: 20, num_workers: 1}\n", encoding="utf-8")
    compare(recipe, folder, seeds="0", methods="byol")
    calls.clear()
    assert compare(recipe, folder, "--evaluations", str(listed), seeds="0", methods="byol") == 0
    assert calls == []
    listed.write_text("- {task: knn, dataset: digits, k: 5}\n", encoding="utf-8")
    assert compare(recipe, folder, "--evaluations", str(listed), seeds="0", methods="byol") == 2
    assert compare(recipe, folder, "--evaluations", str(listed), "--redo", seeds="0", methods="byol") == 0
    assert calls == ["knn byol seed-0"]


def test_a_collapsed_run_is_recorded_and_the_others_go_on(
    recipe: str, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain = training_cell.pretrain_quietly

    def collapsing(resolved: Any, folder: Path) -> dict[str, Any]:
        found = pretrain(resolved, folder)
        if "ladder" in str(folder) and folder.name == "seed-1":
            found |= {"status": "collapsed", "reason": "stage4.global has collapsed at step 3", "steps": 3}
        return found

    monkeypatch.setattr(training_cell, "pretrain_quietly", collapsing)
    folder = tmp_path / "out"
    assert compare(recipe, folder) == 0
    assert "knn ladder seed-1" not in calls
    assert calls[-1] == "linear ladder seed-2"
    row = next(row for row in summary_of(folder)["rows"] if row["task"] == "knn" and row["headline"])
    assert row["methods"]["ladder"]["collapsed"] == [1]
    assert row["methods"]["ladder"]["count"] == 2
    assert row["methods"]["ladder"]["difference"]["count"] == 2
    text = (folder / "comparison.md").read_text(encoding="utf-8")
    assert "(n=2, 1 collapsed)" in text
    assert "finished (seeds 0, 2); collapsed (seeds 1)" in text
    calls.clear()
    assert compare(recipe, folder) == 0
    assert calls == []


def test_an_evaluation_that_must_stop_does_not_end_the_comparison(
    recipe: str, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(model: str, *args: Any, **kwargs: Any) -> Any:
        raise TrainingStopped(f"the loss of {model} is nan")

    monkeypatch.setattr(evaluation, "linear", diverging)
    folder = tmp_path / "out"
    assert compare(recipe, folder, seeds="0", methods="byol") == 0
    cell = json.loads((folder / "cells/byol/seed-0/linear-digits.json").read_text(encoding="utf-8"))
    assert (cell["status"], cell["reason"]) == ("stopped", "the loss of seed-0 is nan")
    assert [row["task"] for row in summary_of(folder)["rows"]] == ["knn"] * 3


def test_the_table_holds_means_spread_and_paired_differences(
    recipe: str, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "out"
    assert compare(recipe, folder, methods="ladder byol") == 0
    summary = summary_of(folder)
    assert summary["methods"] == ["byol", "ladder"]  # the baseline first
    row = next(row for row in summary["rows"] if row["task"] == "linear" and row["headline"])
    assert row["metric"] == "accuracy stage4"
    # byol .40 .41 .44, ladder .43 .44 .45: differences .03 .03 .01
    byol, ladder = row["methods"]["byol"], row["methods"]["ladder"]
    assert byol["mean"] == pytest.approx(1.25 / 3, abs=1e-5)
    assert byol["std"] == pytest.approx(0.0208167, abs=1e-6)
    assert "difference" not in byol
    assert ladder["difference"]["mean"] == pytest.approx(0.07 / 3, abs=1e-5)
    half = 4.30265 * 0.011547 / 3**0.5
    assert ladder["difference"]["low"] == pytest.approx(0.07 / 3 - half, abs=1e-5)
    line = "| linear | digits   | **accuracy stage4** | 41.7 ± 2.1 | 44.0 ± 1.0 | +2.3 [-0.5, +5.2] |"
    assert line in (folder / "comparison.md").read_text(encoding="utf-8")
    assert line in capsys.readouterr().out
    reach = {(row["features"], row["method"]): row for row in summary["steps_to_reach"]}
    assert reach["stage4", "ladder"]["ratio"] == {"0": 0.5, "1": 0.5, "2": 0.5}
    assert reach["stage4", "ladder"]["mean"] == 0.5
    assert reach["stage4", "ladder"]["mean_curve"] == 0.5
    assert reach["stage4", "ladder"]["wall_clock_mean"] == 0.5
    assert reach["stage4", "byol"]["mean"] == 1.0
    assert summary["curves"]["knn"]["ladder"]["stage4"]["mean"] == [0.1, 0.4, 0.6]


def test_model_cards_show_what_the_command_wrote(recipe: str, tmp_path: Path, calls: list[str]) -> None:
    from ladder_model_cards.comparison import comparison

    assert compare(recipe, tmp_path / "out", methods="ladder byol") == 0
    text = comparison(summary_of(tmp_path / "out"))
    figures = "41.7 ± 2.1 % | 44.0 ± 1.0 % | +2.3 (-0.5 to +5.2)"
    assert f"| **Linear probe on digits, accuracy stage4** | {figures} |" in text
    assert "over 3 seeds (0, 1, 2)" in text
    assert "BYOL 6 steps in 1 min 0 s; Ladder Siamese 6 steps in 1 min 0 s" in text


def test_variants_single_levels_and_the_untrained_network(
    recipe: str, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    pretrain = training_cell.pretrain_quietly
    monkeypatch.setattr(
        training_cell,
        "pretrain_quietly",
        lambda resolved, folder: seen.update({folder.parent.name: resolved}) or pretrain(resolved, folder),
    )
    monkeypatch.setattr(training_cell, "write_untrained", lambda resolved, folder: calls.append(f"untrained {folder}"))
    variants = tmp_path / "variants.yaml"
    variants.write_text("equal: {level_weights: [1, 1, 1, 1]}\nshort: {method: byol, max-steps: 3}\n", encoding="utf-8")
    folder = tmp_path / "out"
    methods = "equal short stage3.local simsiam random"
    words = ["--variants", str(variants), "--baseline", "short", "--max_steps", "5"]
    assert compare(recipe, folder, *words, seeds="4", methods=methods) == 0
    assert summary_of(folder)["methods"] == ["short", "equal", "stage3.local", "simsiam", "random"]
    assert seen["equal"].model.level_weights == [1, 1, 1, 1]
    assert (seen["equal"].arguments["max_steps"], seen["short"].arguments["max_steps"]) == (5, 3)
    assert seen["short"].model.method == "byol"
    level = seen["stage3.local"].model
    assert (level.level_names, level.level_losses, level.level_weights) == (["stage3"], ["local"], [1.0])
    assert seen["simsiam"].model.method == "simsiam"
    assert "random" not in seen
    assert all(resolved.arguments["seed"] == 4 for resolved in seen.values())
    assert f"untrained {folder / 'runs' / 'random' / 'seed-4'}" in calls
    assert "knn random seed-4" in calls
