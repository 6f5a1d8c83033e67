"""Colour operations on uint8 RGB views, with as few passes over the pixels as the exact recipe allows.

Each operation gives what torchvision's `transforms.v2.functional` gives for the same parameters, within the rounding of
8 bits. Four ideas make it fast:

- Brightness, contrast, saturation and grey all have the form  a x + g grey(x) + b  with three numbers a, g, b, and
  that form is closed under composition. Neighbours are joined into one pass of `cv2.transform` as long as nothing can
  be clipped between them, that is as long as the earlier one has a factor of at most 1. Joined or not, the result is
  the recipe's: clipping happens wherever torchvision clips. Hue commutes with a x + b, so brightness and contrast also
  join across it.
- Hue needs neither HSV nor floats: see `_Canvas.turn_hue`. OpenCV's 8-bit HSV would be wrong by up to 20 levels (it
  keeps 256 hues and 256 saturations), its float HSV takes twice as long, and a rotation in YIQ is not the hue of HSV at
  all.
- Hue, blur and normalisation work on planes, mixing channels on pixels: a view changes its layout only when the next
  operation needs the other one, and every operation writes into memory that is in the cache already.
- Once a view is grey it has one channel until it is normalised.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .draws import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColourParameters

GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""ITU-R BT.601. torchvision writes 0.2989, which loses 0.03 of 255 levels on white."""

BLUR_DEVIATIONS = 3.5
"""A Gaussian is cut off there; what lies beyond is 0.05 % of its mass, an eighth of a level at the sharpest edge."""


def split(view: np.ndarray, planes: np.ndarray) -> None:
    """Write the three channels of uint8 (rows, columns, 3) to `planes` (3, rows, columns)."""
    cv2.split(view, list(planes))


def jitter(view: np.ndarray, parameters: ColourParameters) -> np.ndarray:
    """Brightness, contrast, saturation and hue in the drawn order, then grey.

    Args:
        view: uint8 (rows, columns, 3), contiguous. Its content is used up.
        parameters: of this view.

    Returns:
        uint8 (3, rows, columns), or (1, rows, columns) if the view became grey.
    """
    canvas = _Canvas(view)
    # `waiting` is a mix that is not applied yet, `turn` a hue change that comes before it; `clips`: nothing may be
    # joined to `waiting` any more, because torchvision clips after it.
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
            turn = factor  # and `waiting` moves behind it: hue commutes with a x + b
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
    """Gaussian blur with reflected borders, like torchvision's with a kernel as large as the deviation needs.

    Args:
        plane: uint8 (rows, columns).
        sigma: standard deviation in pixels; 0 for no blur.
    """
    kernel = _gaussian(sigma, min(plane.shape))
    if kernel is None:
        return plane
    return cv2.sepFilter2D(plane, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def solarize(plane: np.ndarray, level: int) -> np.ndarray:
    """Invert the levels from `level` (0 ... 255) up; uint8 (rows, columns)."""
    bright = cv2.compare(plane, float(level), cv2.CMP_GE)  # 255 where true
    return cv2.bitwise_xor(plane, bright, dst=bright)


def finish(
    planes: Sequence[np.ndarray],
    sigma: float,
    solarize_from: int | None,
    normalise: Sequence[tuple[float, float]],
    out: np.ndarray,
) -> None:
    """Blur, solarize and normalise.

    Args:
        planes: three or one, uint8 (rows, columns) each.
        sigma: standard deviation of the blur; 0 for none.
        solarize_from: level from which levels are inverted, or None.
        normalise: for each channel the factor and the offset that turn levels into normalised values.
        out: float32 (3, rows, columns), written to.
    """
    kernel = _gaussian(sigma, min(planes[0].shape))
    if kernel is not None and solarize_from is None and len(planes) == 3:  # the blur's last pass may as well normalise
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
    """Pixels on each side of the centre that a Gaussian needs; at most `size` - 1, all that can be reflected."""
    return max(0, min(math.ceil(BLUR_DEVIATIONS * sigma), size - 1))


class _Canvas:
    """A view that is changed in place, as pixels (rows, columns, 3) or as planes, whichever the next operation needs.

    The planes are the first three of five in one array, so that the channels, their successors and their predecessors
    on the ring red, green, blue are three views of it, and one call changes all three.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self._ring: np.ndarray | None = None
        self._in_planes = False

    def planes(self, channels: int) -> np.ndarray:
        """The first 1 or 3 channels, uint8 (channels, rows, columns)."""
        if channels == 1 and not self._in_planes:
            return cv2.extractChannel(self._pixels, 0)[None]
        self._to_planes()
        return self._ring[:channels]

    def grey_mean(self) -> float:
        """Mean luma."""
        means = [cv2.mean(plane)[0] for plane in self._ring[:3]] if self._in_planes else cv2.mean(self._pixels)[:3]
        return sum(weight * mean for weight, mean in zip(GREY_WEIGHTS, means, strict=True))

    def mix(self, mix: "_Mix") -> None:
        """a x + g grey(x) + b in one pass, rounded and clipped."""
        if mix == _IDENTITY:
            return
        a, g, b = mix
        if g == 0:
            values = _stacked(self._ring[:3]) if self._in_planes else self._pixels
            if b >= 0:  # the faster one takes absolute values
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
        """Turn the hue of every pixel, exactly as by way of HSV, on 8 bits and without a division.

        In HSV with chroma c = max - min, a turn by s sixths of the circle, 0 <= s <= 1, moves the channel between the
        other two by c s towards its predecessor on the ring red, green, blue, and what would pass the largest or the
        smallest value pushes that one instead. For a channel x with successor n and predecessor p, both cases are

            x' = clamp(p, x - [e - [x - n]], x + [e - [n - x]]),    e = c s,  [.] = negative to 0,

        which only adds, subtracts and compares. Backwards, n and p change places; a third of the circle exchanges
        channels.

        Args:
            turn: share of the full circle, -0.5 ... 0.5.
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
            if self._ring is None:
                self._ring = np.empty((5, *self._pixels.shape[:2]), np.uint8)
            split(self._pixels, self._ring[:3])
            self._in_planes = True


def _stacked(planes: np.ndarray) -> np.ndarray:
    return planes.reshape(-1, planes.shape[-1])


_Mix = tuple[float, float, float]
_IDENTITY = (1.0, 0.0, 0.0)
_GREY = (0.0, 1.0, 0.0)


def _compose(first: _Mix, second: _Mix) -> _Mix:
    """The mix that does `first` and then `second`; grey of a x + g grey(x) + b is (a + g) grey(x) + b."""
    a1, g1, b1 = first
    a2, g2, b2 = second
    return a2 * a1, a2 * g1 + g2 * (a1 + g1), (a2 + g2) * b1 + b2


def _gaussian(sigma: float, size: int) -> np.ndarray | None:
    """Weights of a blur of a picture whose shorter side is `size`, float32 (2 radius + 1, 1); None for none."""
    radius = blur_radius(sigma, size)
    return cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F) if radius else None
