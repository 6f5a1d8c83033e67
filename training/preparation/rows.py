"""The undecoded rows of one split in the order in which they are written, from any position on."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data.columns import KEY, URL, without_decoding
from ..data.iterable import length_of
from ..data.order import generator
from ..loading.map_source import source_name

_READ_AT_ONCE = 32


class SourceRows:
    """The rows of a split.

    Args:
        dataset: A `datasets.Dataset` or `IterableDataset`.
        split: Its name, for the order.
        image: The column of the images.
        shuffle: Whether the rows come in a random order, the same every time. Those of a stream never do.

    Attributes:
        name: Name of the data set, for the list of unreadable images.
        size: Number of rows; None if a stream does not know.
    """

    def __init__(self, dataset: Any, split: str, image: str, shuffle: bool) -> None:
        import datasets

        self.name = source_name(dataset)
        self.size = length_of(dataset)
        self._image = image
        self._dataset = without_decoding(dataset)
        self._order: np.ndarray | None = None
        if isinstance(dataset, datasets.Dataset):
            count = len(dataset)
            self._order = generator("prepare", split).permutation(count) if shuffle else np.arange(count)

    def after(self, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number of the row in the source, its columns) from position `first` of the order on."""
        if self._order is None:
            rows = self._dataset.skip(first) if first else self._dataset
            yield from enumerate(rows, start=first)
            return
        for start in range(first, len(self._order), _READ_AT_ONCE):
            numbers = self._order[start : start + _READ_AT_ONCE].tolist()
            columns = self._dataset[numbers]
            for index, number in enumerate(numbers):
                yield number, {name: values[index] for name, values in columns.items()}

    def named(self, number: int, row: dict[str, Any]) -> tuple[str, str]:
        """(source, key) by which a row is listed: its shard and WebDataset key, its file, or its number."""
        image = row[self._image]
        key = row.get(KEY) or (image.get("path") if isinstance(image, dict) else None) or f"row {number}"
        return str(row.get(URL) or self.name), str(key)
