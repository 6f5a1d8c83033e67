"""A model and a set of coloured squares to explore."""

import cv2
import numpy as np
import pytest

from helpers.models import tiny_native_backbone
from ladder_training.exploration.options import ExploreOptions
from ladder_training.models.processor import image_processor


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> ExploreOptions:
    """Options that explore 24 images of four colours, the last one twice, by a tiny network and it untrained."""
    folder = tmp_path_factory.mktemp("explored")
    noise = np.random.default_rng(0)
    for number in range(24):
        colour = ("red", "green", "blue", "grey")[number % 4]
        image = noise.integers(0, 40, (48, 64, 3), dtype=np.uint8)
        image[..., [2, 1, 0] if colour == "grey" else {"red": 2, "green": 1, "blue": 0}[colour]] += 180
        path = folder / "images" / colour / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    last = folder / "images" / "grey" / "23.png"
    (folder / "images" / "grey" / "24.png").write_bytes(last.read_bytes())
    stages = ["stage1", "stage2", "stage3", "stage4"]
    tiny_native_backbone(1, out_features=stages).save_pretrained(folder / "model")
    image_processor(64).save_pretrained(folder / "model")
    return ExploreOptions(
        model=str(folder / "model"),
        dataset=str(folder / "images"),
        beside="untrained",
        output=str(folder / "out"),
        port=0,
        device="cpu",
    )
