"""Evaluation on the GPU gives the results of the CPU."""

from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from helpers.models import tiny_native_backbone
from ladder_training.evaluation import knn, linear

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("exact")]


def tinted(count: int, seed: int) -> Any:
    """Noise of four colours, which are the classes."""
    generator = np.random.default_rng(seed)
    images = []
    for number in range(count):
        pixels = generator.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[..., number % 4 % 3] += np.uint8(80 + 40 * (number % 4 == 3))
        images.append(Image.fromarray(pixels))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))})
    return datasets.Dataset.from_dict({"image": images, "label": [n % 4 for n in range(count)]}, features=features)


@pytest.mark.parametrize("task", [knn, linear])
def test_accuracies_are_those_of_the_cpu(task: Any, device: Any) -> None:
    backbone = tiny_native_backbone(out_features=["stage1", "stage2", "stage3", "stage4"])
    settings = {"image_size": 32} | ({"epochs": 5} if task is linear else {})
    results = [
        task(backbone, tinted(160, 0), test_dataset=tinted(80, 1), device=place, **settings)
        for place in ("cpu", str(device))
    ]
    for stage, metrics in results[0].metrics.items():
        assert results[1].metrics[stage]["accuracy"] == pytest.approx(metrics["accuracy"], abs=0.03), stage
