"""Values from JSON files that may hold anything, as what a card needs them to be."""

from typing import Any

LARGEST = 1e300


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that fits a float; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def numbers(value: Any) -> list[float]:
    """The finite numbers of a list, or of a value alone."""
    return [float(v) for v in (value if isinstance(value, list) else [value]) if is_number(v)]


def dictionary(value: Any) -> dict[str, Any]:
    """A dictionary, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def dictionaries(value: Any) -> list[dict[str, Any]]:
    """The dictionaries of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def percent(mean: float, spread: Any = None) -> str:
    """A share of one in per cent, with its spread where there is one."""
    text = f"{100 * mean:.1f}"
    return f"{text} ± {100 * spread:.1f} %" if is_number(spread) else f"{text} %"
