"""The tiny networks that tests train and load."""

from typing import Any

import torch
from transformers import ResNetBackbone, ResNetConfig

TINY: dict[str, Any] = {
    "layer_type": "basic",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 20],
    "depths": [1, 1, 1, 1],
}
"""A four-stage ResNet of 20 thousand parameters, as fields of its config."""
TINY_YAML = (
    "{model_type: resnet, layer_type: basic, embedding_size: 8, hidden_sizes: [8, 12, 16, 20], depths: [1, 1, 1, 1]}"
)
"""The same as a recipe's `backbone_config`."""


def tiny_resnet(**changes: Any) -> ResNetConfig:
    """The config of the tiny ResNet, with some fields changed."""
    return ResNetConfig(**{**TINY, **changes})


def tiny_native_backbone(seed: int = 0, **changes: Any) -> ResNetBackbone:
    """A native backbone of it in eval mode, with weights of a seed."""
    torch.manual_seed(seed)
    return ResNetBackbone(tiny_resnet(**{"out_features": ["stage4"], **changes})).eval()
