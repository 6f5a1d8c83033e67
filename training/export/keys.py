"""Names of a ResNet's tensors in other libraries.

transformers' ResNet is torchvision's v1.5 (the stride sits in the 3x3 convolution) under other names, and so is timm's.
detectron2 loads the same weights with STRIDE_IN_1X1 set to False.
"""

import re
from typing import Any

from ..errors import UserError

# (layer type, depths) of the named members of the family; all have stages of 64 to 512 planes.
STANDARD = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
PLANES = (64, 128, 256, 512)
STEM = 64
_STEM_KEY = re.compile(r"embedder\.embedder\.(convolution|normalization)\.(\w+)$")
_BLOCK_KEY = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|(shortcut))\.(convolution|normalization)\.(\w+)$"
)


def check_convertible(config: Any) -> None:
    """Whether other libraries' ResNets compute what this backbone computes.

    Raises:
        UserError: the backbone is no ResNet, or one with a stride or activation that they do not have.
    """
    if config.model_type != "resnet":
        raise UserError(
            f"this format holds ResNets only, and the backbone is {config.model_type!r}; use transformers or onnx"
        )
    for name in ("downsample_in_first_stage", "downsample_in_bottleneck"):
        if getattr(config, name):
            raise UserError(f"the backbone has {name}=True, unknown to this format; use transformers or onnx")
    if config.hidden_act != "relu":
        raise UserError(f"the backbone's activation is {config.hidden_act!r}, this format's is relu; use onnx")


def standard_name(config: Any) -> str | None:
    """ "resnet50" and the like where the backbone has that shape; None for other depths or widths."""
    expansion = 4 if config.layer_type == "bottleneck" else 1
    widths = tuple(width // expansion for width in config.hidden_sizes)
    if widths != PLANES or config.embedding_size != STEM or config.num_channels != 3:
        return None
    return STANDARD.get((config.layer_type, tuple(config.depths)))


def torchvision_key(name: str) -> str:
    """`encoder.stages.0.layers.1.layer.2.convolution.weight` -> `layer1.1.conv3.weight`; timm's names are the same."""
    if stem := _STEM_KEY.match(name):
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    stage, layer, place, shortcut, kind, leaf = _block(name)
    convolution = kind == "convolution"
    if shortcut:
        inner = f"downsample.{0 if convolution else 1}"
    else:
        inner = f"{'conv' if convolution else 'bn'}{int(place) + 1}"
    return f"layer{int(stage) + 1}.{layer}.{inner}.{leaf}"


def detectron2_key(name: str) -> str | None:
    """`encoder.stages.0.layers.1.layer.2.normalization.bias` -> `res2.1.conv3.norm.bias`; None for what D2 lacks."""
    if name.endswith("num_batches_tracked"):
        return None
    if stem := _STEM_KEY.match(name):
        return f"stem.conv1.{'' if stem[1] == 'convolution' else 'norm.'}{stem[2]}"
    stage, layer, place, shortcut, kind, leaf = _block(name)
    inner = "shortcut" if shortcut else f"conv{int(place) + 1}"
    return f"res{int(stage) + 2}.{layer}.{inner}.{'' if kind == 'convolution' else 'norm.'}{leaf}"


def _block(name: str) -> tuple[str, ...]:
    """Stage, layer, place in the block, shortcut, kind of module, and tensor of a name inside a stage."""
    found = _BLOCK_KEY.match(name)
    if found is None:
        raise UserError(f"the backbone has a tensor {name!r} that no transformers ResNet has; it cannot be converted")
    return found.groups()
