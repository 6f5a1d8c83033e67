"""`ladder compare`: what is refused before anything is run, comparisons without labels, and short runs."""

import json
from pathlib import Path

import pytest

from helpers.comparison import compare, summary_of
from ladder_training.cli.entry import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "bylo"], "there is no method 'bylo'"),
        (["--methods", "bylo"], "did you mean byol?"),
        (["--methods", "stage9.global"], "level_names has 'stage9'"),
        (["--methods", "byol", "byol"], "method byol is given twice"),
        (["--seeds", "1", "1"], "seed 1 is given twice"),
        (["--baseline", "lader"], "did you mean ladder?"),
        (["--method", "byol"], "use --methods"),
        (["--seed", "3"], "use --seeds"),
        (["--max_setps", "3"], "did you mean --max_steps?"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--optimizer", "adam"], "optimizer must be one of"),
        (["--detection_dataset", "./nowhere"], "detection cannot be evaluated on ./nowhere"),
        (["--detection_dataset", "digits"], "detection cannot be evaluated on digits: "),
        (["--segmentation_dataset", "digits"], "digits: split train has no column of label maps among image, label"),
        (["--stability", "--stability_steps", "0"], "stability_steps must be greater than 0"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_run(
    words: list[str], message: str, recipe: str, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["compare", recipe, "--output", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert calls == []
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("variants", "byol: {max_steps: 3}", "a variant needs a name of its own"),
        ("variants", "fast: {max_step: 3}", "did you mean max_steps?"),
        ("variants", "fast: {seed: 3}", "unknown field 'seed'"),
        ("variants", "fast: {max_steps: many}", "max_steps must be a whole number"),
        ("evaluations", "- {task: knn}", "entry 1: dataset is missing"),
        ("evaluations", "- {task: detect, dataset: digits}", "did you mean detection?"),
        ("evaluations", "- {task: knn, dataset: digits, kk: 3}", "entry 1: unknown setting 'kk'"),
        ("evaluations", "- {task: knn, dataset: digits}\n- {task: knn, dataset: digits, k: 5}", "give one of them a"),
        ("evaluations", "task: knn", "must hold a list"),
        ("evaluations", "- {task: knn, dataset: digits, repeats: 0}", "entry 1: repeats must be at least 1, got 0"),
    ],
)
def test_mistakes_in_files_name_the_place(
    option: str, text: str, message: str, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "listed.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["compare", recipe, "--output", str(tmp_path / "out"), f"--{option}", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "listed.yaml" in error or message.startswith("give one")


def test_a_second_comparison_in_the_same_folder_is_kept_out(
    recipe: str, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture
) -> None:
    from ladder_training.runs.lock import FolderLock

    with FolderLock(tmp_path / "out", "`ladder compare`", tmp_path / "out" / "logs" / ".lock"):
        assert compare(recipe, tmp_path / "out", seeds="0") == 2
    assert f"another `ladder compare` is at work in {tmp_path / 'out'} (process" in capsys.readouterr().err
    assert calls == []
    assert compare(recipe, tmp_path / "out", seeds="0", methods="byol") == 0


def test_images_without_labels_are_compared_with_a_note(recipe: str, tmp_path: Path, calls: list[str]) -> None:
    from PIL import Image

    for split in ("train", "test"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(tmp_path / "images" / split / f"{number}.png")
    folder = tmp_path / "out"
    assert compare(recipe, folder, "--dataset", str(tmp_path / "images"), seeds="0", methods="byol") == 0
    assert calls == ["pretrain byol seed-0"]
    summary = summary_of(folder)
    assert summary["dataset"] == "images"
    assert summary["notes"] == [f"{task}-images is left out: it has no label column" for task in ("knn", "linear")]


def test_short_runs_have_cells_and_pictures_of_their_own(recipe: str, tmp_path: Path, calls: list[str]) -> None:
    folder = tmp_path / "out"
    words = ["--stability", "--stability_batch_sizes", "4", "8", "--stability_learning_rates", "0.5", "0.001"]
    assert compare(recipe, folder, *words, "--stability_steps", "3", seeds="7 8") == 0
    points = [f"stability-lr{rate}-batch{batch}" for rate in ("0.001", "0.5") for batch in (4, 8)]
    assert calls[-8:] == [f"pretrain {method} {point}" for point in points for method in ("byol", "ladder")]
    assert not list((folder / "runs" / "byol").glob("stability*"))
    cell = json.loads((folder / "cells/ladder/seed-7" / f"{points[3]}.json").read_text(encoding="utf-8"))
    assert (cell["learning_rate"], cell["batch_size"], cell["collapsed"]) == (0.5, 8, False)
    assert cell["knn"] == {"stage4": 0.6, "all": 0.6}
    assert cell["fingerprint"]["per_device_train_batch_size"] == 8
    assert cell["fingerprint"]["warmup_steps"] == 1  # 2 of 6, as in the recipe
    runs = summary_of(folder)["stability"]["runs"]
    assert [(run["learning_rate"], run["batch_size"]) for run in runs["byol"]] == [
        (0.001, 4),
        (0.001, 8),
        (0.5, 4),
        (0.5, 8),
    ]
    calls.clear()
    assert compare(recipe, folder, *words, "--stability_steps", "3", seeds="7 8") == 0
    assert calls == []
