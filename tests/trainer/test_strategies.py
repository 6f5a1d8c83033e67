"""When a run looks, saves and logs: by steps, at the end of each pass, or at the best look."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.pictures import encode
from helpers.training import assert_equal, make_arguments, make_model, weights
from ladder_training import LadderTrainer, TwoViewTransform
from ladder_training.errors import UserError


def pictures(count: int, labels: bool = True, seed: int = 0) -> datasets.Dataset:
    """Noisy PNGs of 32 x 32 pixels; the class is the colour."""
    generator = np.random.default_rng(seed)
    files = []
    for index in range(count):
        pixels = generator.integers(0, 80, (32, 32, 3), dtype=np.uint8)
        pixels[..., index % 3] += 150
        files.append({"bytes": encode(pixels), "path": None})
    rows: dict[str, Any] = {"image": files, "label": [index % 3 for index in range(count)]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["r", "g", "b"])})
    made = datasets.Dataset.from_dict(rows, features=features)
    return made if labels else made.remove_columns("label")


def trainer_of(backbone: Any, folder: Path, data: Any, held_out: Any = None, **fields: Any) -> LadderTrainer:
    """Four images per step."""
    given = {"learning_rate": 0.05, "max_steps": -1, "num_train_epochs": 3, **fields}
    arguments = make_arguments(folder, **given)
    return LadderTrainer(make_model(backbone), arguments, data, held_out, transform=TwoViewTransform(size=32))


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def looks(trainer: LadderTrainer) -> list[int]:
    return [entry["step"] for entry in trainer.state.log_history if "rank/stage1.local" in entry]


@pytest.mark.parametrize(
    ("count", "fields", "expected"),
    [
        (20, {}, [5, 10, 15]),
        (20, {"max_steps": 12}, [5, 10, 12]),
        (20, {"gradient_accumulation_steps": 2, "num_train_epochs": 2}, [2, 4]),
        (20, {"save_total_limit": 1}, [15]),
    ],
)
def test_save_strategy_epoch_saves_every_pass(tiny_backbone, tmp_path, count, fields, expected) -> None:
    trainer = trainer_of(tiny_backbone, tmp_path, pictures(count), save_strategy="epoch", monitor_steps=0, **fields)
    trainer.train()
    assert checkpoints(tmp_path) == expected
    assert trainer.state.global_step == expected[-1]


def test_streams_of_known_length_are_saved_every_pass_and_others_refused(tiny_backbone, tmp_path) -> None:
    stream = pictures(20).to_iterable_dataset(num_shards=2)
    stream.info.splits = None
    fields = {"save_strategy": "epoch", "monitor_steps": 0, "max_steps": 11, "num_train_epochs": 1}
    with pytest.raises(UserError, match=r"^save_strategy: epoch needs the number of images, but this stream does not"):
        trainer_of(tiny_backbone, tmp_path / "unknown", stream, **fields).train()
    known = pictures(20).to_iterable_dataset(num_shards=2)
    known.info.splits = datasets.SplitDict({"train": datasets.SplitInfo("train", num_examples=20)})
    known._split = datasets.NamedSplit("train")
    trainer = trainer_of(tiny_backbone, tmp_path / "known", known, **fields)
    trainer.train()
    assert checkpoints(tmp_path / "known") == [5, 10, 11]


def test_eval_and_logging_strategies(tiny_backbone, tmp_path) -> None:
    held_out = pictures(12, seed=1)
    by_steps = trainer_of(
        tiny_backbone, tmp_path / "a", pictures(20), held_out, eval_strategy="steps", eval_steps=4, max_steps=10
    )
    by_steps.train()
    assert looks(by_steps) == [0, 4, 8, 10]
    by_pass = trainer_of(
        tiny_backbone, tmp_path / "b", pictures(20), held_out, eval_strategy="epoch", logging_strategy="epoch"
    )
    by_pass.train()
    assert looks(by_pass) == [0, 5, 10, 15]
    assert [entry["step"] for entry in by_pass.state.log_history if "loss" in entry] == [5, 10, 15]
    both = trainer_of(
        tiny_backbone, tmp_path / "c", pictures(20), held_out, eval_strategy="epoch", monitor_steps=4, max_steps=10
    )
    both.train()
    assert looks(both) == [0, 4, 5, 8, 10]
    late = trainer_of(
        tiny_backbone, tmp_path / "d", pictures(20), held_out, eval_strategy="epoch", eval_delay=2, eval_on_start=True
    )
    late.train()
    assert looks(late) == [0, 10, 15]


class Judged(LadderTrainer):
    """Its looks at steps 2, 4, 6 and 8 find these values."""

    found = {2: 0.3, 4: 0.9, 6: 0.5, 8: 0.6}  # noqa: RUF012

    def look(self) -> Any:
        measured = super().look()
        if measured is not None and self.state.global_step:
            measured.knn["stage4"] = self.found[self.state.global_step]
        return measured


@pytest.mark.parametrize("strategy", ["steps", "best"])
def test_the_best_checkpoint_is_kept_and_loaded(tiny_backbone, tmp_path, strategy) -> None:
    fields = {
        "max_steps": 8,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "save_strategy": strategy,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "knn/stage4",
    }
    arguments = make_arguments(tmp_path, learning_rate=0.05, **fields)
    transform = TwoViewTransform(size=32)
    trainer = Judged(make_model(tiny_backbone), arguments, pictures(40), pictures(12, seed=1), transform=transform)
    trainer.train()
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (4, 0.9)
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-4"
    assert checkpoints(tmp_path) == [4]
    best = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    found = weights(trainer.pretraining_model)
    assert_equal({name: found[name] for name in best}, best)
    saved = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text(encoding="utf-8"))
    assert Path(saved["best_model_checkpoint"]).name == "checkpoint-4"


def test_looks_between_checkpoints_never_name_a_best_that_was_not_saved(tiny_backbone, tmp_path) -> None:
    fields = {"max_steps": 8, "monitor_steps": 2, "save_strategy": "steps", "save_steps": 6, "save_total_limit": None}
    arguments = make_arguments(tmp_path, learning_rate=0.05, metric_for_best_model="knn/stage4", **fields)
    transform = TwoViewTransform(size=32)
    trainer = Judged(make_model(tiny_backbone), arguments, pictures(40), pictures(12, seed=1), transform=transform)
    trainer.train()
    assert checkpoints(tmp_path) == [6, 8]
    assert (trainer.state.best_global_step, trainer.state.best_metric) == (8, 0.6)


@pytest.mark.parametrize(
    ("fields", "labels", "message"),
    [
        ({"metric_for_best_model": "loss"}, True, r"must be one of knn/stage1, .*knn/all, std/stage1.local, .* 'loss'"),
        ({"metric_for_best_model": "knn/stage4"}, False, r"must be one of std/stage1.local, .*\(knn needs labels\)"),
        ({"save_strategy": "best"}, True, "save_strategy: best needs metric_for_best_model, one of knn/stage1"),
    ],
)
def test_a_metric_that_is_not_measured_is_refused(tiny_backbone, tmp_path, fields, labels, message) -> None:
    with pytest.raises(UserError, match=message):
        trainer_of(tiny_backbone, tmp_path, pictures(20), pictures(12, labels), **fields)
    assert not any(tmp_path.rglob("*.json"))


def test_looks_need_images_to_look_at(tiny_backbone, tmp_path) -> None:
    with pytest.raises(UserError, match="need held-out images"):  # 1 % of 20 images is none
        trainer_of(tiny_backbone, tmp_path, pictures(20), eval_strategy="steps", eval_steps=2)


def test_a_checkpoint_that_does_not_exist_is_refused(tiny_backbone, tmp_path) -> None:
    fields = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "monitor_steps": 0}
    with pytest.raises(UserError, match=r"resume_from_checkpoint: there is no checkpoint .*nowhere"):
        trainer_of(
            tiny_backbone, tmp_path, pictures(20), resume_from_checkpoint=str(tmp_path / "nowhere"), **fields
        ).train()
    whole = trainer_of(tiny_backbone, tmp_path, pictures(20), **fields)
    whole.train()
    there = str(tmp_path / "checkpoint-2")
    resumed = trainer_of(tiny_backbone, tmp_path, pictures(20), resume_from_checkpoint=there, **fields)
    resumed.train()
    first = next(entry["step"] for entry in reversed(resumed.state.log_history[:-1]) if "loss" in entry)
    assert first == 4
    torch.testing.assert_close(weights(resumed.model), weights(whole.model), rtol=0, atol=0)
