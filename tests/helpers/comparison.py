"""A tiny comparison, and the command that makes it."""

import json
from pathlib import Path
from typing import Any

from ladder_training.cli.entry import main

RECIPE = """
dataset: digits
image_size: 32
backbone_config: {model_type: resnet, layer_type: basic, embedding_size: 16, hidden_sizes: [16, 16, 24, 32],
  depths: [1, 1, 1, 1]}
projection_hidden_size: 16
projection_size: 8
optimizer: adamw
learning_rate: 1e-3
per_device_train_batch_size: 16
max_steps: 6
warmup_steps: 2
logging_steps: 2
monitor_steps: 3
"""
# kNN of the last stage at steps 0, 3, 6, by method: the fake ladder reaches byol's end at half its steps.
CURVES = {"byol": [0.1, 0.2, 0.4], "ladder": [0.1, 0.4, 0.6]}


def compare(recipe: str, folder: Path, *words: str, methods: str = "byol ladder", seeds: str = "0 1 2") -> int:
    command = ["compare", recipe, "--output", str(folder), "--gradients", "false"]
    return main([*command, "--methods", *methods.split(), "--seeds", *seeds.split(), *words])


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
