"""Load a pretrained backbone into transformers' composite models (UperNet, DETR, Mask2Former, ...).

Their `backbone_config` builds a backbone with random weights, and `AutoBackbone.from_pretrained` cannot load a folder.
"""

import os
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneMixin

from .conversion import load_native_backbone


def load_backbone_into(model: PreTrainedModel, backbone: Any, **kwargs: Any) -> PreTrainedModel:
    """Copy a pretrained backbone's weights and batch-norm statistics into the backbone of a composite model.

    What the model has set up stays as it is: the stages that it reads, and DETR's frozen batch norm. All weights of the
    backbone are made trainable, because DETR in transformers 5 freezes a whole native ResNet by mistake (it looks for
    "stage.1" in names that contain "stages.1").

    Args:
        model: UperNet, DETR, Mask2Former or any model that holds one transformers backbone of the same architecture,
            built with `backbone_config=backbone.config`.
        backbone: A native backbone, any Ladder model, or the folder or Hub name of a published backbone.
        **kwargs: As in `from_pretrained`; used only if `backbone` is a folder or a name.

    Returns:
        `model`, changed in place.

    Raises:
        ValueError: The model has no backbone, or its backbone has another architecture. Nothing was changed.
    """
    if isinstance(backbone, (str, os.PathLike)):
        backbone = load_native_backbone(backbone, **kwargs)
    source = _native(backbone)
    found = next((m for m in model.modules() if m is not model and isinstance(m, BackboneMixin)), None)
    if found is None:
        raise ValueError(f"{type(model).__name__} holds no transformers backbone")
    own = _native(found)
    have, given = own.state_dict(), source.state_dict()
    # Frozen batch norm does not count batches.
    wrong = [key for key in have if key not in given or have[key].shape != given[key].shape]
    wrong += [key for key in given if key not in have and not key.endswith("num_batches_tracked")]
    if wrong:
        raise ValueError(
            f"the backbones differ at {wrong[0]!r} (and {len(wrong) - 1} more): make the {type(model).__name__} with "
            "backbone_config=backbone.config"
        )
    own.load_state_dict(given, strict=False)
    own.requires_grad_(True)
    return model


def _native(backbone: nn.Module) -> nn.Module:
    """Return the transformers backbone inside a Ladder model, or the given backbone itself."""
    inner = getattr(backbone, "backbone", None)
    return inner if isinstance(inner, BackboneMixin) else backbone


__all__ = ["load_backbone_into"]
