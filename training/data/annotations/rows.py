"""Images with their boxes or masks, as the `datasets` objects that detection and segmentation take."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError

SAMPLE = 50
"""Masks that are read to tell binary masks (0 and 255) from maps of class numbers."""


@dataclass
class Box:
    """One object.

    Attributes:
        bbox: x, y, width, height in pixels.
        category: Class number.
        area: In square pixels; None is that of the box.
        crowd: Whether it is a crowd or too difficult: not learned, and found or not it is no error.
        segmentation: Polygons [[x, y, x, y, ...], ...] in pixels, or a run-length code; None without a mask.
    """

    bbox: tuple[float, float, float, float]
    category: int
    area: float | None = None
    crowd: bool = False
    segmentation: Any = None


@dataclass
class Boxes:
    """The images of a split and their objects.

    Attributes:
        names: Names of the classes.
        images: Each image and its objects.
        notes: What was left out or decided.
    """

    names: list[str]
    images: list[tuple[Path, list[Box]]]
    notes: list[str] = field(default_factory=list)


def boxes_dataset(found: Boxes, split: str) -> Any:
    """Make {image, objects {bbox, category, area, iscrowd, segmentation}} of images with boxes.

    Args:
        found: The images. `segmentation` is there if every object that is no crowd has a mask.
        split: Name of the split.
    """
    import datasets

    every = [box for _, boxes in found.images for box in boxes]
    plain = [box for box in every if not box.crowd]
    masks = bool(plain) and all(box.segmentation for box in plain)
    coded = masks and any(isinstance(box.segmentation, dict) for box in every)
    sizes = [_size(path) for path, _ in found.images] if coded else [None] * len(found.images)
    objects: dict[str, Any] = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        "category": datasets.List(datasets.ClassLabel(names=found.names)),
        "area": datasets.List(datasets.Value("float32")),
        "iscrowd": datasets.List(datasets.Value("bool")),
    }
    if masks:
        code = {"size": datasets.List(datasets.Value("int32")), "counts": datasets.Value("string")}
        polygons = datasets.List(datasets.List(datasets.Value("float32")))
        objects["segmentation"] = datasets.List(code if coded else polygons)
    rows: list[dict[str, Any]] = []
    for (_, boxes), size in zip(found.images, sizes, strict=True):
        row: dict[str, Any] = {
            "bbox": [list(box.bbox) for box in boxes],
            "category": [box.category for box in boxes],
            "area": [box.bbox[2] * box.bbox[3] if box.area is None else box.area for box in boxes],
            "iscrowd": [box.crowd for box in boxes],
        }
        if masks:
            row["segmentation"] = [_code(box, size) if size else box.segmentation or [] for box in boxes]
        rows.append(row)
    features = datasets.Features({"image": datasets.Image(), "objects": objects})
    images = [_stored(path) for path, _ in found.images]
    return datasets.Dataset.from_dict({"image": images, "objects": rows}, features=features, split=split)


def masks_dataset(pairs: Sequence[tuple[Path, Path]], split: str) -> tuple[Any, list[str]]:
    """Make {image, label} of images and their masks, where a mask holds class numbers.

    Masks of 0 and 255 only are binary: 255 becomes class 1, because it otherwise stands for pixels without a label.

    Args:
        pairs: Each image and its mask.
        split: Name of the split.

    Returns:
        The data set and notes on what was decided.

    Raises:
        UserError: A mask cannot be read, or holds other values where the others are binary.
    """
    import datasets

    images = [_stored(image) for image, _ in pairs]
    labels: list[Any] = [_stored(mask) for _, mask in pairs]
    chosen = np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).round().astype(int)
    seen = {value for index in chosen for value in np.unique(_mask(pairs[index][1])).tolist()}
    notes = []
    if seen in ({0, 255}, {255}):
        labels = [{"bytes": _as_classes(mask), "path": None} for _, mask in pairs]
        notes.append("masks hold 0 and 255 only: taken as background and class 1")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features, split=split), notes


def _stored(path: Path) -> dict[str, Any]:
    """A file as a row names it: from the root, because a relative path in a row starts at the data set's folder."""
    return {"bytes": None, "path": str(path.absolute())}


def _mask(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    except (OSError, ValueError) as error:
        raise UserError(f"mask {path} cannot be read: {error}") from error


def _as_classes(path: Path) -> bytes:
    """A binary mask as PNG with 255 replaced by 1."""
    from PIL import Image

    values = _mask(path)
    if not set(np.unique(values).tolist()) <= {0, 255}:
        raise UserError(
            f"mask {path} holds other values than 0 and 255, which the first masks do not; use class numbers"
        )
    buffer = io.BytesIO()
    Image.fromarray((values == 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def oriented_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is shown: turned by its EXIF orientation.

    Raises:
        UserError: The file is no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
            # Pillow gives the size of a TIFF as it is shown.
            turned = picture.format != "TIFF" and picture.getexif().get(0x0112, 1) >= 5
    except (OSError, ValueError) as error:
        raise UserError(f"image {path} cannot be read: {error}") from error
    return (height, width) if turned else (width, height)


def _size(path: Path) -> tuple[int, int]:
    return oriented_size(path)


def _code(box: Box, size: tuple[int, int]) -> dict[str, Any]:
    """A mask as a compressed run-length code, as text."""
    from faster_coco_eval import mask

    width, height = size
    stored: Any = box.segmentation or [[]]
    if isinstance(stored, dict):
        code = stored if not isinstance(stored["counts"], list) else mask.frPyObjects(stored, *stored["size"])
    elif not stored[0]:
        code = mask.encode(np.zeros((height, width), np.uint8, order="F"))
    else:
        code = mask.merge(mask.frPyObjects([list(map(float, polygon)) for polygon in stored], height, width))
    counts = code["counts"]
    return {"size": list(code["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}
