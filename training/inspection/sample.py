"""What `ladder inspect` counts while it decodes a sample of images."""

from collections import Counter
from typing import Any

import numpy as np

from ..images.value_range import StoredValues

_EXAMPLES = 5


class SampleFacts:
    """Facts of images that are decoded one after the other.

    Args:
        shown: Up to twice as many readable images are kept, still encoded, spread over the sample.

    Attributes:
        readable: The images that are kept.
    """

    def __init__(self, shown: int) -> None:
        self.readable: list[bytes] = []
        self._shown = shown
        self._every = 1  # of the readable images, each `every`-th is kept
        self._sizes: list[tuple[int, int]] = []
        self._file_sizes: list[int] = []
        self._modes: Counter[str] = Counter()
        self._formats: Counter[str] = Counter()
        self._deep: list[StoredValues] = []
        self._labels: Counter[str] = Counter()
        self._without_label = 0
        self._unreadable = 0
        self._unreadable_examples: list[dict[str, str]] = []

    def add(self, data: bytes, mode: str, kind: str, size: tuple[int, int], values: StoredValues | None) -> None:
        """Count a readable image.

        Args:
            data: The encoded image.
            mode: As it is stored, in Pillow's words.
            kind: Its format.
            size: Width and height in pixels.
            values: Stored values of an image of more than 8 bits; None for others.
        """
        if len(self._sizes) % self._every == 0:
            self.readable.append(data)
        if len(self.readable) == 2 * self._shown:
            self.readable, self._every = self.readable[::2], 2 * self._every
        self._modes[mode] += 1
        self._formats[kind] += 1
        self._sizes.append(size)
        self._file_sizes.append(len(data))
        if values is not None:
            self._deep.append(values)

    def add_unreadable(self, key: str, reason: str) -> None:
        """Count an image that cannot be decoded; the first ones are kept as examples."""
        self._unreadable += 1
        if len(self._unreadable_examples) < _EXAMPLES:
            self._unreadable_examples.append({"key": key, "reason": reason})

    def add_label(self, label: Any) -> None:
        """Count the label of a readable image; None and -1 mean that it has none."""
        if label is None or label == -1:
            self._without_label += 1
        else:
            self._labels[str(label)] += 1

    def report(self) -> dict[str, Any]:
        """The facts, as `inspect_one` describes them."""
        looked_at = len(self._sizes) + self._unreadable
        return {
            "labels": dict(self._labels.most_common()),
            "looked_at": looked_at,
            "unreadable": self._unreadable,
            "unreadable_share": self._unreadable / looked_at if looked_at else 0.0,
            "unreadable_examples": self._unreadable_examples,
            "width": _range([width for width, _ in self._sizes]),
            "height": _range([height for _, height in self._sizes]),
            "modes": dict(self._modes.most_common()),
            "formats": dict(self._formats.most_common()),
            "bytes": int(np.median(self._file_sizes)) if self._file_sizes else None,
            "without_label": self._without_label,
            "deep": _stored_values(self._deep),
        }


def evenly(items: list[Any], count: int) -> list[Any]:
    """Pick at most `count` of the items, evenly spaced from the first to the last."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(count, len(items))).round()]


def _range(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    return {"smallest": int(min(values)), "median": float(np.median(values)), "largest": int(max(values))}


def _stored_values(deep: list[StoredValues]) -> dict[str, Any] | None:
    """The range of the stored values of the images of more than 8 bits, and what of them are no numbers."""
    if not deep:
        return None
    return {
        "images": len(deep),
        "smallest": min(values.low for values in deep),
        "largest": max(values.high for values in deep),
        "not_numbers": [values.not_numbers for values in deep if values.not_numbers],
    }
