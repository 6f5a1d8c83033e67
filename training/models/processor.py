"""The image processor of a model: resizing, centre crop, mean and standard deviation."""

import json
from pathlib import Path
from typing import Any

from ..config.image_defaults import DEFAULT_IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, shorter_side
from ..errors import UserError
from .reference import hub_file, model_folder, split_revision

PREPROCESSOR = "preprocessor_config.json"
MAX_IMAGE_SIZE = 8192
PROCESSOR_FIELDS = frozenset(
    {"do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"}
    | {"do_normalize", "image_mean", "image_std", "do_convert_rgb"}
)


def image_processor(
    image_size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Any:
    """Make the image processor that is saved with a model, with every value explicit.

    Without one, transformers would use its default for "resnet" (384 pixels, mean 0.5), which does not fit our models.

    Args:
        image_size: Side in pixels of the images that the network was trained on.
        mean: Per channel, of pixels in [0, 1].
        std: Standard deviation per channel.
    """
    from transformers import BitImageProcessor

    return BitImageProcessor(
        do_resize=True,
        size={"shortest_edge": shorter_side(image_size)},
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
    """Load the image processor of a model: its own, else its run's, else the default of `image_processor`.

    Args:
        reference: As given by the user.
        image_size: Side of the images in pixels; replaces the model's own.
        revision: Branch, tag or commit of a Hub repository.

    Raises:
        UserError: the model's preprocessor_config.json cannot be read or makes no sense.
    """
    settings = _saved_settings(*split_revision(model_folder(reference), revision))
    mean = tuple(settings.get("image_mean") or IMAGENET_MEAN)
    std = tuple(settings.get("image_std") or IMAGENET_STD)
    crop = settings.get("crop_size") or settings.get("size") or {}
    saved = crop.get("height") or crop.get("shortest_edge") if isinstance(crop, dict) else crop
    if image_size is None and str(settings.get("image_processor_type")).startswith("BitImageProcessor"):
        from transformers import BitImageProcessor

        # Pass only known fields: `from_dict` would set any attribute that the file names.
        return BitImageProcessor(**{name: value for name, value in settings.items() if name in PROCESSOR_FIELDS})
    return image_processor(int(image_size or saved or DEFAULT_IMAGE_SIZE), mean, std)


def _saved_settings(folder: str, revision: str | None) -> dict[str, Any]:
    """Read a model's preprocessor_config.json; empty if there is none."""
    path = Path(folder)
    candidates = [path / PREPROCESSOR, path.resolve().parent / PREPROCESSOR] if path.is_dir() else []
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if not path.is_dir():
        file = hub_file(folder, PREPROCESSOR, revision)
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} holds no JSON object")
    _check_settings(settings, str(file))
    return settings


def _check_settings(settings: dict[str, Any], where: str) -> None:
    """Check sizes and pixel statistics, because the file may come from anyone.

    Raises:
        UserError: a value is out of range; the message names the field.
    """
    for name in ("size", "crop_size"):
        saved = settings.get(name)
        for side in saved.values() if isinstance(saved, dict) else [saved]:
            if side is not None and (type(side) is not int or not 0 < side <= MAX_IMAGE_SIZE):
                raise UserError(f"{where}: {name} is {saved!s:.80}; a side must be from 1 to {MAX_IMAGE_SIZE} pixels")
    for name in PROCESSOR_FIELDS - {"size", "crop_size", "image_mean", "image_std"}:
        saved = settings.get(name)
        if saved is not None and not (isinstance(saved, bool) or is_finite_number(saved)):
            raise UserError(f"{where}: {name} is {saved!s:.80}, which is not a number")
    for name in ("image_mean", "image_std"):
        saved = settings.get(name)
        values = saved if isinstance(saved, list) else [saved]
        numbers = [value for value in values if is_finite_number(value)]
        if saved is not None and (len(numbers) != len(values) or not 1 <= len(values) <= 4):
            raise UserError(f"{where}: {name} is {saved!s:.80}; give one finite number per channel")
        if (
            name == "image_std"
            and saved is not None
            and not all(float(value) > 0 for value in numbers if value is not None)
        ):
            raise UserError(f"{where}: image_std is {saved!s:.80}; standard deviations must be above 0")


def is_finite_number(value: object) -> bool:
    """Tell whether a value of a JSON file is a number of a reasonable size. Booleans are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6
