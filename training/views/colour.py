"""Colour operations on uint8 RGB views, in as few passes over the pixels as an exact result allows.

Each operation equals that of torchvision's `transforms.v2.functional` with the same parameters, up to 8-bit rounding.
Four ideas make it fast:

- Brightness, contrast, saturation and grey all have the form a x + g grey(x) + b, and this form is closed under
  composition. Consecutive operations are fused into one pass of `cv2.transform` if no value can be clipped between
  them, that is, if the earlier one has a factor of at most 1. Values are therefore clipped exactly where torchvision
  clips them. Hue commutes with a x + b, so brightness and contrast are also fused across it.
- The hue is shifted without HSV and without floats: see `_Canvas.turn_hue`. OpenCV's 8-bit HSV is wrong by up to 20
  levels (it has 256 hues and 256 saturations), its float HSV takes twice as long, and a rotation in YIQ is a different
  operation.
- Hue, blur and normalisation work on planes; mixing channels works on interleaved pixels. A view changes its layout
  only when the next operation needs the other one, and every operation writes to memory that is in the cache.
- A grey view has only one channel until it is normalised.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColourParameters

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601. torchvision uses 0.2989 for red, which makes white 0.03 of 255 levels too dark."""

BLUR_DEVIATIONS = 3.5
"""Radius of the blur in standard deviations. Beyond lies 0.05 % of the mass: an eighth of a level at a sharp edge."""


def split(view: np.ndarray, planes: np.ndarray) -> None:
    """Write the three channels of uint8 (rows, columns, 3) to `planes` (3, rows, columns)."""
    cv2.split(view, list(planes))


def jitter(view: np.ndarray, parameters: ColourParameters) -> np.ndarray:
    """Apply brightness, contrast, saturation and hue in the drawn order, then the conversion to grey.

    Args:
        view: uint8 (rows, columns, 3), contiguous. It is overwritten.
        parameters: The view's parameters.

    Returns:
        uint8 (3, rows, columns), or (1, rows, columns) if the view was converted to grey.
    """
    canvas = _Canvas(view)
    # `waiting` is a mix that is not applied yet; `turn` is a hue shift that comes before it. If `clips` is true, no
    # further operation may be fused with `waiting`, because torchvision clips after it.
    waiting, turn, clips = _IDENTITY, 0.0, False
    for operation in parameters.order:
        factor = parameters.factors[operation]
        if factor == (0.0 if operation == HUE else 1.0):
            continue
        if clips or (operation == HUE and waiting[1] != 0) or (operation == CONTRAST and turn != 0):
            canvas.turn_hue(turn)
            canvas.mix(waiting)
            waiting, turn, clips = _IDENTITY, 0.0, False
        if operation == HUE:
            turn = factor  # `waiting` now comes after it: hue commutes with a x + b
            continue
        if operation == BRIGHTNESS:
            step = (factor, 0.0, 0.0)
        elif operation == SATURATION:
            step = (factor, 1 - factor, 0.0)
        else:
            a, g, b = waiting
            step = (factor, 0.0, (1 - factor) * ((a + g) * canvas.grey_mean() + b))
        waiting, clips = _compose(waiting, step), factor > 1
    canvas.turn_hue(turn)
    if parameters.grayscale:
        if clips:
            canvas.mix(waiting)
            waiting = _IDENTITY
        waiting = _compose(waiting, _GREY)
    canvas.mix(waiting)
    return canvas.planes(1 if parameters.grayscale else 3)


def blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a Gaussian blur with reflected borders. The kernel's size follows from the standard deviation.

    Args:
        plane: uint8 (rows, columns).
        sigma: Standard deviation in pixels; 0 for no blur.
    """
    kernel = _gaussian(sigma, min(plane.shape))
    if kernel is None:
        return plane
    return cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def solarize(plane: np.ndarray, level: int) -> np.ndarray:
    """Invert all values of at least `level` (0 to 255); uint8 (rows, columns)."""
    bright = cv2.compare(plane, float(level), cv2.CMP_GE)  # 255 where true
    return cv2.bitwise_xor(plane, bright, dst=bright)


def finish(
    planes: np.ndarray | Sequence[np.ndarray],
    sigma: float,
    solarize_from: int | None,
    normalise: Sequence[tuple[float, float]],
    out: np.ndarray,
) -> None:
    """Blur, solarize and normalise.

    Args:
        planes: Three planes or one, each uint8 (rows, columns).
        sigma: Standard deviation of the blur in pixels; 0 for no blur.
        solarize_from: Values of at least this level are inverted; None for no solarizing.
        normalise: Factor and offset of each channel, which turn levels into normalised values.
        out: float32 (3, rows, columns); gets the result.
    """
    kernel = _gaussian(sigma, min(planes[0].shape))
    if kernel is not None and solarize_from is None and len(planes) == 3:  # the blur's last pass normalises, too
        for plane, (factor, offset), target in zip(planes, normalise, out, strict=True):
            across = kernel * np.float32(factor)
            cv2.sepFilter2D(
                plane, cv2.CV_32F, across, kernel, dst=target, delta=offset, borderType=cv2.BORDER_REFLECT_101
            )
        return
    planes = [blur(plane, sigma) for plane in planes]
    if solarize_from is not None:
        planes = [solarize(plane, solarize_from) for plane in planes]
    for channel, (factor, offset) in enumerate(normalise):
        plane = planes[channel % len(planes)]
        cv2.addWeighted(plane, factor, plane, 0, offset, dst=out[channel], dtype=cv2.CV_32F)


def blur_radius(sigma: float, size: int) -> int:
    """Return the radius of a blur's kernel in pixels; at most `size` - 1, the most that can be reflected."""
    return max(0, min(math.ceil(BLUR_DEVIATIONS * sigma), size - 1))


class _Canvas:
    """A view that is changed in place, as pixels (rows, columns, 3) or as planes, as the next operation needs.

    The planes are the first three of five planes in one array. The channels, their successors and their predecessors
    on the ring red, green, blue are then three views of this array, and one call processes all three channels.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._ring = np.empty((5, 0, 0), np.uint8)  # of the size of the view from the first need on
        self._in_planes = False

    def planes(self, channels: int) -> np.ndarray:
        """Return the first 1 or 3 channels, uint8 (channels, rows, columns)."""
        if channels == 1 and not self._in_planes:
            return cv2.extractChannel(self._pixels, 0)[None]
        self._to_planes()
        return self._ring[:channels]

    def grey_mean(self) -> float:
        """Return the mean luma."""
        means = [cv2.mean(plane)[0] for plane in self._ring[:3]] if self._in_planes else cv2.mean(self._pixels)[:3]
        return sum(weight * mean for weight, mean in zip(GREY_WEIGHTS, means, strict=True))

    def mix(self, mix: "_Mix") -> None:
        """Apply a x + g grey(x) + b in one pass, rounded and clipped."""
        if mix == _IDENTITY:
            return
        a, g, b = mix
        if g == 0:
            values = _stacked(self._ring[:3]) if self._in_planes else self._pixels
            if b >= 0:  # faster, but takes absolute values
                cv2.convertScaleAbs(values, dst=values, alpha=a, beta=b)
            else:
                cv2.addWeighted(values, a, values, 0, b, dst=values)
            return
        if self._in_planes:
            cv2.merge(list(self._ring[:3]), dst=self._pixels)
            self._in_planes = False
        red, green, blue = (g * weight for weight in GREY_WEIGHTS)
        matrix = ((a + red, green, blue, b), (red, a + green, blue, b), (red, green, a + blue, b))
        self._pixels = cv2.transform(self._pixels, np.array(matrix, np.float32))

    def turn_hue(self, turn: float) -> None:
        """Shift the hue of every pixel exactly as in HSV, on 8 bits and without a division.

        Let c = max - min be the chroma. A shift by s sixths of the circle, 0 <= s <= 1, moves the middle channel by c s
        towards its predecessor on the ring red, green, blue. If this would exceed the largest or the smallest value,
        the rest of the shift moves that channel instead. For a channel x with successor n and predecessor p, both cases
        are

            x' = clamp(p, x - [e - [x - n]], x + [e - [n - x]]),    e = c s,  [y] = max(y, 0),

        which needs only additions, subtractions and comparisons. A shift backwards swaps n and p; a shift by a third of
        the circle permutes the channels.

        Args:
            turn: Fraction of the full circle, -0.5 to 0.5.
        """
        if turn == 0:
            return
        self._to_planes()
        ring = self._ring
        thirds = round(3 * turn)
        sixths = 6 * turn - 2 * thirds
        if thirds:
            ring[:3] = ring[[-thirds % 3, (1 - thirds) % 3, (2 - thirds) % 3]]
        ring[3:] = ring[:2]
        red, green, blue = ring[:3]
        largest, smallest = cv2.max(red, green), cv2.min(red, green)
        cv2.subtract(cv2.max(largest, blue, dst=largest), cv2.min(smallest, blue, dst=smallest), dst=largest)
        e = cv2.convertScaleAbs(largest, dst=largest, alpha=abs(sixths))
        e = np.concatenate((e, e, e))
        x, n, p = _stacked(ring[:3]), _stacked(ring[1:4]), _stacked(ring[2:])
        if sixths < 0:
            n, p = p, n
        high = cv2.subtract(n, x)
        cv2.add(x, cv2.subtract(e, high, dst=high), dst=high)
        low = cv2.subtract(x, n)
        cv2.subtract(x, cv2.subtract(e, low, dst=low), dst=low)
        cv2.min(cv2.max(p, low, dst=low), high, dst=x)

    def _to_planes(self) -> None:
        if not self._in_planes:
            if not self._ring.size:
                self._ring = np.empty((5, *self._pixels.shape[:2]), np.uint8)
            split(self._pixels, self._ring[:3])
            self._in_planes = True


def _stacked(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(-1, planes.shape[-1])


_Mix = tuple[float, float, float]
_IDENTITY = (1.0, 0.0, 0.0)
_GREY = (0.0, 1.0, 0.0)


def _compose(first: _Mix, second: _Mix) -> _Mix:
    """Return the mix that equals `first` followed by `second`; grey of a x + g grey(x) + b is (a + g) grey(x) + b."""
    a1, g1, b1 = first
    a2, g2, b2 = second
    return a2 * a1, a2 * g1 + g2 * (a1 + g1), (a2 + g2) * b1 + b2


def _gaussian(sigma: float, size: int) -> np.ndarray | None:
    """Return the kernel for an image with shorter side `size`, float32 (2 radius + 1, 1); None if there is no blur."""
    radius = blur_radius(sigma, size)
    return cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F) if radius else None
