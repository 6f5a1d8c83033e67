"""Backbones by name: `--backbone resnet50` stands for a transformers config. No weights are loaded."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError, did_you_mean, near_names

# Lists are written out even where transformers has the same default: some of its classes need a list and default to
# a tuple. The ViT is transformers' DINOv2 network, a ViT with layer scale, at patches of 16: transformers' own ViT
# returns no feature maps.
BACKBONES: Mapping[str, Mapping[str, Any]] = {
    "resnet-tiny": {
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 128, 256],
        "depths": [1, 1, 1, 1],
    },
    "resnet18": {
        "model_type": "resnet",
        "layer_type": "basic",
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
    },
    "resnet50": {"model_type": "resnet", "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]},
    "convnext-tiny": {"model_type": "convnext", "hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]},
    "swin-tiny": {"model_type": "swin", "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "vit-small": {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_attention_heads": 6,
        "patch_size": 16,
        "image_size": 224,
    },
    "dinov2-small": {
        "model_type": "dinov2",
        "hidden_size": 384,
        "num_attention_heads": 6,
        "patch_size": 14,
        "image_size": 518,
    },
}


def named_backbone(name: str) -> dict[str, Any] | None:
    """Return the config of a backbone by name.

    Args:
        name: One of `BACKBONES` (case, and `_` for `-`, do not matter), or timm/NAME, a network of timm.

    Returns:
        Fields of a transformers config with `model_type`; None for `USER/NAME` or a folder: its config must be read.

    Raises:
        UserError: there is no such name; the message lists those there are.
    """
    known = {_plain(known): values for known, values in BACKBONES.items()}
    if _plain(name) in known:
        return dict(known[_plain(name)])
    if name.startswith("timm/"):
        # Behind a dot stands which weights; a backbone by name has none.
        return {"model_type": "timm_wrapper", "architecture": name.removeprefix("timm/").partition(".")[0]}
    if "/" in name or name.startswith((".", "~")):
        return None
    near = did_you_mean(near_names(name, BACKBONES))
    raise UserError(f"there is no backbone {name!r}: {', '.join(BACKBONES)}, timm/NAME, or USER/NAME{near}")


def _plain(name: str) -> str:
    """Spell a name in the one way in which names are compared."""
    return name.lower().replace("_", "").replace("-", "")
