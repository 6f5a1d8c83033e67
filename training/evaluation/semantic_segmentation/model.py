"""Segmentation networks: a fully convolutional head on dilated stages, or UperNet of transformers."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import StageFeatures
from ..options import SegmentationOptions
from ..tuning import TunedBackbone
from .dilation import dilate

AUXILIARY_WEIGHT = 0.4


class SegmentationNetwork(nn.Module):
    """A backbone, a head and, with two stages or more, an auxiliary head that is used in training only.

    Both heads are transformers' ports of OpenMMLab's, so that scores can be compared with published ones. The fcn head
    reads the last stage (two 3x3 convolutions, input concatenated, as in "fcn_r50-d8"); the auxiliary head reads the
    stage before it, with half the channels.

    Args:
        features: Backbone with the stages to use; it is copied.
        num_classes: Number of classes.
        options: Head and its sizes.
    """

    def __init__(self, features: StageFeatures, num_classes: int, options: SegmentationOptions) -> None:
        super().__init__()
        from transformers.models.upernet.modeling_upernet import UperNetFCNHead

        features = copy.deepcopy(features)
        if options.head == "fcn":
            dilate(features.backbone, options.output_stride)
        self.body = TunedBackbone(features, options.batch_norm, trainable=not options.freeze_backbone)
        channels, last = features.channels, len(features.stages) - 1
        if options.head == "fcn":
            config = _head_config(num_classes, options.head_channels, convolutions=2, concatenate=True)
            self.head = UperNetFCNHead(config, channels, in_index=last)
        else:
            self.head = _upernet_head(features, num_classes, options)
        self.auxiliary_head = None
        if last > 0:
            config = _head_config(num_classes, max(1, options.head_channels // 2), convolutions=1, concatenate=False)
            self.auxiliary_head = UperNetFCNHead(config, channels, in_index=last - 1)
        for head in (self.head, self.auxiliary_head):
            if head is not None:
                head.classifier = nn.Sequential(nn.Dropout2d(options.dropout), head.classifier)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scores (batch, classes, h, w) at the head's resolution and, in train mode, the auxiliary head's."""
        maps = list(self.body(pixel_values).values())
        extra = self.auxiliary_head(maps) if self.training and self.auxiliary_head is not None else None
        return self.head(maps), extra


def segmentation_loss(scores: tuple[Tensor, Tensor | None], labels: Tensor, ignore_index: int) -> Tensor:
    """Average the cross-entropy over the labelled pixels, plus 0.4 times the auxiliary head's; 0 without such pixels.

    Args:
        scores: Output of `SegmentationNetwork`.
        labels: int64 (batch, height, width).
        ignore_index: Value of pixels without a label.
    """
    counted = (labels != ignore_index).sum().clamp_min(1)
    total = labels.new_zeros((), dtype=torch.float32)
    for part, weight in zip(scores, (1.0, AUXILIARY_WEIGHT), strict=True):
        if part is not None:
            full = F.interpolate(part.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            total = total + weight * F.cross_entropy(full, labels, ignore_index=ignore_index, reduction="sum") / counted
    return total


def _head_config(num_classes: int, channels: int, *, convolutions: int, concatenate: bool) -> Any:
    from transformers import UperNetConfig

    return UperNetConfig(
        num_labels=num_classes,
        auxiliary_channels=channels,
        auxiliary_num_convs=convolutions,
        auxiliary_concat_input=concatenate,
    )


def _upernet_head(features: StageFeatures, num_classes: int, options: SegmentationOptions) -> nn.Module:
    """The decode head of transformers' UperNet for this backbone."""
    from transformers import UperNetConfig
    from transformers.models.upernet.modeling_upernet import UperNetHead

    config = UperNetConfig(
        backbone_config=features.backbone.config, num_labels=num_classes, hidden_size=options.head_channels
    )
    return UperNetHead(config, in_channels=features.channels)
