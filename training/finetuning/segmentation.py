"""Segmentation: the trained heads and backbone as transformers' UperNet."""

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..evaluation.semantic_segmentation.task import fit_and_score
from ..evaluation.task_run import Outcome, TaskRun

_TOLERANCE = 1e-4


def finetune_segmentation(run: TaskRun) -> Outcome:
    """Fine-tune UperNet and score it; the network is left in `run.trained`.

    Raises:
        UserError: transformers could not load the result. Nothing was trained then.
    """
    features = run.load_backbone()
    native: Any = features.backbone
    if native.config.model_type == "timm_wrapper":
        raise UserError(
            "finetune segmentation takes no network of timm, because transformers would not load the UperNet again; "
            "use evaluate segmentation --head upernet, or another backbone"
        )
    if len(features.stages) < 2:
        raise UserError("UperNet of transformers needs a backbone with two stages or more")
    return fit_and_score(run)


def as_upernet(network: Any, num_classes: int, options: Any) -> Any:
    """Move a trained `SegmentationNetwork` with UperNet's head into transformers' model.

    Args:
        network: In eval mode, on the CPU.
        num_classes: Number of classes.
        options: With which it was trained.

    Returns:
        `UperNetForSemanticSegmentation` with the same scores.

    Raises:
        UserError: the scores differ.
    """
    from transformers import UperNetConfig, UperNetForSemanticSegmentation

    backbone = network.body.features.backbone
    stages = network.body.features.stages
    config = UperNetConfig(
        backbone_config=backbone.config,
        num_labels=num_classes,
        hidden_size=options.head_channels,
        auxiliary_channels=max(1, options.head_channels // 2),
        auxiliary_num_convs=1,
        auxiliary_concat_input=False,
        # transformers reads the third stage in its auxiliary head, which only serves training.
        use_auxiliary_head=len(stages) == 4,
        loss_ignore_index=options.ignore_index,
    )
    model = UperNetForSemanticSegmentation(config).eval()
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    parts = {"decode_head": network.head}
    if config.use_auxiliary_head:
        parts["auxiliary_head"] = network.auxiliary_head
    for prefix, part in parts.items():
        # In training a dropout stands before the last layer.
        state |= {
            f"{prefix}.{name.replace('classifier.1.', 'classifier.')}": value
            for name, value in part.state_dict().items()
        }
    model.load_state_dict(state)
    _check_same(network, model)
    return model


@torch.inference_mode()
def _check_same(network: Any, model: Any) -> None:
    images = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    want: Tensor = torch.nn.functional.interpolate(
        network(images)[0], size=images.shape[2:], mode="bilinear", align_corners=False
    )
    difference = (model(pixel_values=images).logits - want).abs().max().item() / max(want.abs().max().item(), 1e-9)
    if not difference <= _TOLERANCE:
        raise UserError(f"transformers' UperNet gives other scores than were trained (difference {difference:.1e})")
