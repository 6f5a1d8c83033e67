"""Load a pretrained backbone into transformers' composite models (UperNet, DETR, Mask2Former, ...).

Their `backbone_config` builds a backbone with random weights, and `AutoBackbone.from_pretrained` cannot load a folder.
"""

import os
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneMixin

from .conversion import copy_weights
from .modeling_ladder import LadderSiameseModel


def load_backbone_into(model: PreTrainedModel, backbone: Any, **kwargs: Any) -> PreTrainedModel:
    """Copy a pretrained backbone's weights and batch-norm statistics into the backbone of a composite model.

    What the model has set up stays as it is: the stages that it reads, and DETR's frozen batch norm. All weights of the
    backbone are made trainable, because DETR in transformers 5 freezes a whole native ResNet by mistake (it looks for
    "stage.1" in names that contain "stages.1").

    Args:
        model: UperNet, DETR, Mask2Former or any model that holds one transformers backbone of the same architecture,
            built with `backbone_config=backbone.config`.
        backbone: A native backbone, a model or classifier on one, any Ladder model, or the folder or Hub name of any of
            these, such as that of a run, of its `pretraining/` or of a checkpoint.
        **kwargs: As in `from_pretrained`; used only if `backbone` is a folder or a name.

    Returns:
        `model`, changed in place.

    Raises:
        ValueError: The model has no backbone, or its backbone has another architecture. Nothing was changed.
    """
    found = None
    if isinstance(model, PreTrainedModel):
        found = next((m for m in model.modules() if m is not model and isinstance(m, BackboneMixin)), None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} holds no transformers backbone, as UperNet, DETR or Mask2Former do; transformers' "
            "own classifiers load a run's folder by from_pretrained, and for torchvision, timm or detectron2 "
            "`ladder export --format` writes the weights"
        )
    if isinstance(backbone, (str, os.PathLike)):
        backbone = LadderSiameseModel.from_pretrained(backbone, **kwargs)
    own = _native(found)
    how = f"make the {type(model).__name__} with backbone_config=backbone.config"
    copy_weights(_native(backbone), own, how)
    own.requires_grad_(True)
    return model


def _native(model: nn.Module) -> nn.Module:
    """Return the transformers backbone in a model, the body below a classifier's head, or the given backbone itself."""
    inner = getattr(model, "backbone", None)
    if not isinstance(inner, BackboneMixin):
        inner = model if isinstance(model, BackboneMixin) else getattr(model, "base_model", model)
    return cast(nn.Module, inner)


__all__ = ["load_backbone_into"]
