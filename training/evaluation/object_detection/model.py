"""Faster R-CNN and Mask R-CNN of torchvision, with a feature pyramid over the stages of any backbone."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from ..backbone import ImageSettings, StageFeatures
from ..options import DetectionOptions
from ..tuning import TunedBackbone

ASPECT_RATIOS = (0.5, 1.0, 2.0)
MASK_LAYERS = 4


class PyramidBackbone(nn.Module):
    """A backbone with a feature pyramid over its stages (Lin et al. 2017, arXiv 1612.03144).

    Args:
        body: The backbone.
        channels: Number of channels of every level of the pyramid.
        batch_norm: Whether the pyramid has batch norms.
    """

    def __init__(self, body: TunedBackbone, channels: int, *, batch_norm: bool) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.body = body
        self.pyramid = FeaturePyramidNetwork(
            body.features.channels, channels, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d if batch_norm else None
        )
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images to {stage name: (batch, channels, height, width)} and "pool", the last level at half its size."""
        return self.pyramid(OrderedDict(self.body(images)))


def build_detector(
    features: StageFeatures, num_classes: int, options: DetectionOptions, settings: ImageSettings, *, masks: bool
) -> Any:
    """Build a detector on a copy of the backbone.

    Args:
        features: Backbone with the stages to use.
        num_classes: Number of classes, without the background.
        options: Sizes of the heads, anchors and images.
        settings: Mean and deviation of the images.
        masks: Build Mask R-CNN, not Faster R-CNN.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor

    from .roi_align import FastRoIAlign

    strides = features.strides()
    backbone = PyramidBackbone(
        TunedBackbone(features, options.batch_norm, trainable=not options.freeze_backbone),
        options.pyramid_channels,
        batch_norm=options.pyramid_batch_norm,
    )
    sides = [round(options.anchor_scale * stride) for stride in (*strides, 2 * strides[-1])]

    def roi_align(size: int) -> FastRoIAlign:
        # The level of a box follows its size: smaller anchors move the rule (224 pixels to level 4) along.
        return FastRoIAlign(features.stages, strides, size, 2, canonical_scale=round(28 * options.anchor_scale))

    arguments: dict[str, Any] = {
        "min_size": options.short_sides,
        "max_size": options.long_side,
        "image_mean": list(settings.mean),
        "image_std": list(settings.std),
        "rpn_anchor_generator": AnchorGenerator(tuple((side,) for side in sides), (ASPECT_RATIOS,) * len(sides)),
        "rpn_pre_nms_top_n_train": 2 * options.proposals,
        "rpn_pre_nms_top_n_test": options.proposals,
        "rpn_post_nms_top_n_train": options.proposals,
        "rpn_post_nms_top_n_test": options.proposals,
        "box_roi_pool": roi_align(7),
        "box_head": TwoMLPHead(options.pyramid_channels * 7 * 7, options.head_channels),
        "box_predictor": FastRCNNPredictor(options.head_channels, num_classes + 1),
        "box_batch_size_per_image": options.box_samples,
        "box_score_thresh": options.score_threshold,
    }
    if not masks:
        return FasterRCNN(backbone, **arguments)
    channels = options.pyramid_channels
    return MaskRCNN(
        backbone,
        **arguments,
        mask_roi_pool=roi_align(14),
        mask_head=MaskRCNNHeads(channels, (channels,) * MASK_LAYERS, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes + 1),
    )
