"""Read values of JSON files, which may contain anything, as the types that a card needs."""

from typing import Any

LARGEST = 1e300


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number that fits a float. Booleans are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def numbers(value: Any) -> list[float]:
    """Pick the finite numbers of a list, or of a single value."""
    return [float(v) for v in (value if isinstance(value, list) else [value]) if is_number(v)]


def dictionary(value: Any) -> dict[str, Any]:
    """Return a dictionary as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def dictionaries(value: Any) -> list[dict[str, Any]]:
    """Pick the dictionaries of a list; none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def percent(mean: float, spread: Any = None) -> str:
    """Write a fraction in per cent, with its spread if there is one."""
    text = f"{100 * mean:.1f}"
    return f"{text} ± {100 * spread:.1f} %" if is_number(spread) else f"{text} %"
