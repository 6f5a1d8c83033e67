"""The stored values that are black and white in images of more than 8 bits."""

import math
from typing import Any

from ..errors import UserError

ValueRange = tuple[float, float]
"""The stored values that become black (0) and white (255); values outside are cut."""


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
