"""Detection: a torchvision detector in a folder, and loading it again.

transformers has no Faster R-CNN and no Mask R-CNN: it loads the fine-tuned backbone of the folder, not the detector.
"""

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..evaluation.backbone import ImageSettings, StageFeatures
from ..evaluation.object_detection.model import build_detector
from ..files import write_json
from .options import FinetuneDetectionOptions

WEIGHTS, SETTINGS = "detector.safetensors", "detector.json"


def save_detector(detector: Any, classes: list[str], settings: dict[str, Any], folder: Path) -> None:
    """Write a detector and, as a native transformers model, its backbone.

    Args:
        detector: On the CPU.
        classes: Names of the classes.
        settings: The options it was built with, and "masks", "image_mean" and "image_std".
        folder: Where to.
    """
    from safetensors.torch import save_file

    from modeling_ladder import native_backbone

    native_backbone(detector.backbone.body.features.backbone).save_pretrained(folder)
    state = {name: value.detach().contiguous().clone() for name, value in detector.state_dict().items()}
    save_file(state, str(folder / WEIGHTS), metadata={"format": "pt"})
    write_json(folder / SETTINGS, {"classes": classes, **settings})


def load_detector(folder: str | Path) -> tuple[Any, list[str]]:
    """Load a detector that `ladder finetune detection` wrote.

    Args:
        folder: Its output folder.

    Returns:
        The torchvision detector in eval mode, which takes a list of float images (3, height, width) in [0, 1], and the
        names of the classes; class numbers in its predictions start at 1.

    Raises:
        UserError: the folder holds no detector.
    """
    from safetensors.torch import load_file

    from modeling_ladder import load_native_backbone

    folder = Path(folder)
    try:
        content = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        state = load_file(str(folder / WEIGHTS))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no detector of `ladder finetune detection`: {error}") from error
    classes, masks = content.pop("classes"), content.pop("masks")
    settings = ImageSettings(mean=tuple(content.pop("image_mean")), std=tuple(content.pop("image_std")))
    options = FinetuneDetectionOptions(**content)
    features = StageFeatures(load_native_backbone(folder), options.stages)
    detector = build_detector(features, len(classes), options, settings, masks=masks)
    detector.load_state_dict(state)
    detector.transform.min_size = (options.test_short_side or options.short_sides[-1],)
    return detector.eval(), classes
