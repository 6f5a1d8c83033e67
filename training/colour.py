"""Colour operations on uint8 RGB views, with as few passes over the pixels as the exact recipe allows.

Each operation gives what torchvision's `transforms.v2.functional` gives for the same parameters, within the rounding of
8 bits. Three ideas make it fast:

- Brightness, contrast, saturation and grey all have the form  a x + g grey(x) + b  with three numbers a, g, b, and
  that form is closed under composition. Neighbours are joined into one pass of `cv2.transform` as long as nothing can
  be clipped between them, that is as long as the earlier one has a factor of at most 1. Joined or not, the result is
  the recipe's: clipping happens wherever torchvision clips. Hue commutes with a x + b, so brightness and contrast also
  join across it.
- Hue goes through OpenCV's float HSV. Its 8-bit HSV is no faster and is wrong by up to 20 levels, because it keeps 256
  hues and 256 saturations; a rotation in YIQ is not the hue of HSV at all.
- Once a view is grey it has one channel until it is normalised.
"""

import math

import cv2
import numpy as np

from .view_parameters import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColourParameters

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601. torchvision writes 0.2989, which loses 0.03 of 255 levels on white."""

BLUR_DEVIATIONS = 3.5
"""A Gaussian is cut off there; what lies beyond is 0.05 % of its mass, an eighth of a level at the sharpest edge."""


def jitter(view: np.ndarray, parameters: ColourParameters) -> np.ndarray:
    """Brightness, contrast, saturation and hue in the drawn order, then grey.

    Args:
        view: uint8 (rows, columns, 3). Not changed.
        parameters: of this view.

    Returns:
        uint8 (rows, columns, 3), or (rows, columns) if the view became grey. May be `view` itself.
    """
    # `waiting` is a mix that is not applied yet, `turn` a hue change that comes before it; `clips`: nothing may be
    # joined to `waiting` any more, because torchvision clips after it.
    waiting, turn, clips = _IDENTITY, 0.0, False
    for operation in parameters.order:
        factor = parameters.factors[operation]
        if factor == (0.0 if operation == HUE else 1.0):
            continue
        if clips or (operation == HUE and waiting[1] != 0) or (operation == CONTRAST and turn != 0):
            view, waiting, turn, clips = _apply(view, turn, waiting), _IDENTITY, 0.0, False
        if operation == HUE:
            turn = factor  # and `waiting` moves behind it: hue commutes with a x + b
            continue
        if operation == BRIGHTNESS:
            step = (factor, 0.0, 0.0)
        elif operation == SATURATION:
            step = (factor, 1 - factor, 0.0)
        else:
            a, g, b = waiting
            step = (factor, 0.0, (1 - factor) * ((a + g) * _grey_mean(view) + b))
        waiting, clips = _compose(waiting, step), factor > 1
    if parameters.grayscale:
        if clips:
            view, waiting, turn = _apply(view, turn, waiting), _IDENTITY, 0.0
        waiting = _compose(waiting, _GREY)
    return _apply(view, turn, waiting)


def turn_hue(view: np.ndarray, turn: float, factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Turn the hue of every pixel, and multiply and add to the result before it is rounded and clipped.

    Args:
        view: uint8 (rows, columns, 3).
        turn: share of the full circle, -0.5 ... 0.5.
        factor: at least 0.
        offset: at least 0, in levels.
    """
    forward = np.float32(360 * (turn % 1))  # OpenCV wraps hues above 360 degrees, but gets negative ones wrong
    result = np.empty_like(view)
    for top in range(0, len(view), _STRIP):  # large buffers go back to the system when freed, and cost page faults
        rows = slice(top, top + _STRIP)
        pixels = view[rows].astype(np.float32)
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        hue = hsv[..., 0]
        hue += forward
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=pixels)
        cv2.convertScaleAbs(pixels, dst=result[rows], alpha=factor, beta=offset)
    return result


def blur(view: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with reflected borders, like torchvision's with a kernel as large as the deviation needs.

    Args:
        view: uint8 (rows, columns) or (rows, columns, 3).
        sigma: standard deviation in pixels; 0 for no blur.
    """
    weights = blur_weights(sigma, min(view.shape[:2]))
    if len(weights) == 1:
        return view
    kernel = weights.astype(np.float32)
    return cv2.sepFilter2D(view, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def blur_radius(sigma: float, size: int) -> int:
    """Pixels on each side of the centre that a Gaussian needs; at most `size` - 1, all that can be reflected."""
    return max(0, min(math.ceil(BLUR_DEVIATIONS * sigma), size - 1))


def blur_weights(sigma: float, size: int) -> np.ndarray:
    """Weights of a Gaussian that sum to 1, float64 (2 * radius + 1,)."""
    radius = blur_radius(sigma, size)
    if radius == 0:
        return np.ones(1)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def solarize_table(threshold: float) -> np.ndarray:
    """What becomes of each of the 256 levels if those from `threshold` (0 ... 1) up are inverted, uint8 (256,)."""
    levels = np.arange(256)
    return np.where(levels >= threshold * 255, 255 - levels, levels).astype(np.uint8)


_IDENTITY = (1.0, 0.0, 0.0)
_GREY = (0.0, 1.0, 0.0)
_STRIP = 112
_Mix = tuple[float, float, float]


def _compose(first: _Mix, second: _Mix) -> _Mix:
    """The mix that does `first` and then `second`; grey of a x + g grey(x) + b is (a + g) grey(x) + b."""
    a1, g1, b1 = first
    a2, g2, b2 = second
    return a2 * a1, a2 * g1 + g2 * (a1 + g1), (a2 + g2) * b1 + b2


def _apply(view: np.ndarray, turn: float, mix: _Mix) -> np.ndarray:
    """Turn the hue, then mix."""
    if turn == 0:
        return _mix(view, mix)
    a, g, b = mix
    if g == 0 and b >= 0:  # `convertScaleAbs` takes absolute values, so nothing below 0 may reach it
        return turn_hue(view, turn, a, b)
    return _mix(turn_hue(view, turn), mix)


def _mix(view: np.ndarray, mix: _Mix) -> np.ndarray:
    """a x + g grey(x) + b in one pass, rounded and clipped; one channel if a is 0."""
    if mix == _IDENTITY:
        return view
    a, g, b = mix
    red, green, blue = (g * weight for weight in GREY_WEIGHTS)
    if a == 0:
        matrix = ((red, green, blue, b),)
    else:
        matrix = ((a + red, green, blue, b), (red, a + green, blue, b), (red, green, a + blue, b))
    return cv2.transform(view, np.array(matrix, np.float32))


def _grey_mean(view: np.ndarray) -> float:
    return sum(weight * mean for weight, mean in zip(GREY_WEIGHTS, cv2.mean(view), strict=False))
