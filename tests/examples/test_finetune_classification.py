"""The fine-tuning example: from a backbone to a classifier that transformers loads; classes are matched by name."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest
from sklearn.datasets import load_digits
from transformers import BitImageProcessor, ResNetForImageClassification

from helpers.models import tiny_native_backbone
from helpers.paths import ROOT
from helpers.pictures import encode

EXAMPLE = ROOT / "examples/finetune_classification.py"
SETTINGS = {"flip": False, "epochs": 1, "min_steps": 60, "batch_size": 32, "learning_rates": (3e-3,), "device": "cpu"}


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


def test_the_example_learns_digits_and_saves_a_classifier(example: ModuleType, backbone: Path, tmp_path: Path) -> None:
    output = tmp_path / "finetuned"
    metrics = example.fine_tune(str(backbone), "digits", str(output), **SETTINGS)
    assert metrics["accuracy"] > 0.5  # chance is 0.1
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
    metrics = example.fine_tune(str(backbone), str(root), str(tmp_path / "out"), **SETTINGS)
    assert metrics["accuracy"] > 0.5  # chance is 0.1; by position it would be at most about 0.1
    printed = capsys.readouterr().out
    assert f"1 class is only in split train: {'digit 3' if kind == 'permuted names' else '3'}" in printed
    assert ("by name" in printed) == (kind == "permuted names")


@pytest.mark.usefixtures("own_cache")
def test_the_words_of_the_command_line(example: ModuleType, backbone: Path, tmp_path: Path) -> None:
    words = ["--model", str(backbone), "--dataset", "digits", "--output_dir", str(tmp_path / "out")]
    assert example.main([*words, "--max_steps", "2", "--report_to", "none", "--device", "cpu"]) == 0
    assert ResNetForImageClassification.from_pretrained(tmp_path / "out").config.num_labels == 10
    assert example.main([*words, "--report_to", "wandb"]) == 2
