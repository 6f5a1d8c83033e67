"""The random parameters of a view: its crop and its colour operations, all drawn at once from one seed.

The number of draws never depends on earlier draws, on the image or on the mode. A parameter is therefore the same
function of the seed, wherever the view is made.
"""

import hashlib
import math
import operator
import os
import struct
from dataclasses import dataclass
from typing import NamedTuple

CROP_TRIES = 10
_DRAWS_PER_VIEW = 2 * CROP_TRIES + 16
_UNSIGNED = struct.Struct(f"<{2 * _DRAWS_PER_VIEW}I")

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""Indices of the four jitter operations in `ColourParameters.order` and `factors`."""

PARAMETER_COUNT = 11
"""Length of a view's row in `view_parameters`: four for order, four for factors, then grayscale, sigma, solarize."""


class ColourParameters(NamedTuple):
    """Colour operations of one view.

    Attributes:
        order: The four jitter operations in the order in which they are applied.
        factors: Factors of brightness, contrast and saturation (1: unchanged), and the hue shift as a fraction of the
            circle (0: unchanged). A view without jitter has (1, 1, 1, 0).
        grayscale: Whether the view is converted to grey after the jitter.
        sigma: Standard deviation of the following blur, in pixels of the view; 0 for none.
        solarize: Whether values from the threshold on are inverted at the end.
    """

    order: tuple[int, int, int, int] = (BRIGHTNESS, CONTRAST, SATURATION, HUE)
    factors: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.0)
    grayscale: bool = False
    sigma: float = 0.0
    solarize: bool = False

    def to_row(self) -> list[float]:
        """Return the parameters as `PARAMETER_COUNT` numbers, for a tensor."""
        return [*self.order, *self.factors, self.grayscale, self.sigma, self.solarize]


@dataclass(frozen=True)
class Chances:
    """Probabilities and strengths of the operations, as in `TwoViewTransform`; pairs belong to view 1 and view 2."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    jitter: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grayscale: float
    blur: tuple[float, float]
    sigma: tuple[float, float]
    solarize: tuple[float, float]


class Draws:
    """Draws the random parameters of both views of one image.

    Args:
        chances: The distribution.
        seed: Any integer. None draws fresh entropy. Global random states are neither read nor changed.

    Raises:
        TypeError: `seed` is no integer. (One that was cut to an integer would be the seed of another image, too.)
    """

    def __init__(self, chances: Chances, seed: int | None) -> None:
        self._chances = chances
        # SHAKE-128 gives unrelated numbers for neighbouring seeds and the same numbers on every machine. It takes a
        # tenth of the time that creating a numpy generator takes.
        key = os.urandom(32) if seed is None else str(int(operator.index(seed))).encode()
        numbers = _UNSIGNED.unpack(hashlib.shake_128(key).digest(_UNSIGNED.size))
        uniform = [(number + 0.5) / 4294967296 for number in numbers]
        self._uniform = (uniform[:_DRAWS_PER_VIEW], uniform[_DRAWS_PER_VIEW:])

    def crop(self, view: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Draw Inception's random crop, sampled as in torchvision's RandomResizedCrop.

        Args:
            view: 0 or 1.
            width: Width of the image, in pixels.
            height: Height of the image, in pixels.

        Returns:
            x0, y0, x1, y1 in pixels. If ten attempts do not fit into the image, the largest central crop with an
            allowed ratio.
        """
        uniform, (low, high) = self._uniform[view], self._chances.ratio
        smallest, largest = self._chances.scale
        log_low, log_high = math.log(low), math.log(high)
        across, down = uniform[2 * CROP_TRIES : 2 * CROP_TRIES + 2]
        for attempt in range(CROP_TRIES):
            area = width * height * (smallest + (largest - smallest) * uniform[2 * attempt])
            ratio = math.exp(log_low + (log_high - log_low) * uniform[2 * attempt + 1])
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                x, y = int(across * (width - w + 1)), int(down * (height - h + 1))
                return x, y, x + w, y + h
        w, h = width, height
        if width < height * low:
            h = max(1, min(height, round(width / low)))
        elif width > height * high:
            w = max(1, min(width, round(height * high)))
        x, y = (width - w) // 2, (height - h) // 2
        return x, y, x + w, y + h

    def flip(self, view: int) -> bool:
        """Draw whether the view is flipped horizontally."""
        return self._uniform[view][2 * CROP_TRIES + 2] < self._chances.flip

    def colours(self, view: int) -> ColourParameters:
        """Draw the colour operations of a view."""
        chances = self._chances
        jitter, k0, k1, k2, k3, b, c, s, h, gray, blur, sigma, solarize = self._uniform[view][2 * CROP_TRIES + 3 :]
        keys, (smallest, largest) = (k0, k1, k2, k3), chances.sigma
        jittered = (
            _around_one(chances.brightness, b),
            _around_one(chances.contrast, c),
            _around_one(chances.saturation, s),
            chances.hue * (2 * h - 1),
        )
        first, second, third, fourth = sorted(range(4), key=keys.__getitem__)
        return ColourParameters(
            order=(first, second, third, fourth),
            factors=jittered if jitter < chances.jitter else (1.0, 1.0, 1.0, 0.0),
            grayscale=gray < chances.grayscale,
            sigma=smallest + (largest - smallest) * sigma if blur < chances.blur[view] else 0.0,
            solarize=solarize < chances.solarize[view],
        )


def _around_one(amount: float, uniform: float) -> float:
    """Map a uniform number in [0, 1] to a factor in [max(0, 1 - amount), 1 + amount]."""
    low = max(0.0, 1 - amount)
    return low + (1 + amount - low) * uniform
