"""A cell belongs to what its data set and its weights hold: not to a path, and not to a name alone."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from helpers.comparison import compare
from ladder_training.compare import contents
from ladder_training.compare.contents import Contents
from ladder_training.config.recipe import Recipe, resolve
from ladder_training.files import write_json
from ladder_training.runs.record import DatasetRecord, RunRecord


def _photos(folder: Path, shade: int) -> str:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for number in range(2):
                colour = (shade, 40 * number, 90 if label == "cat" else 10)
                Image.new("RGB", (16, 16), colour).save(folder / split / label / f"{number}.png")
    return str(folder)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Two data sets of one name, of as many images with the same names."""
    return _photos(tmp_path / "a" / "photos", 0), _photos(tmp_path / "b" / "photos", 200)


@pytest.fixture
def compared(recipe: str, tmp_path: Path, calls: list[str], folders: tuple[str, str]) -> Path:
    """A comparison on the first of them."""
    assert compare(recipe, tmp_path / "out", "--dataset", folders[0], methods="byol", seeds="0") == 0
    calls.clear()
    return tmp_path / "out"


def _cell(folder: Path, name: str) -> dict:
    return json.loads((folder / "cells/byol/seed-0" / f"{name}.json").read_text(encoding="utf-8"))


def test_another_data_set_of_the_same_name_is_noticed(
    compared: Path, recipe: str, calls: list[str], folders: tuple[str, str], capsys: pytest.CaptureFixture
) -> None:
    content = _cell(compared, "pretrain")["fingerprint"]["dataset_content"]
    train = list(Path(folders[0], "train").rglob("*.png"))
    assert content.startswith(f"4 files, {sum(path.stat().st_size for path in train)} bytes, ")
    assert compare(recipe, compared, "--dataset", folders[1], methods="byol", seeds="0") == 2
    error = capsys.readouterr().err
    assert f"pretrain.json was made with a dataset of {content}, now it is 4 files, " in error
    assert calls == []
    assert compare(recipe, compared, "--dataset", folders[1], "--redo", methods="byol", seeds="0") == 0
    assert calls == ["pretrain byol seed-0", "knn byol seed-0", "linear byol seed-0"]
    assert _cell(compared, "pretrain")["fingerprint"]["dataset_content"] != content


def test_other_images_to_score_redo_the_evaluations_only(
    compared: Path, recipe: str, calls: list[str], folders: tuple[str, str], capsys: pytest.CaptureFixture
) -> None:
    Image.new("RGB", (16, 16), (1, 2, 3)).save(Path(folders[0], "test/cat/0.png"))
    assert compare(recipe, compared, "--dataset", folders[0], methods="byol", seeds="0") == 2
    assert "knn-photos.json was made with a dataset of 8 files" in capsys.readouterr().err
    assert compare(recipe, compared, "--dataset", folders[0], "--redo", methods="byol", seeds="0") == 0
    assert calls == ["knn byol seed-0", "linear byol seed-0"]


def test_a_folder_that_was_moved_or_renamed_keeps_its_cells(
    compared: Path, recipe: str, tmp_path: Path, calls: list[str], folders: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    shutil.move(folders[0], tmp_path / "c" / "photos")
    monkeypatch.chdir(tmp_path / "c")
    assert compare(recipe, compared, "--dataset", "./photos", methods="byol", seeds="0") == 0
    assert calls == []
    assert f"nothing to make: {compared} has the cells of all 1 runs" in capsys.readouterr().out
    write_json(compared / "runs/byol/seed-0/data_files.json", {"photos": Contents().files("./photos", "train")})
    Path("photos").rename("pictures")
    assert compare(recipe, compared, "--dataset", "./pictures", methods="byol", seeds="0") == 0
    assert calls == ["knn byol seed-0", "linear byol seed-0"]  # rows of other names, for the same weights


def test_cells_of_an_earlier_version_do_not_say_their_content_and_count(
    compared: Path, recipe: str, calls: list[str], folders: tuple[str, str]
) -> None:
    for name in ("pretrain", "knn-photos", "linear-photos"):
        cell = _cell(compared, name)
        del cell["fingerprint"]["dataset_content"]
        if name != "pretrain":  # the hash of the pretraining's fields, without the content
            cell["fingerprint"]["pretraining"] = "another"
        write_json(compared / "cells/byol/seed-0" / f"{name}.json", cell)
    assert compare(recipe, compared, "--dataset", folders[0], "--redo", methods="byol", seeds="0") == 0
    assert calls == ["knn byol seed-0", "linear byol seed-0"]  # as their weights are said to be others; not pretraining
    calls.clear()
    assert compare(recipe, compared, "--dataset", folders[0], methods="byol", seeds="0") == 0
    assert calls == []


def test_a_run_that_began_with_other_images_does_not_count_as_this_one(
    compared: Path, recipe: str, calls: list[str], folders: tuple[str, str], capsys: pytest.CaptureFixture
) -> None:
    """The cell was deleted by hand, and the weights of the other images are still there."""
    (compared / "cells/byol/seed-0/pretrain.json").unlink()
    run = compared / "runs/byol/seed-0"
    began = Contents().files(folders[0], "train")
    write_json(run / "data_files.json", {folders[0]: began})
    words = ["--dataset", folders[1]]
    assert compare(recipe, compared, *words, "--evaluations", _nothing_else(compared), methods="byol", seeds="0") == 2
    error = capsys.readouterr().err
    assert f"byol seed 0 pretraining: {run} holds a run that began with other images than {folders[1]}" in error
    assert "--redo begins it anew" in error and calls == []
    (run / "old").touch()
    words += ["--evaluations", _nothing_else(compared), "--redo"]
    assert compare(recipe, compared, *words, methods="byol", seeds="0") == 0
    assert calls == ["pretrain byol seed-0", "knn byol seed-0"] and not (run / "old").exists()


def _nothing_else(folder: Path) -> str:
    """A file of one evaluation, which has no cell yet."""
    path = folder.parent / "evaluations.yaml"
    path.write_text("- {task: knn, dataset: digits}\n", encoding="utf-8")
    return str(path)


def test_weights_to_start_from_count_by_their_bytes(tmp_path: Path) -> None:
    for place, text in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        (tmp_path / place / "run" / "pretraining").mkdir(parents=True)
        write_json(tmp_path / place / "run" / "config.json", {})
        (tmp_path / place / "run" / "model.safetensors").write_bytes(b"backbone")
        (tmp_path / place / "run" / "pretraining" / "model.safetensors").write_bytes(text)
    hashes = [Contents().weights(str(tmp_path / place / "run")) for place in "abc"]
    assert hashes[0] == hashes[2] != hashes[1]
    assert Contents().weights(str(tmp_path / "nowhere")) is None


def test_the_images_of_a_variant_are_looked_for_before_anything_is_run(
    recipe: str, tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture
) -> None:
    variants = tmp_path / "variants.yaml"
    variants.write_text("other: {dataset: ./nowhere}\n", encoding="utf-8")
    assert compare(recipe, tmp_path / "out", "--variants", str(variants), methods="byol other", seeds="0") == 2
    assert "method other: ./nowhere: no such data set" in capsys.readouterr().err
    assert calls == [] and not (tmp_path / "out").exists()


def test_another_commit_of_a_data_set_on_the_hub_is_noticed(
    recipe: str,
    tmp_path: Path,
    calls: list[str],
    folders: tuple[str, str],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It counted by its name alone. A folder stands for the data set, so that no network is needed."""
    commit: list[str | None] = [None]
    monkeypatch.setattr(contents, "hub_dataset", lambda name, revision=None: ("user/pets", revision or commit[0]))
    out, words = tmp_path / "out", ["--dataset", folders[0]]

    def again(*more: str) -> int:
        calls.clear()
        return compare(recipe, out, *words, *more, methods="byol", seeds="0")

    assert again() == 0 and len(calls) == 3
    names = ("pretrain", "knn-photos", "linear-photos")
    assert not any("dataset_commit" in _cell(out, name)["fingerprint"] for name in names), "the Hub did not answer"
    commit[0] = "a" * 40
    assert again() == 0 and calls == [], "as cells of earlier versions, which say no commit"
    shutil.rmtree(out)
    assert again() == 0 and len(calls) == 3
    assert [_cell(out, name)["fingerprint"]["dataset_commit"] for name in names] == ["a" * 40] * 3
    commit[0] = "b" * 40
    assert again() == 2 and calls == []
    said = f"pretrain.json was made with a dataset at commit {'a' * 40}, now it is {'b' * 40}: choose another --output"
    assert said in capsys.readouterr().err
    commit[0] = None
    assert again() == 0 and calls == [], "offline"
    commit[0] = "a" * 40
    assert again("--revision", "a" * 40) == 0 and calls == [], "the same images by another name"
    commit[0] = "b" * 40
    assert again("--redo") == 0 and len(calls) == 3


def test_a_run_that_began_at_another_commit_does_not_count_as_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on reads the commit that it began with, and its cell would have said the newest one."""
    RunRecord(datasets=[DatasetRecord("user/pets", hub="user/pets", revision="a" * 40)]).write(tmp_path)
    wanted = resolve(Recipe("r", "", {"dataset": "user/pets"}, "here"))
    for newest, expected in (("a" * 40, True), ("b" * 40, False), (None, None)):
        monkeypatch.setattr(contents, "hub_dataset", lambda name, revision=None, newest=newest: (name, newest))
        assert Contents().are_those_of(tmp_path, wanted) is expected
