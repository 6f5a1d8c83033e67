"""Apply the eight EXIF orientations to pixels and to boxes.

Rotating a crop is cheaper than rotating a whole photograph. A box is therefore mapped to the stored (unrotated) image
and cropped there, and only the crop is rotated.
"""

import numpy as np

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""

# Orientation -> (transpose, then flip rows, then flip columns), from the stored to the shown image
# (Exif 2.32, tag 274).
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turns_sides(orientation: int) -> bool:
    """Return whether an orientation swaps width and height."""
    return _STEPS[orientation][0]


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an orientation to stored pixels (height, width, channels). Returns a view, not a copy."""
    transpose, flip_rows, flip_columns = _STEPS[orientation]
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return pixels


def box_in_stored(box: Box, orientation: int, width: int, height: int) -> Box:
    """Map a box of the shown image to the stored image; `width` and `height` are those of the shown image."""
    transpose, flip_rows, flip_columns = _STEPS[orientation]
    x0, y0, x1, y1 = _flip(box, flip_rows, flip_columns, width, height)
    return (y0, x0, y1, x1) if transpose else (x0, y0, x1, y1)


def box_in_shown(box: Box, orientation: int, width: int, height: int) -> Box:
    """Map a box of the stored image to the shown image; `width` and `height` are those of the shown image."""
    transpose, flip_rows, flip_columns = _STEPS[orientation]
    x0, y0, x1, y1 = box
    if transpose:
        x0, y0, x1, y1 = y0, x0, y1, x1
    return _flip((x0, y0, x1, y1), flip_rows, flip_columns, width, height)


def _flip(box: Box, flip_rows: bool, flip_columns: bool, width: int, height: int) -> Box:
    x0, y0, x1, y1 = box
    if flip_columns:
        x0, x1 = width - x1, width - x0
    if flip_rows:
        y0, y1 = height - y1, height - y0
    return x0, y0, x1, y1
