"""Replace strides of a ResNet's last stages by dilation: denser feature maps from the same weights.

A stage of stride 2 gets stride 1, and its convolutions get twice the dilation. At every second position the map is then
exactly what it was (Chen et al. 2017, arXiv 1706.05587, section 3.1; OpenMMLab's "r50-d8").
"""

from typing import Any, cast

from torch import nn

from modeling_ladder.conversion import stage_names

from ...errors import UserError


def dilate(backbone: nn.Module, output_stride: int) -> list[str]:
    """Change a transformers ResNet in place so that no stage is coarser than `output_stride` pixels.

    Weights keep their names and shapes, so checkpoints load as before.

    Args:
        backbone: `ResNetBackbone`.
        output_stride: 4, 8, 16 or 32.

    Returns:
        Names of the changed stages.

    Raises:
        UserError: the backbone is not a ResNet.
    """
    stages = getattr(getattr(backbone, "encoder", None), "stages", None)
    kind = cast(Any, backbone.config).model_type
    if kind != "resnet" or stages is None:
        raise UserError(f"the fcn head dilates ResNets, and this backbone is a {kind}: use head: upernet")
    stride, dilation, changed = 4, 1, []
    for name, stage in zip(stage_names(backbone.config), stages, strict=True):
        before = dilation
        for block in stage.layers:
            stride, dilation = _dilate_block(block, stride, dilation, output_stride)
        if dilation != before:
            changed.append(name)
    return changed


def _dilate_block(block: nn.Module, stride: int, dilation: int, output_stride: int) -> tuple[int, int]:
    """Change one residual block; return stride and dilation of its output."""
    removed = 1
    for module in cast(nn.Module, block.layer).modules():
        if not isinstance(module, nn.Conv2d):
            continue
        own = module.stride[0]
        if stride * own > output_stride:
            # This convolution's input is as dense as before: it keeps the current dilation, later ones get the new one.
            module.stride, removed = (1, 1), own
            _spread(module, dilation)
            dilation *= own
        else:
            stride *= own
            _spread(module, dilation)
    for module in cast(nn.Module, block.shortcut).modules():
        if isinstance(module, nn.Conv2d) and removed > 1:
            module.stride = (1, 1)
    return stride, dilation


def _spread(convolution: nn.Conv2d, dilation: int) -> None:
    """Set a convolution's dilation, and the padding that preserves the size of the map."""
    size = convolution.kernel_size[0]
    if size > 1:
        convolution.dilation = (dilation, dilation)
        convolution.padding = (dilation * (size // 2), dilation * (size // 2))
