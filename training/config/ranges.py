"""Ranges of numbers: declared with an option, and checked in one place."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

LARGEST_WHOLE = 2**63 - 1
"""Whole numbers beyond it fit no tensor and no file."""


@dataclass(frozen=True)
class Range:
    """Which numbers an option may have. Every number must be finite.

    Attributes:
        minimum: Smallest number allowed, or None.
        maximum: Largest number allowed, or None.
        above: The number must be greater, or None.
        below: The number must be smaller, or None.
        length: Numbers in a list; None allows any number of them but none at all.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    length: int | None = None

    def check(self, value: Any, name: str) -> None:
        """Check a number, or every number of a list. None and values that are no numbers are not checked.

        Raises:
            UserError: a number is out of range, or not finite; or the list has another length.
        """
        if isinstance(value, (list, tuple)):
            self._check_length(value, name)
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool) and not self._holds(number):
                infinite = math.isinf(number) and self._is_within(math.copysign(1e300, number))
                raise UserError(f"{name} must be {'a finite number' if infinite else self}, got {number}")

    def __str__(self) -> str:
        parts = [
            f"{words} {limit if isinstance(limit, int) else format(limit, 'g')}"
            for words, limit in (
                ("at least", self.minimum),
                ("greater than", self.above),
                ("at most", self.maximum),
                ("less than", self.below),
            )
            if limit is not None and abs(limit) < LARGEST_WHOLE
        ]
        return " and ".join(parts) or "a finite number"

    def _check_length(self, values: Sequence[Any], name: str) -> None:
        if self.length is not None and len(values) != self.length:
            raise UserError(f"{name} must be {self.length} numbers, got {len(values)}")
        if not values:
            raise UserError(f"{name} is empty: give at least one number")

    def _holds(self, number: float) -> bool:
        return math.isfinite(number) and abs(number) <= 1e300 and self._is_within(number)

    def _is_within(self, number: float) -> bool:
        return (
            (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (isinstance(number, float) or abs(number) <= LARGEST_WHOLE)
        )


ANY = Range()
SEED = Range(minimum=0, maximum=2**32 - 1)
"""Of numpy's seeds."""


def check_seed(value: Any, name: str = "seed") -> int:
    """Return a seed as Python's whole number; one of numpy is taken too.

    Raises:
        UserError: it is no whole number, or out of `SEED`'s range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise UserError(f"{name} must be a whole number, got {value!r}")
    number = operator.index(value)
    SEED.check(number, name)
    return number
