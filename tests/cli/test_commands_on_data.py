"""From every kind of data set to a finished run and its kNN figure, by the commands a user types."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.models import TINY_YAML
from helpers.stream_data import encoded, write_tar
from ladder_training.cli.entry import main
from ladder_training.trainer.trainer import LadderTrainer

RECIPE = f"""
image_size: 32
backbone_config: {TINY_YAML}
projection_hidden_size: 32
projection_size: 16
optimizer: adamw
learning_rate: 1e-3
per_device_train_batch_size: 8
max_steps: 2
logging_steps: 1
shuffle_buffer: 8
stop_on_collapse: false
use_cpu: true
disable_tqdm: true
"""


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return str(path)


def fill_folder(folder: Path) -> str:
    for split, count in (("train", 24), ("test", 8)):
        for number in range(count):
            path = folder / split / ("cat", "dog")[number % 2] / f"{number:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(24, seed=number + 100 * (split == "test")))
    return str(folder)


def fill_parquet(folder: Path) -> str:
    folder.mkdir()
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for split, count in (("train", 24), ("test", 8)):
        rows = [{"bytes": encoded(24, seed=number, kind="PNG"), "path": None} for number in range(count)]
        data = {"img": rows, "label": [number % 2 for number in range(count)]}
        datasets.Dataset.from_dict(data, features=features).to_parquet(folder / f"{split}.parquet", batch_size=6)
    (folder / "README.md").write_text("# Cats and dogs")
    return str(folder)


def fill_shards(folder: Path) -> str:
    for shard in range(4):
        images = [encoded(24, seed=shard * 8 + number) for number in range(8)]
        write_tar(folder / f"{'test' if shard == 3 else 'train'}-{shard:03d}.tar", images, shard * 8, "cls")
    return str(folder)


MAKERS = {"folder": fill_folder, "parquet": fill_parquet, "shards": fill_shards}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_pretraining_and_evaluating(kind: str, streaming: bool, recipe: str, tmp_path: Path) -> None:
    name, run = MAKERS[kind](tmp_path / kind), tmp_path / "run"
    words = ["pretrain", recipe, "--dataset", name, "--output", str(run), *(["--streaming"] if streaming else [])]
    assert main(words) == 0
    written = json.loads((run / "run.json").read_text())
    assert (written["status"], written["images_seen"]) == ("finished", 16)
    assert written["datasets"][0]["name"] == name
    assert written["datasets"][0]["images"] == (None if streaming else 24)
    logged = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert any("knn/stage4" in entry for entry in logged)  # the test split has labels and is what monitoring looks at
    assert main(["evaluate", "knn", "--model", str(run), "--dataset", name, "--output", str(run)]) == 0
    result = json.loads((run / "evaluation" / f"knn-{kind}.json").read_text())
    assert (result["fit_split"], result["split"]) == ("train", "test")
    assert set(result["metrics"]) == {"stage1", "stage2", "stage3", "stage4", "all"}
    # eight test images: every figure is a whole number of eighths
    assert all((8 * found["accuracy"]).is_integer() for found in result["metrics"].values())


@pytest.mark.parametrize("name", ["parquet/train.parquet", "parquet/tr*.parquet", "shards/train-{000..002}.tar"])
def test_single_files_globs_and_braces(name: str, recipe: str, tmp_path: Path) -> None:
    MAKERS[name.split("/")[0]](tmp_path / name.split("/")[0])
    words = ["pretrain", recipe, "--dataset", str(tmp_path / name), "--output", str(tmp_path / "run"), "--streaming"]
    assert main([*words, "--monitor_steps", "0"]) == 0


def solid(folder: Path, colour: tuple[int, int, int], count: int) -> str:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((40, 40, 3), colour, np.uint8)).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.parametrize("streaming", [False, True])
def test_sources_are_mixed_by_weight(
    streaming: bool, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven of ten images are red, although there are three times as many green ones."""
    red, green = solid(tmp_path / "red", (255, 0, 0), 20), solid(tmp_path / "green", (0, 255, 0), 60)
    seen: list[torch.Tensor] = []
    compute_loss = LadderTrainer.compute_loss

    def recording(self: LadderTrainer, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        seen.append(inputs["pixel_values"][:, 0].mean(dim=(2, 3)))
        return compute_loss(self, model, inputs, *rest, **options)

    monkeypatch.setattr(LadderTrainer, "compute_loss", recording)
    words = ["--dataset", red, "--dataset", green, "--mix", "0.7", "0.3", "--output", str(tmp_path / "run")]
    words += ["--max_steps", "10", "--jitter", "0", "--grayscale", "0", "--monitor_steps", "0"]
    assert main(["pretrain", recipe, *words, *(["--streaming"] if streaming else [])]) == 0
    means = torch.cat(seen)
    is_red = means[:, 0] > means[:, 1]
    assert len(is_red) == 80
    if streaming:
        assert abs(is_red.float().mean() - 0.7) < 3 * (0.7 * 0.3 / 80) ** 0.5
    else:
        assert is_red.sum() == 56  # one pass of 80 images, of which exactly seven tenths
    records = json.loads((tmp_path / "run" / "run.json").read_text())["datasets"]
    assert [record["name"] for record in records] == [red, green]


def test_device_views_are_one_flag_away_and_train_the_same(recipe: str, tmp_path: Path) -> None:
    name, losses = fill_folder(tmp_path / "folder"), []
    for run, flag in (("cpu", []), ("device", ["--device_views"])):
        words = ["pretrain", recipe, "--dataset", name, "--output", str(tmp_path / run), "--max_steps", "4", *flag]
        assert main([*words, "--monitor_steps", "0", "--dataloader_num_workers", "1"]) == 0
        logged = json.loads((tmp_path / run / "trainer_state.json").read_text())["log_history"]
        losses.append([entry["loss"] for entry in logged if "loss" in entry])
    assert len(losses[0]) == 4
    # only the rounding to 8 bits between the operations differs
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]


def test_too_many_unreadable_images_stop_the_run_and_are_listed(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = fill_folder(tmp_path / "folder")
    (tmp_path / "folder" / "train" / "cat" / "page.jpg").write_text("<html>")
    words = ["pretrain", recipe, "--dataset", name, "--max_steps", "6", "--save_steps", "1", "--data_seed", "3"]
    assert main([*words, "--output", str(tmp_path / "strict")]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ladder: stopped: 1 of the ") and "goes on with a larger max_bad_fraction" in error
    assert "bad_images.jsonl" in error
    assert json.loads((tmp_path / "strict" / "run.json").read_text())["status"] == "stopped"
    assert (tmp_path / "strict" / "checkpoint-1").is_dir()
    assert main([*words, "--output", str(tmp_path / "patient"), "--max_bad_fraction", "0.05"]) == 0
    assert main([*words, "--output", str(tmp_path / "strict"), "--max_bad_fraction", "0.05"]) == 0
    first, second = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("strict", "patient"))
    assert first == second
    for run in ("strict", "patient"):
        (line,) = (tmp_path / run / "bad_images.jsonl").read_text().splitlines()
        record = json.loads(line)
        assert record["key"] == str(tmp_path / "folder" / "train" / "cat" / "page.jpg")
        assert record["source"] == name
        assert record["reason"] == "not an image"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "words"], "no image column in the data set; its columns are: text, size"),
        (["--dataset", "words", "--streaming"], "no image column in the data set; its columns are: text, size"),
        (["--dataset", "nobody/nothing"], "nobody/nothing: "),
        (["--dataset", "nobody/nothing", "--streaming"], "nobody/nothing: "),
        (["--dataset", "./nowhere"], "./nowhere: no such data set"),
        (["--dataset", "digits", "--dataset", "digits", "--mix", "1"], "1 mixing weights for 2 data sets"),
        (["--dataset", "digits", "--dataset", "digits", "--mix", "1", "-1"], "mix must be greater than 0, got -1"),
        (["--dataset", "digits", "--image_column", "photo"], "no column 'photo' in the data set"),
        (["--dataset", "digits", "--split", "dev"], "no split 'dev'; its splits are: train, test"),
        (
            ["--dataset", "digits", "--max_bad_fraction", "2"],
            "max_bad_fraction must be at least 0 and at most 1",
        ),
        (["--dataset", "digits", "--shuffle_buffer", "0"], "shuffle_buffer must be at least 1, got 0"),
        (["--dataset", "digits", "--per_device_train_batch_size", "5000"], "fewer than one optimizer step uses"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    words: list[str],
    message: str,
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words").mkdir()
    datasets.Dataset.from_dict({"text": ["a"], "size": [1]}).to_parquet("words/train.parquet")
    capsys.readouterr()
    assert main(["pretrain", recipe, "--output", "run", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ladder: error: ")
    assert message in error
    assert not Path("run").exists()
