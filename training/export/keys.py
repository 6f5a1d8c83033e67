"""Names of a ResNet's tensors in other libraries.

The ResNets of transformers, torchvision and timm are one network (v1.5: the stride is in the 3x3 convolution) with
different names. detectron2 computes the same with STRIDE_IN_1X1 set to False.
"""

import re
from typing import Any

from ..errors import UserError

# (layer type, depths) of the standard ResNets; the planes of their stages are `PLANES`.
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


class NotHeld(UserError):
    """A format cannot hold a backbone: the reason. `export` adds the formats that can."""


def check_convertible(config: Any) -> None:
    """Check that the ResNets of other libraries can compute what this backbone computes.

    Raises:
        NotHeld: the backbone is not a ResNet, or has a stride or activation that they do not support.
    """
    if config.model_type != "resnet":
        raise NotHeld(
            f"this format holds ResNets only (transformers' ResNet), and the backbone is {config.model_type!r}"
        )
    for name in ("downsample_in_first_stage", "downsample_in_bottleneck"):
        if getattr(config, name):
            raise NotHeld(f"the backbone has {name}=True, unknown to this format")
    if config.hidden_act != "relu":
        raise NotHeld(f"the backbone's activation is {config.hidden_act!r}, this format's is relu")


def standard_name(config: Any) -> str | None:
    """Name the standard ResNet of a backbone's shape, such as "resnet50"; None for other depths or widths."""
    expansion = 4 if config.layer_type == "bottleneck" else 1
    widths = tuple(width // expansion for width in config.hidden_sizes)
    if widths != PLANES or config.embedding_size != STEM or config.num_channels != 3:
        return None
    return STANDARD.get((config.layer_type, tuple(config.depths)))


def torchvision_key(name: str) -> str:
    """Map `encoder.stages.0.layers.1.layer.2.convolution.weight` to `layer1.1.conv3.weight`, also for timm."""
    if stem := _STEM_KEY.match(name):
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    stage, layer, position, shortcut, kind, leaf = _block(name)
    convolution = kind == "convolution"
    if shortcut:
        inner = f"downsample.{0 if convolution else 1}"
    else:
        inner = f"{'conv' if convolution else 'bn'}{int(position) + 1}"
    return f"layer{int(stage) + 1}.{layer}.{inner}.{leaf}"


def detectron2_key(name: str) -> str | None:
    """Map `encoder.stages.0.layers.1.layer.2.normalization.bias` to `res2.1.conv3.norm.bias`; None if D2 has none."""
    if name.endswith("num_batches_tracked"):
        return None
    if stem := _STEM_KEY.match(name):
        return f"stem.conv1.{'' if stem[1] == 'convolution' else 'norm.'}{stem[2]}"
    stage, layer, position, shortcut, kind, leaf = _block(name)
    inner = "shortcut" if shortcut else f"conv{int(position) + 1}"
    return f"res{int(stage) + 2}.{layer}.{inner}.{'' if kind == 'convolution' else 'norm.'}{leaf}"


def _block(name: str) -> tuple[str, ...]:
    """Split a tensor's name into stage, layer, position in the block, shortcut, kind of module, and parameter."""
    match = _BLOCK_KEY.match(name)
    if match is None:
        raise NotHeld(f"the backbone has a tensor {name!r} that no transformers ResNet has")
    return match.groups()
