"""What a command may be given as a model: a run's folder, a checkpoint, an exported folder or a Hub name."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from modeling_ladder import LadderSiameseModel

PREPROCESSOR = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_IMAGE_SIZE = 224
# Below this size images are resized to the crop itself: data sets of small images are framed already.
SMALL_IMAGE_SIZE = 128
CROP_FRACTION = 0.875


def model_folder(reference: str) -> str:
    """The folder (or Hub name) that holds a model's files.

    A run that has not finished stands for its newest whole checkpoint.

    Raises:
        UserError: the folder exists and holds no model.
    """
    path = Path(reference).expanduser()
    if not path.exists():
        if reference.startswith((".", "/", "~")) or reference.count("/") > 1:
            raise UserError(f"there is no folder {reference}")
        return reference
    if not path.is_dir():
        raise UserError(f"{reference} is a file; give the folder of a model")
    if (path / "config.json").is_file():
        return str(path)
    from .checkpoints import damage, list_checkpoints

    for checkpoint in reversed(list_checkpoints(path)):
        if damage(checkpoint) is None:
            return str(checkpoint)
    raise UserError(f"{reference} holds no model: neither config.json nor a whole checkpoint-N")


def load_model(reference: str, revision: str | None = None) -> "LadderSiameseModel":
    """Load the online backbone of any model, in eval mode, in float32 on the CPU.

    Raises:
        UserError: there is no such model, or its files cannot be loaded.
    """
    import torch

    from modeling_ladder import LadderSiameseModel

    folder = model_folder(reference)
    try:
        return LadderSiameseModel.from_pretrained(folder, dtype=torch.float32, revision=revision).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{reference} cannot be loaded as a model: {error}") from error


def image_processor(
    image_size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Any:
    """The processor that is saved with a model: shorter side, centre crop, mean and deviation, all explicit.

    transformers' default for "resnet" is another one (384 pixels, mean 0.5), so a model never goes without its own.

    Args:
        image_size: Side of the images that the network was trained on, in pixels.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
    """
    from transformers import BitImageProcessor

    shorter = image_size if image_size < SMALL_IMAGE_SIZE else round(image_size / CROP_FRACTION)
    return BitImageProcessor(
        do_resize=True,
        size={"shortest_edge": shorter},
        resample=3,
        do_center_crop=True,
        crop_size={"height": image_size, "width": image_size},
        do_rescale=True,
        do_normalize=True,
        image_mean=list(mean),
        image_std=list(std),
        do_convert_rgb=True,
    )


def processor_of(reference: str, image_size: int | None = None, revision: str | None = None) -> Any:
    """The image processor of a model: its own, its run's, or the default of `image_processor`.

    Args:
        reference: As given by the user.
        image_size: Side of the images; replaces what the model says.
        revision: Of a Hub repo.
    """
    settings = _saved_settings(model_folder(reference), revision)
    mean = tuple(settings.get("image_mean") or IMAGENET_MEAN)
    std = tuple(settings.get("image_std") or IMAGENET_STD)
    crop = settings.get("crop_size") or settings.get("size") or {}
    saved = crop.get("height") or crop.get("shortest_edge") if isinstance(crop, dict) else crop
    if image_size is None and settings.get("image_processor_type", "").startswith("BitImageProcessor"):
        from transformers import BitImageProcessor

        return BitImageProcessor.from_dict(settings)
    return image_processor(int(image_size or saved or DEFAULT_IMAGE_SIZE), mean, std)


def _saved_settings(folder: str, revision: str | None) -> dict[str, Any]:
    """A model's preprocessor_config.json; empty where there is none."""
    path = Path(folder)
    candidates = [path / PREPROCESSOR, path.resolve().parent / PREPROCESSOR] if path.is_dir() else []
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if not path.is_dir():
        from transformers.utils import cached_file

        found = cached_file(folder, PREPROCESSOR, revision=revision, _raise_exceptions_for_missing_entries=False)
        file = Path(found) if found else None
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    return settings if isinstance(settings, dict) else {}
