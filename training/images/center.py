"""The deterministic view of evaluation and monitoring: resize the shorter side, then crop the centre."""

import cv2
import numpy as np


def center_view(image: np.ndarray, size: int, crop_fraction: float) -> np.ndarray:
    """Resize the shorter side to `size / crop_fraction` and crop the centre.

    Enlarging is bicubic; shrinking averages areas, which does not alias.

    Args:
        image: uint8 (height, width, 3).
        size: Side of the result in pixels.
        crop_fraction: Share of the resized shorter side that is kept, above 0 to 1; 1 keeps all of it.

    Returns:
        uint8 (size, size, 3).
    """
    height, width = image.shape[:2]
    scale = max(round(size / crop_fraction), size) / min(height, width)
    new = (max(size, round(width * scale)), max(size, round(height * scale)))
    if new != (width, height):
        image = cv2.resize(image, new, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])
