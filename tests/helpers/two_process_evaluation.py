"""Run by evaluation/test_two_processes.py under torchrun: every task that trains, on two processes."""

import sys

import numpy as np
import torch
from PIL import Image as PILImage

from helpers.models import tiny_native_backbone
from ladder_training.evaluation import detection, linear, segmentation, semi_supervised


def coloured(count, seed):
    """Images of one of three colours, their class, a label map and one box."""
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from datasets import List as ListOf

    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        image = generator.integers(0, 60, (48, 48, 3), dtype=np.uint8)
        image[..., index % 3] += 20
        image[12:36, 8:40, index % 3] = 240
        label_map = np.zeros((48, 48), np.uint8)
        label_map[12:36, 8:40] = index % 3 + 1
        objects = {"bbox": [[8.0, 12.0, 32.0, 24.0]], "category": [index % 3]}
        rows.append(
            {"image": image, "label": index % 3, "label_map": PILImage.fromarray(label_map), "objects": objects}
        )
    features = {
        "image": Image(),
        "label": ClassLabel(num_classes=3),
        "label_map": Image(),
        "objects": {"bbox": ListOf(ListOf(Value("float32"), length=4)), "category": ListOf(ClassLabel(num_classes=3))},
    }
    columns = {name: [row[name] for row in rows] for name in features}
    return Dataset.from_dict(columns, features=Features(features))


def evaluate_all(output):
    """Each task once; 31 images to score, which two processes cannot share evenly."""
    backbone, train, test = tiny_native_backbone(), coloured(48, 0), coloured(31, 1)
    common = {"test_dataset": test, "output": output, "device": "cpu"}
    linear(backbone, train, augment=True, train_batch_size=16, max_steps=12, image_size=32, **common)
    semi_supervised(
        backbone, train, label_fraction=0.5, learning_rates=(0.05,), min_steps=6, epochs=1, image_size=32, **common
    )
    small = {"batch_size": 2, "steps": 4, "warmup_steps": 1, "batch_norm": "train", "head_channels": 8}
    detection(backbone, train, short_sides=(48,), long_side=64, pyramid_channels=8, proposals=30, **small, **common)
    segmentation(backbone, train, label_column="label_map", crop_size=48, **small, **common)


if __name__ == "__main__":
    torch.set_num_threads(1)
    evaluate_all(sys.argv[1])
