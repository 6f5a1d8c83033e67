"""The view an evaluation sees: resize the shorter side, crop the centre. No randomness."""

import cv2
import numpy as np

CROP_FRACTION = 0.875
"""Share of the resized image that the centre crop keeps (224 of 256, the ImageNet protocol)."""


def center_view(image: np.ndarray, size: int, crop_fraction: float = CROP_FRACTION) -> np.ndarray:
    """Resize so that the shorter side is size / crop_fraction (bicubic, areas where it shrinks), crop the centre.

    Args:
        image: uint8 (height, width, 3).
        size: Side of the result in pixels.
        crop_fraction: From above 0 to 1; 1 keeps the whole shorter side.

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
