"""The packaged recipes that go on from a published backbone, each from a small one of its family, on two steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetForImageClassification,
)

from ladder_training.cli.entry import main
from ladder_training.config.recipe import packaged_recipes
from ladder_training.evaluation.backbone import load_backbone
from ladder_training.models.processor import image_processor
from ladder_training.models.reference import load_model

WIDTHS = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
# What the recipe's publisher saved (ResNet and ConvNeXt with a classifier, DINOv2 of twelve blocks without), small; the
# side of the images, two cells of a third stage or four patches of 14 pixels; and the levels that the recipe promises.
PUBLISHED: dict[str, tuple[Any, int, list[str]]] = {
    "continue_resnet50": (
        lambda: ResNetForImageClassification(ResNetConfig(embedding_size=16, num_labels=3, **WIDTHS)),
        64,
        ["stage1", "stage2", "stage3", "stage4"],
    ),
    "continue_convnext": (
        lambda: ConvNextForImageClassification(ConvNextConfig(num_labels=3, **WIDTHS)),
        64,
        ["stage1", "stage2", "stage3", "stage4"],
    ),
    "continue_dinov2": (
        lambda: Dinov2Model(Dinov2Config(hidden_size=32, num_hidden_layers=12, num_attention_heads=2, image_size=56)),
        56,
        ["stage3", "stage6", "stage9", "stage12"],
    ),
}
SMALLER = (
    "--max_steps 2 --per_device_train_batch_size 4 --projection_hidden_size 16 --projection_size 8 --warmup_epochs 0 "
    "--dataloader_num_workers 0 --use_cpu true --report_to none --monitor_steps 0 --disable_tqdm true"
)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """An unlabelled folder of twelve images."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (80, 96, 3), dtype=np.uint8)).save(folder / f"{index}.jpg")
    return folder


def test_every_such_recipe_is_tried() -> None:
    assert {name for name in packaged_recipes() if name.startswith("continue_")} == PUBLISHED.keys()


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_two_steps_change_the_published_weights_a_little(recipe: str, photographs: Path, tmp_path: Path) -> None:
    make, size, levels = PUBLISHED[recipe]
    published, run = tmp_path / "published", tmp_path / "run"
    torch.manual_seed(0)
    make().save_pretrained(published)
    image_processor(size).save_pretrained(published)
    words = [recipe, "--from", str(published), "--dataset", str(photographs), "--output", str(run)]
    assert main(["pretrain", *words, "--image_size", str(size), *SMALLER.split()]) == 0

    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["steps"], record["images_seen"]) == ("finished", 2, 8)
    assert record["recipe"]["name"] == recipe and record["recipe"]["values"]["from_model"] == str(published)
    trained = json.loads((run / "pretraining" / "config.json").read_text(encoding="utf-8"))
    assert trained["level_names"] == levels
    before, after = (load_model(str(folder)).state_dict() for folder in (published, run))
    weights = [name for name, value in before.items() if value.is_floating_point() and value.ndim > 1 and value.any()]
    changes = [((after[name] - before[name]).norm() / before[name].norm()).item() for name in weights]
    # Far from another random network, where this is above 1, but trained: no recipe leaves the backbone as it was.
    assert 0 < max(changes) < 0.2, max(changes)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = load_backbone(str(run))(images)
    assert set(levels) <= maps.keys() and all(torch.isfinite(value).all() for value in maps.values())
