"""The undecoded rows of one split in the order in which they are written, from any position on."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..data.columns import KEY, URL, without_decoding
from ..data.iterable import DamagedShard, length_of, readable_examples, unopened_shards
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
        """(number of the row in the source, its columns) from position `first` of the order on.

        What a stream cannot read of a shard comes last, as one row for each shard, which holds a `DamagedShard`.
        """
        if self._order is None:
            damaged = unopened_shards(self._dataset)
            rows = itertools.chain(readable_examples(self._dataset, damaged), _as_rows(damaged, self._image))
            yield from itertools.islice(enumerate(rows), first, None)
            return
        for start in range(first, len(self._order), _READ_AT_ONCE):
            numbers = self._order[start : start + _READ_AT_ONCE].tolist()
            columns = self._dataset[numbers]
            for index, number in enumerate(numbers):
                yield number, {name: values[index] for name, values in columns.items()}

    def named(self, number: int, row: dict[str, Any]) -> tuple[str, str]:
        """(source, key) by which a row is listed: its shard and WebDataset key, its file, or its number."""
        image = row[self._image]
        if isinstance(image, DamagedShard):
            return image.file or self.name, image.place or f"row {number}"
        key = row.get(KEY) or (image.get("path") if isinstance(image, dict) else None) or f"row {number}"
        return str(row.get(URL) or self.name), str(key)


def _as_rows(damaged: list[DamagedShard], image: str) -> Iterator[dict[str, Any]]:
    """A row for each shard of a list, which may be filled until the first row is asked for."""
    yield from ({image: shard} for shard in damaged)
