"""Tiny backbones of the families that transformers has."""

from typing import Any

import torch
from transformers import (
    ConvNextBackbone,
    ConvNextConfig,
    Dinov2Backbone,
    Dinov2Config,
    ResNetBackbone,
    ResNetConfig,
    SwinBackbone,
    SwinConfig,
)

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def tiny_family(family: str, seed: int = 0) -> Any:
    """A native backbone of a family in eval mode, with every weight away from its initial value."""
    torch.manual_seed(seed)
    if family == "resnet":
        model: Any = ResNetBackbone(
            ResNetConfig(
                layer_type="bottleneck",
                embedding_size=64,
                hidden_sizes=[32, 64, 96, 128],
                depths=[1, 1, 1, 1],
                out_features=STAGES,
            )
        )
    elif family == "convnext":
        model = ConvNextBackbone(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], out_features=STAGES))
    elif family == "swin":
        model = SwinBackbone(
            SwinConfig(
                image_size=32,
                patch_size=2,
                embed_dim=8,
                depths=[1, 1, 2, 1],
                num_heads=[1, 2, 2, 4],
                window_size=2,
                out_features=STAGES,
            )
        )
    elif family == "dinov2":
        model = Dinov2Backbone(
            Dinov2Config(
                hidden_size=32,
                num_hidden_layers=4,
                num_attention_heads=2,
                image_size=56,
                patch_size=14,
                out_features=STAGES,
            )
        )
    else:
        raise ValueError(family)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and tensor.ndim <= 1 and tensor.numel() > 1:
                tensor.add_(torch.randn_like(tensor) * 0.1)
    return model.eval()
