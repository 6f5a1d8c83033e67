"""Colour operations on uint8 RGB views, with as few passes over the pixels as the exact recipe allows.

Each operation gives what torchvision's `transforms.v2.functional` gives for the same parameters, within the rounding of
8 bits. Three ideas make it fast:

- Brightness, contrast, saturation and grey all have the form  a x + g grey(x) + b  with three numbers a, g, b, and
  that form is closed under composition. Neighbours are joined into one pass of `cv2.transform` as long as nothing can
  be clipped between them, that is as long as the earlier one has a factor of at most 1. Joined or not, the result is
  the recipe's: clipping happens wherever torchvision clips. Hue commutes with a x + b, so brightness and contrast also
  join across it.
- Hue needs neither HSV nor floats: see `turn_hue`. OpenCV's 8-bit HSV would be wrong by up to 20 levels (it keeps 256
  hues and 256 saturations), its float HSV takes twice as long, and a rotation in YIQ is not the hue of HSV at all.
- Once a view is grey it has one channel until it is normalised.
"""

import math
from collections.abc import Sequence

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


def turn_hue(view: np.ndarray, turn: float) -> np.ndarray:
    """Turn the hue of every pixel, exactly as by way of HSV, on 8 bits and without a division.

    In HSV with chroma c = max - min, a turn by s sixths of the circle, 0 <= s <= 1, moves the channel between the other
    two by c s towards its predecessor on the ring red, green, blue, and what would pass the largest or the smallest
    value pushes that one instead. For a channel x with successor n and predecessor p, both cases are

        x' = clamp(p, x - [e - [x - n]], x + [e - [n - x]]),    e = c s,  [.] = negative to 0,

    which only adds, subtracts and compares. Backwards, n and p change places; a third of the circle exchanges channels.

    Args:
        view: uint8 (rows, columns, 3).
        turn: share of the full circle, -0.5 ... 0.5.
    """
    thirds = round(3 * turn)
    sixths = 6 * turn - 2 * thirds
    rows, columns = view.shape[:2]
    planes = cv2.split(view)
    # five planes, so that x, n and p are three views of one array, each of three planes
    ring = np.concatenate([planes[(channel - thirds) % 3] for channel in (0, 1, 2, 0, 1)])
    x, n, p = ring[: 3 * rows], ring[rows : 4 * rows], ring[2 * rows :]
    if sixths < 0:
        n, p = p, n
    chroma = cv2.subtract(cv2.max(cv2.max(*planes[:2]), planes[2]), cv2.min(cv2.min(*planes[:2]), planes[2]))
    e = cv2.convertScaleAbs(chroma, alpha=abs(sixths))
    e = np.concatenate([e, e, e])
    up, down = cv2.subtract(n, x), cv2.subtract(x, n)
    cv2.add(x, cv2.subtract(e, up, dst=up), dst=up)
    cv2.subtract(x, cv2.subtract(e, down, dst=down), dst=down)
    turned = cv2.min(cv2.max(p, down, dst=down), up, dst=up).reshape(3, rows, columns)
    return cv2.merge(list(turned))


def blur(view: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with reflected borders, like torchvision's with a kernel as large as the deviation needs.

    Args:
        view: uint8 (rows, columns) or (rows, columns, 3).
        sigma: standard deviation in pixels; 0 for no blur.
    """
    radius = blur_radius(sigma, min(view.shape[:2]))
    if radius == 0:
        return view
    kernel = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)
    return cv2.sepFilter2D(view, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def finish(
    view: np.ndarray,
    sigma: float,
    solarized: np.ndarray | None,
    normalise: Sequence[tuple[float, float]],
    out: np.ndarray,
) -> None:
    """Blur, solarize and normalise.

    Args:
        view: uint8 (rows, columns) or (rows, columns, 3).
        sigma: standard deviation of the blur; 0 for none.
        solarized: table for solarizing, or None.
        normalise: for each channel the factor and the offset that turn levels into normalised values.
        out: float32 (3, rows, columns), written to.
    """
    radius = blur_radius(sigma, min(view.shape[:2]))
    if radius and solarized is None and view.ndim == 3:  # the blur's last pass may as well normalise
        kernel = cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F)
        for plane, (factor, offset), target in zip(cv2.split(view), normalise, out, strict=True):
            across = kernel * np.float32(factor)
            cv2.sepFilter2D(
                plane, cv2.CV_32F, across, kernel, dst=target, delta=offset, borderType=cv2.BORDER_REFLECT_101
            )
        return
    view = blur(view, sigma)
    if solarized is not None:
        view = cv2.LUT(view, solarized)
    planes = (view, view, view) if view.ndim == 2 else cv2.split(view)
    for plane, (factor, offset), target in zip(planes, normalise, out, strict=True):
        cv2.addWeighted(plane, factor, plane, 0, offset, dst=target, dtype=cv2.CV_32F)


def blur_radius(sigma: float, size: int) -> int:
    """Pixels on each side of the centre that a Gaussian needs; at most `size` - 1, all that can be reflected."""
    return max(0, min(math.ceil(BLUR_DEVIATIONS * sigma), size - 1))


def solarize_table(threshold: float) -> np.ndarray:
    """What becomes of each of the 256 levels if those from `threshold` (0 ... 1) up are inverted, uint8 (256,)."""
    levels = np.arange(256)
    return np.where(levels >= threshold * 255, 255 - levels, levels).astype(np.uint8)


_IDENTITY = (1.0, 0.0, 0.0)
_GREY = (0.0, 1.0, 0.0)
_Mix = tuple[float, float, float]


def _compose(first: _Mix, second: _Mix) -> _Mix:
    """The mix that does `first` and then `second`; grey of a x + g grey(x) + b is (a + g) grey(x) + b."""
    a1, g1, b1 = first
    a2, g2, b2 = second
    return a2 * a1, a2 * g1 + g2 * (a1 + g1), (a2 + g2) * b1 + b2


def _apply(view: np.ndarray, turn: float, mix: _Mix) -> np.ndarray:
    """Turn the hue, then mix."""
    return _mix(view if turn == 0 else turn_hue(view, turn), mix)


def _mix(view: np.ndarray, mix: _Mix) -> np.ndarray:
    """a x + g grey(x) + b in one pass, rounded and clipped; one channel if a is 0."""
    if mix == _IDENTITY:
        return view
    a, g, b = mix
    if g == 0 and b >= 0:  # the fastest, but it takes absolute values
        return cv2.convertScaleAbs(view, alpha=a, beta=b)
    red, green, blue = (g * weight for weight in GREY_WEIGHTS)
    if a == 0:
        matrix = ((red, green, blue, b),)
    else:
        matrix = ((a + red, green, blue, b), (red, a + green, blue, b), (red, green, a + blue, b))
    return cv2.transform(view, np.array(matrix, np.float32))


def _grey_mean(view: np.ndarray) -> float:
    return sum(weight * mean for weight, mean in zip(GREY_WEIGHTS, cv2.mean(view), strict=False))
