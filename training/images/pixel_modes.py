"""Convert arrays and PIL images of any mode to 8-bit RGB."""

import numpy as np
from PIL import Image

from ..errors import BadImageError
from .value_range import ValueRange

_WHITE = (255, 255, 255, 255)


def array_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Convert a uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA to contiguous (H, W, 3).

    Transparency is blended onto white.

    Raises:
        ValueError: the array has another shape or type.
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"an array of {pixels.dtype}, expected uint8")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f"an array of shape {pixels.shape}, expected (height, width, 1, 3 or 4)")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    elif pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def wide_to_rgb(values: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """Convert values (H, W) or (H, W, 3) of any type to uint8 (H, W, 3): `value_range` is stretched to 0 ... 255."""
    low, high = value_range
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    levels = np.clip(np.rint((values - low) * (255 / (high - low))), 0, 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels


def pil_to_rgb(image: Image.Image, value_range: ValueRange | None = None) -> np.ndarray:
    """Convert a PIL image of any mode to uint8 (H, W, 3).

    Transparency (RGBA, LA, PA, a transparent palette entry or colour) is blended onto white, as in a browser. 16-bit
    grey is divided by 257, so that white stays white. 32-bit integers and floats have no fixed white level: floats in
    [0, 1] are multiplied by 255, values in [0, 255] are kept, integers in [0, 65535] are divided by 257, and all other
    ranges are stretched so that the lowest value becomes 0 and the highest 255. Floats that are no numbers become
    black (white if they are plus infinity), and do not count for the range.

    Args:
        image: Of any mode.
        value_range: Replaces these rules for 16-bit grey, 32-bit integers and floats. Images of 8 bits do not change.

    Raises:
        BadImageError: an image of floats in which none is a number.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;"):
        if mode == "F" and not np.isfinite(np.asarray(image)).any():
            raise BadImageError("none of its values is a number")
        if value_range is not None:
            return wide_to_rgb(np.asarray(image), value_range)
        return np.repeat(_wide_grey_to_uint8(np.asarray(image), mode)[..., None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        # Pillow cannot convert the premultiplied modes to RGBA directly: undo the premultiplication first.
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _wide_grey_to_uint8(values: np.ndarray, mode: str) -> np.ndarray:
    if mode.startswith("I;16"):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = values.astype(np.float64)
    finite, infinite = np.isfinite(values), np.isposinf(values)
    low, high = float(values[finite].min()), float(values[finite].max())
    values = np.where(finite, values, low)
    if mode == "F" and low >= 0 and high <= 1:
        values = values * 255
    elif low >= 0 and high <= 255:
        pass
    elif mode == "I" and low >= 0 and high <= 65535:
        values = values / 257
    else:
        values = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.where(finite, np.clip(np.rint(values), 0, 255), np.where(infinite, 255, 0)).astype(np.uint8)
