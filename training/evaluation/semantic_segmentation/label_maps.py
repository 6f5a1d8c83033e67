"""Reading label maps: class numbers exactly as drawn, turned as their images are."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import BadImageError, UserError
from ...files import bytes_or_path
from ...images.decode import read_image_file
from ...images.orientation import orient, turns_sides
from ...images.tiff_header import split_orientation

INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_LOSSY = ("JPEG", "MPO")
_EXIF_ORIENTATION = 0x0112


def read_label_map(value: Any, where: str) -> np.ndarray:
    """Read a label map as class numbers, uint8 or wider (height, width); of a palette image, the indices.

    Args:
        value: {"bytes", "path"} as `datasets` stores it, an array, or a PIL image. A map with an EXIF orientation of
            its own is turned by it.
        where: Names the image in messages.

    Raises:
        UserError: the file cannot be read, is a colour image, or a JPEG, whose compression changes class numbers.
    """
    label_map, orientation = _read(value, where)
    return _turned(label_map, orientation)


def read_label_map_of(
    value: Any, image_orientation: int, image_shape: tuple[int, int], where: str
) -> tuple[np.ndarray, bool]:
    """Read the label map of an image that is shown turned by its EXIF orientation.

    A map with an orientation of its own is turned by it. Without one, it was drawn either on the stored pixels, and is
    then turned as the image is, or on the image as shown; the sizes tell which.

    Args:
        value: As in `read_label_map`.
        image_orientation: EXIF orientation of the image; 1: it is shown as stored.
        image_shape: Height and width of the image as shown.
        where: Names the image in messages.

    Returns:
        The label map, of the shape of the image as shown, and whether it was turned as the image was.

    Raises:
        UserError: as in `read_label_map`; or the sizes differ; or they do not tell whether the map is turned already.
    """
    label_map, own = _read(value, where)
    if own != 1 or image_orientation == 1:
        label_map, turned = _turned(label_map, own), False
    else:
        square = image_shape[0] == image_shape[1]
        if label_map.shape == image_shape and (square or not turns_sides(image_orientation)):
            raise UserError(
                f"{where}: the image is turned by its EXIF orientation ({image_orientation}), and its label map, which "
                "has none, may be turned already or not: store the image as it is shown, without an orientation"
            )
        turned = turns_sides(image_orientation) and label_map.shape == image_shape[::-1]
        label_map = _turned(label_map, image_orientation) if turned else label_map
    if label_map.shape != image_shape:
        raise UserError(
            f"{where}: the image is {image_shape[1]} x {image_shape[0]} pixels, its label map "
            f"{label_map.shape[1]} x {label_map.shape[0]}"
        )
    return label_map, turned


def _read(value: Any, where: str) -> tuple[np.ndarray, int]:
    """Read the stored class numbers, and the map's own EXIF orientation."""
    orientation = 1
    if isinstance(value, np.ndarray):
        label_map = value
    elif value is None:
        raise UserError(f"{where} has no label map: take such images out, or draw one")
    else:
        try:
            of_tiff = 1
            if isinstance(value, dict):
                encoded = bytes_or_path(value)
                encoded = encoded if isinstance(encoded, bytes) else read_image_file(Path(encoded))
                of_tiff, encoded = split_orientation(encoded)
                value = Image.open(io.BytesIO(encoded))
            if getattr(value, "format", None) in _LOSSY:
                raise UserError(
                    f"{where}: the label map is a JPEG, whose compression changes class numbers: draw it again as PNG "
                    "from the source (a converted JPEG keeps the wrong numbers)"
                )
            if value.mode not in INDEX_MODES:
                raise UserError(f"{where}: the label map is a picture of mode {value.mode}, not of class numbers")
            label_map = np.asarray(value)  # first: Pillow turns a TIFF when it is loaded, and forgets its orientation
            orientation = of_tiff if of_tiff != 1 else value.getexif().get(_EXIF_ORIENTATION, 1)
        except (OSError, TypeError, AttributeError, SyntaxError, BadImageError) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
            raise UserError(
                f"{where}: the label map cannot be read ({reason}): write it again, or take the image out"
            ) from error
    if label_map.ndim != 2:
        raise UserError(f"{where}: the label map has shape {label_map.shape}, not (height, width)")
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return (label_map.astype(np.uint8) if label_map.dtype == bool else label_map), orientation


def _turned(label_map: np.ndarray, orientation: int) -> np.ndarray:
    return orient(label_map[..., None], orientation)[..., 0]
