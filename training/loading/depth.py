"""Images of more than 8 bits: which of the 256 levels their values use, and the option that gives their range."""

import itertools
import math
from typing import Any

import numpy as np

from ..data.columns import without_decoding
from ..data.iterable import readable_examples
from ..data.left_out import say
from ..errors import BadImageError
from ..images.decode import decode_image, stored_values
from ..images.value_range import StoredValues
from .encoded import encoded_bytes

_LEVELS_OF_16_BITS = 257
_DARK = 65535 / 2
"""Largest stored value of 16 bits at which most of the 256 levels are not used."""
_LOOKED_AT = 8


def describe_values(low: float, high: float, images: int, image_range: Any) -> str:
    """Say what becomes of the stored values of images of more than 8 bits.

    Args:
        low: The smallest value.
        high: The largest value.
        images: How many images were looked at.
        image_range: The values that are black and white, or None.
    """
    found = f"{low:g} to {high:g} in {images:,} images of more than 8 bits"
    if image_range is not None:
        return f"{found}; --image_range {image_range[0]:g} {image_range[1]:g} is black to white"
    if is_dark(low, high):
        bits = math.ceil(math.log2(high + 1))
        levels = round(high / _LEVELS_OF_16_BITS) + 1
        return (
            f"{found}: only the {levels} darkest of 256 levels are used; give the range with "
            f"--image_range 0 {2**bits - 1}"
        )
    return found


def is_dark(low: float, high: float) -> bool:
    """Whether values of 16 bits are those of a camera or scanner of 9 to 15 bits, which become almost black."""
    return low >= 0 and 255 < high <= _DARK


def say_if_dark(name: str, dataset: Any, column: str, image_range: Any) -> None:
    """Look at a few images of a data set, and say it if their values become black.

    That is: without a range, if they are those of a camera or scanner of 9 to 15 bits; and where they are no numbers.

    Args:
        name: Name of the data set.
        dataset: A `datasets` object.
        column: Column of the images.
        image_range: The values that are black and white, or None.
    """
    source = without_decoding(dataset, column)
    if hasattr(source, "__len__"):
        chosen = np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).round().astype(int).tolist()
        rows: Any = (source[row] for row in chosen)
    else:
        rows = itertools.islice(readable_examples(source, []), _LOOKED_AT)
    values = [found for found in (_values(row[column]) for row in rows) if found is not None]
    if not values:
        return
    low, high = min(one.low for one in values), max(one.high for one in values)
    if image_range is None and is_dark(low, high):
        say(name, describe_values(low, high, len(values), None))
    if shares := [one.not_numbers for one in values if one.not_numbers]:
        say(name, describe_not_numbers(shares, len(values)))


def describe_not_numbers(shares: list[float], images: int) -> str:
    """Say what becomes of values that are NaN or infinite.

    Args:
        shares: Their share in each image that has some.
        images: Images of more than 8 bits that were looked at.
    """
    return (
        f"{len(shares):,} of {images:,} images of more than 8 bits hold values that are no number (NaN, infinite), "
        f"up to {max(shares):.1%} of an image; they become black (plus infinity: white), and an image of nothing else "
        "is unreadable"
    )


def _values(image: Any) -> StoredValues | None:
    try:
        data = encoded_bytes(image)
        decode_image(data)
        return stored_values(data)
    except BadImageError:
        return None  # it is counted where it is used
