"""The eight EXIF orientations, for pixels and for boxes.

A crop is cheaper to rotate than a whole photograph, so boxes are carried into the stored (unrotated) picture, cropped
there, and only the crop is turned.
"""

import numpy as np

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels; x1 and y1 are exclusive."""

# orientation -> (transpose first, then flip rows, then flip columns), from what is stored to what is shown
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
    """Whether width and height change places."""
    return _STEPS[orientation][0]


def orient(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels (height, width, channels) into what is shown; a view, no copy."""
    transpose, flip_rows, flip_columns = _STEPS[orientation]
    if transpose:
        pixels = pixels.transpose(1, 0, 2)
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return pixels


def box_in_stored(box: Box, orientation: int, width: int, height: int) -> Box:
    """Carry a box of the shown picture (`width` x `height`, as shown) into the stored one."""
    transpose, flip_rows, flip_columns = _STEPS[orientation]
    x0, y0, x1, y1 = _flip(box, flip_rows, flip_columns, width, height)
    return (y0, x0, y1, x1) if transpose else (x0, y0, x1, y1)


def box_in_shown(box: Box, orientation: int, width: int, height: int) -> Box:
    """Inverse of `box_in_stored`; `width` and `height` are again those of the shown picture."""
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
