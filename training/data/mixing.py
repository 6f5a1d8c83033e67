"""Several sources as one, with mixing weights."""

import math
from collections.abc import Sequence
from typing import Any

from ..errors import UserError


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
