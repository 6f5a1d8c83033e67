"""Several sources as one, with mixing weights."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import UserError
from .order import PassOrders


class Mixture:
    """Several data sets and their weights; `ViewLoader` draws from it.

    Attributes:
        datasets: All map-style or all streams.
        weights: Probability of each, summing to 1; None: every example once per pass.
        seed: Seed of the mixture, besides that of the loader.
    """

    def __init__(self, datasets: list[Any], weights: list[float] | None, seed: int = 0) -> None:
        self.datasets, self.weights, self.seed = datasets, weights, seed

    @property
    def streaming(self) -> bool:
        return not hasattr(self.datasets[0], "__len__")


class MapMixture(Mixture):
    """A mixture with a length: a pass has as many examples as its sources have together."""

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, row: int) -> Any:
        """The example `row` of the sources laid end to end."""
        for dataset in self.datasets:
            if row < len(dataset):
                return dataset[row]
            row -= len(dataset)
        raise IndexError("row beyond the end of the mixture")


def mix_streams(datasets: Sequence[Any], weights: Sequence[float] | None = None, seed: int = 0) -> Any:
    """Mix data sets, to be given to `ViewLoader`.

    Without weights every example of every source comes once per pass. With weights:
    map-style, a pass has as many examples as the sources together; source i gives its share of them exactly, going
    through its own examples in an order of its own, all once before any again. Streams: each example is drawn from
    source i with probability weights[i], every source passing at its own pace; such a stream has no end of pass.

    Args:
        datasets: `datasets.Dataset` or `IterableDataset` objects; if one is a stream, all are read as streams.
        weights: One per data set, above 0; scaled to sum 1.
        seed: Seed of the mixture, besides that of the loader.

    Raises:
        UserError: No data sets, or weights that are not one positive number each.
    """
    datasets = list(datasets)
    if not datasets:
        raise UserError("no data sets to mix")
    if weights is not None:
        weights = [float(weight) for weight in weights]
        if len(weights) != len(datasets):
            raise UserError(f"{len(weights)} mixing weights for {len(datasets)} data sets; give one for each")
        if not all(math.isfinite(weight) and weight > 0 for weight in weights):
            raise UserError(f"mixing weights must be numbers above 0, not {' '.join(f'{w:g}' for w in weights)}")
        weights = [weight / sum(weights) for weight in weights]
    if len(datasets) == 1:
        return datasets[0]
    if all(hasattr(dataset, "__len__") for dataset in datasets):
        return MapMixture(datasets, weights, seed)
    from .iterable import as_stream

    streams = [as_stream(dataset, 64) if hasattr(dataset, "__len__") else dataset for dataset in datasets]
    return Mixture(streams, weights, seed)


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, as near to its shares by `weights` as can be (largest remainders)."""
    shares = np.asarray(weights, dtype=np.float64) * total
    counts = np.floor(shares).astype(np.int64)
    for index in np.argsort(counts - shares, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    return counts.tolist()


class MixedMapSource:
    """Several `MapSource`s as one (same interface).

    Args:
        sources: The sources.
        weights: Probability of each; None for one pass of each.
        seed: Seed of the order in which they are mixed.
    """

    def __init__(self, sources: list[Any], weights: list[float] | None, seed: int) -> None:
        self.sources = sources
        sizes = [source.size for source in sources]
        self.size = sum(sizes)
        self.name = " + ".join(source.name for source in sources)
        self._counts = sizes if weights is None else apportion(self.size, weights)
        self._first_row = np.cumsum([0, *sizes])
        self._first_slot = np.cumsum([0, *self._counts])
        self._orders = PassOrders(self.size, seed, "mix")

    def read(self, rows: list[int]) -> list[tuple[Any, str, str]]:
        """Undecoded (image, source, key) of each row; rows count through the sources."""
        places = [self.identity(row) for row in rows]
        found: list[Any] = [None] * len(rows)
        for number, source in enumerate(self.sources):
            mine = [index for index, (owner, _) in enumerate(places) if owner == number]
            for index, example in zip(mine, source.read([places[index][1] for index in mine]), strict=True):
                found[index] = example
        return found

    def identity(self, row: int) -> tuple[int, int]:
        """(source, row of the source)."""
        source = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return source, row - int(self._first_row[source])

    def draw(self, pass_index: int, positions: range) -> list[tuple[int, int]]:
        """The (row, pass of its source) at `positions` of the shared order of a pass."""
        order = self._orders.of(pass_index)
        drawn = []
        for slot in order[positions.start : positions.stop : positions.step]:
            number = int(np.searchsorted(self._first_slot, slot, side="right")) - 1
            source = self.sources[number]
            turn = pass_index * self._counts[number] + int(slot) - int(self._first_slot[number])
            source_pass, place = divmod(turn, source.size)
            row = int(source.orders.of(source_pass)[place])
            drawn.append((int(self._first_row[number]) + row, source_pass))
        return drawn
