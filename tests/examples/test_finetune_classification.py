"""The fine-tuning example: exact gradient accumulation, and a run from an exported backbone to a saved classifier."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BitImageProcessor,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
)

from helpers.models import tiny_native_backbone
from helpers.paths import ROOT

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
