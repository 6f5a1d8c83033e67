"""`LadderTrainer` on plain `datasets` objects: map-style, streaming, with and without an evaluation set."""

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from helpers.training import assert_equal, make_arguments, make_model, weights
from ladder_training import LadderTrainer, TwoViewTransform, load_image_stream
from ladder_training.images.center import center_view


def pictures(count: int, labels: bool = True, seed: int = 0) -> datasets.Dataset:
    """PNGs of 40 x 36 pixels; the class is the colour."""
    rng = np.random.default_rng(seed)
    files = []
    for index in range(count):
        pixels = rng.integers(0, 80, (36, 40, 3), dtype=np.uint8)
        pixels[..., index % 3] += 150
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append({"bytes": buffer.getvalue(), "path": None})
    columns: dict[str, Any] = {"picture": files}
    features = {"picture": datasets.Image()}
    if labels:
        columns["kind"] = [index % 3 for index in range(count)]
        features["kind"] = datasets.ClassLabel(names=["red", "green", "blue"])
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def train(tiny_backbone: Any, folder: Path, dataset: Any, eval_dataset: Any = None, **fields: Any) -> Any:
    """A trained trainer; `model.seen` holds one number for each image that was trained on."""
    model = make_model(tiny_backbone)
    args = make_arguments(folder, **{"max_steps": 4, "monitor_steps": 2, "learning_rate": 0.05, **fields})
    trainer = LadderTrainer(model, args, dataset, eval_dataset, transform=TwoViewTransform(size=32))
    trainer.train()
    return trainer


def entries(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_a_labelled_evaluation_set_gives_knn_of_every_stage_before_while_and_after_training(
    tiny_backbone, tmp_path
) -> None:
    trainer = train(tiny_backbone, tmp_path, pictures(40), pictures(30, seed=1))
    assert len(trainer.held_out) == 30
    assert len(trainer.train_dataset) == 40  # nothing was taken out of the training images
    for stage in ("stage1", "stage2", "stage3", "stage4", "all"):
        found = entries(trainer, f"knn/{stage}")
        assert len(found) == 3, stage  # steps 0, 2 and 4
        assert all(0.3 <= value <= 1 for value in found)
    assert entries(trainer, "knn/stage1")[0] > 0.9
    for level in ("stage1.local", "stage4.global"):
        assert all(value > 0.05 for value in entries(trainer, f"std/{level}"))
        assert all(value > 1 for value in entries(trainer, f"rank/{level}"))


def test_without_labels_only_the_collapse_figures_are_logged(tiny_backbone, tmp_path) -> None:
    trainer = train(tiny_backbone, tmp_path, pictures(24, labels=False), pictures(8, labels=False, seed=1))
    assert len(entries(trainer, "std/stage2.local")) == 3
    assert not any(key.startswith("knn/") for entry in trainer.state.log_history for key in entry)


@pytest.mark.parametrize("streaming", [False, True])
def test_without_an_evaluation_set_one_per_cent_is_kept_out_of_training(tiny_backbone, tmp_path, streaming) -> None:
    dataset = pictures(200)
    stream = dataset.to_iterable_dataset(num_shards=2) if streaming else dataset
    trainer = train(tiny_backbone, tmp_path, stream, monitor_steps=4, per_device_train_batch_size=4)
    assert len(trainer.held_out) == 2
    undecoded = datasets.Image(decode=False)
    left = {row["picture"]["bytes"] for row in trainer.train_dataset.cast_column("picture", undecoded)}
    held_out = {view.tobytes() for view in trainer.held_out.pixels}
    every = dataset.cast_column("picture", undecoded)
    taken = [
        row["picture"]["bytes"]
        for row in every
        if center_view(decode(row), 32, crop_fraction=1.0).tobytes() in held_out
    ]
    assert len(taken) == 2
    assert left == {row["picture"]["bytes"] for row in every} - set(taken)


def decode(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row["picture"]["bytes"])))


def test_a_stream_trains_and_gives_the_same_bits_again(tiny_backbone, tmp_path) -> None:
    def run(folder: str) -> dict[str, torch.Tensor]:
        stream = pictures(40).to_iterable_dataset(num_shards=4)
        trainer = train(tiny_backbone, tmp_path / folder, stream, monitor_steps=0, max_steps=12)
        assert trainer.passes >= 1
        return weights(trainer.pretraining_model)

    assert_equal(run("first"), run("second"))


def test_looking_at_a_run_changes_no_bit_of_it(tiny_backbone, tmp_path) -> None:
    """Evaluation mode, random states and batch-norm statistics are all put back."""
    watched = train(tiny_backbone, tmp_path / "a", pictures(24), pictures(8, seed=1), monitor_steps=1)
    alone = train(tiny_backbone, tmp_path / "b", pictures(24), monitor_steps=0)
    assert len(entries(watched, "std/stage1.local")) == 5
    assert_equal(weights(watched.pretraining_model), weights(alone.pretraining_model))


def test_images_of_a_folder_through_load_image_stream(tiny_backbone, tmp_path) -> None:
    folder = tmp_path / "images"
    for index, row in enumerate(pictures(16)):
        (folder / str(row["kind"])).mkdir(parents=True, exist_ok=True)
        row["picture"].save(folder / str(row["kind"]) / f"{index}.png")
    for streaming in (False, True):
        stream = load_image_stream(str(folder), split="train", streaming=streaming)
        trainer = train(tiny_backbone, tmp_path / f"run{streaming}", stream, monitor_steps=0, max_steps=2)
        assert np.isfinite(trainer.state.log_history[0]["loss"])
