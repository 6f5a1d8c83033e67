"""The stored values that are black and white in images of more than 8 bits."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError

if TYPE_CHECKING:
    import numpy as np

ValueRange = tuple[float, float]
"""The stored values that become black (0) and white (255); values outside are cut."""


class StoredValues(NamedTuple):
    """What the pixels of an image of more than 8 bits hold.

    Attributes:
        low: The smallest number.
        high: The largest number.
        not_numbers: Share of the values that are NaN or infinite.
    """

    low: float
    high: float
    not_numbers: float = 0.0


def values_of(pixels: "np.ndarray") -> StoredValues | None:
    """The range of an array, and the share of its values that are no numbers; None if none is one."""
    import numpy as np  # slow to import, and options only check a range

    finite = np.isfinite(pixels)
    share = 1 - float(finite.mean()) if finite.size else 1.0
    numbers = pixels if share == 0 else pixels[finite]
    return StoredValues(float(numbers.min()), float(numbers.max()), share) if numbers.size else None


def check_range(given: Any, name: str) -> ValueRange:
    """The two numbers of a range of values.

    Args:
        given: What the user gave.
        name: Its name, for the message.

    Raises:
        UserError: it is not two finite numbers, the smaller one first.
    """
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{name} is the values of black and white, the smaller one first, such as 0 4095, not {given}")
    return low, high
