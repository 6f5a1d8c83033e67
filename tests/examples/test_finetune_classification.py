"""The fine-tuning example: exact gradient accumulation, and a run from an exported backbone to a saved classifier."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import (
    BitImageProcessor,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
)

from helpers.models import tiny_native_backbone
from helpers.paths import ROOT
from helpers.pictures import encode

EXAMPLE = ROOT / "examples/finetune_classification.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("finetune_classification", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["finetune_classification"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    folder = tmp_path / "backbone"
    stages = ["stage1", "stage2", "stage3", "stage4"]
    tiny_native_backbone(hidden_sizes=[8, 16, 16, 32], out_features=stages).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def first_step(model: nn.Module, accumulation: int, folder: Path) -> tuple[float, float]:
    """Logged loss and gradient norm of one optimizer step on the same eight images."""
    generator = torch.Generator().manual_seed(1)
    rows = [{"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": index % 3} for index in range(8)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        logging_steps=1,
        max_grad_norm=1e9,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
    )

    class InEvalMode(Trainer):
        """Batch norm with fixed statistics: micro-batches must then add up to the whole batch exactly."""

        def training_step(self, model: nn.Module, *args: object, **kwargs: object) -> torch.Tensor:
            model.train = lambda mode=True: model
            model.eval()
            return super().training_step(model, *args, **kwargs)

    trainer = InEvalMode(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return log["loss"], log["grad_norm"]


def test_four_micro_batches_are_one_batch(example: ModuleType, backbone: Path, tmp_path: Path) -> None:
    labels = ["a", "b", "c"]

    def classifier() -> nn.Module:
        torch.manual_seed(2)
        return example.load_classifier(str(backbone), labels)

    whole_loss, whole_norm = first_step(classifier(), 1, tmp_path / "one")
    loss, norm = first_step(classifier(), 4, tmp_path / "four")
    # The log rounds losses to a few digits.
    assert loss == pytest.approx(whole_loss, rel=2e-3)
    assert norm == pytest.approx(whole_norm, rel=1e-3)
    torch.manual_seed(2)
    plain = ResNetForImageClassification.from_pretrained(backbone, num_labels=3)
    wrong_loss, wrong_norm = first_step(plain, 4, tmp_path / "wrong")
    # Without the example's line the same step is four times too large: this test can fail.
    assert wrong_loss == pytest.approx(4 * whole_loss, rel=2e-3)
    assert wrong_norm == pytest.approx(4 * whole_norm, rel=1e-3)


def test_accuracy_is_counted_right(example: ModuleType) -> None:
    found = example.Accuracy().compute(predictions=np.array([0, 1, 2, 2]), references=np.array([0, 1, 1, 2]))
    assert found == {"accuracy": 0.75}


def test_the_example_learns_digits_and_saves_a_classifier(example: ModuleType, backbone: Path, tmp_path: Path) -> None:
    output = tmp_path / "finetuned"
    words = f"""--model {backbone} --dataset digits --flip false --output_dir {output} --max_steps 60
    --per_device_train_batch_size 32 --gradient_accumulation_steps 2 --learning_rate 3e-3 --save_strategy no
    --logging_steps 20 --disable_tqdm true --use_cpu true --report_to none"""
    metrics = example.main(words.split())
    assert metrics["eval_accuracy"] > 0.5  # chance is 0.1
    saved = ResNetForImageClassification.from_pretrained(output)
    assert saved.config.num_labels == 10
    assert (output / "preprocessor_config.json").is_file()


def labelled_digits(rows: range, feature: datasets.ClassLabel | datasets.Value, numbers: list[int]) -> datasets.Dataset:
    """Digits whose true class c has the label numbers[c]."""
    digits = load_digits()
    pictures = [encode((digits.images[row] * 15.9).astype(np.uint8)) for row in rows]
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    labels = [numbers[digits.target[row]] for row in rows]
    rows = {"image": [{"bytes": picture, "path": None} for picture in pictures], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("kind", ["permuted names", "plain integers"])
def test_labels_of_the_scored_split_are_matched_by_name(
    example: ModuleType, backbone: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, plain = tmp_path / "data", list(range(10))
    root.mkdir()
    names = [f"digit {number}" for number in range(10)]
    train = test = datasets.Value("int64")
    numbers = plain
    if kind == "permuted names":
        train, test = datasets.ClassLabel(names=names), datasets.ClassLabel(names=names[::-1])
        numbers = plain[::-1]
    labelled_digits(range(600), train, plain).to_parquet(root / "train.parquet")
    scored = labelled_digits(range(600, 800), test, numbers)
    # No image of the digit 3: the labels after it must not move.
    scored.filter(lambda label: label != numbers[3], input_columns="label").to_parquet(root / "test.parquet")
    words = f"""--model {backbone} --dataset {root} --flip false --output_dir {tmp_path / "out"} --max_steps 60
    --per_device_train_batch_size 32 --learning_rate 3e-3 --save_strategy no --logging_steps 20 --disable_tqdm true
    --use_cpu true --report_to none"""
    metrics = example.main(words.split())
    assert metrics["eval_accuracy"] > 0.5  # chance is 0.1; by position it would be at most about 0.1
    printed = capsys.readouterr().out
    assert f"1 class is only in split train: {'digit 3' if kind == 'permuted names' else '3'}" in printed
    assert ("by name" in printed) == (kind == "permuted names")
