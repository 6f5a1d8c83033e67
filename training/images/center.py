"""The deterministic view of evaluation and monitoring: resize the shorter side, then crop the centre."""

import cv2
import numpy as np

_THIN = 4
"""How often the longer side holds the shorter one from which on only the cropped part is enlarged."""

_BORDER = 4  # stored pixels beside the crop, which bicubic enlarging reads


def center_view(image: np.ndarray, size: int, crop_fraction: float = 1.0) -> np.ndarray:
    """Resize the shorter side to `size / crop_fraction` and crop the centre.

    Enlarging is bicubic; shrinking averages areas, which does not alias. Of a thin image only the part that is cropped
    is enlarged: a line of 30,000 pixels would take gigabytes.

    Args:
        image: uint8 (height, width, 3).
        size: Side of the result in pixels.
        crop_fraction: Share of the resized shorter side that is kept, above 0 to 1; 1 keeps all of it.

    Returns:
        uint8 (size, size, 3).
    """
    shorter = max(round(size / crop_fraction), size)
    if shorter > min(image.shape[:2]):
        image = _middle(image, size, shorter)
    height, width = image.shape[:2]
    scale = shorter / min(height, width)
    new = (max(size, round(width * scale)), max(size, round(height * scale)))
    if new != (width, height):
        image = cv2.resize(image, new, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def _middle(image: np.ndarray, size: int, shorter: int) -> np.ndarray:
    """The middle of a thin image's longer side that an enlarged crop needs; any other image as it is."""
    height, width = image.shape[:2]
    short, long = sorted((height, width))
    if long <= _THIN * short:
        return image
    # A number of pixels as odd or even as the side itself keeps the middle where it is. Among such numbers the one is
    # taken whose enlarged side is closest to a whole number, and as odd or even as that of the whole image.
    needed = -(-size * short // shorter) + 2 * _BORDER
    least = max(needed + (long - needed) % 2, short + (long - short) % 2)
    scale = shorter / short
    odd = round(long * scale) % 2

    def misfit(kept: int) -> tuple[bool, float]:
        side = round(kept * scale)
        return side % 2 != odd, abs(side - kept * scale)

    kept = min((number for number in range(least, least + 2 * short + 2, 2) if number < long), key=misfit, default=long)
    first = (long - kept) // 2
    return image[:, first : first + kept] if width > height else image[first : first + kept]
