"""Several data sets as one, with mixing weights."""

import math
from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from .iterable import as_stream


class Mixture:
    """Several data sets and their weights; `ViewLoader` draws from it.

    Attributes:
        datasets: The data sets; all are map-style, or all are streams.
        weights: Probability of each; they sum to 1. None takes every example once per pass.
        seed: Seed of the mixture, hashed with that of the loader.
    """

    def __init__(self, datasets: list[Any], weights: list[float] | None, seed: int = 0) -> None:
        self.datasets, self.weights, self.seed = datasets, weights, seed

    @property
    def streaming(self) -> bool:
        """Whether the data sets are streams."""
        return not hasattr(self.datasets[0], "__len__")


class MapMixture(Mixture):
    """A mixture of map-style data sets. A pass has as many examples as the data sets have together."""

    def __len__(self) -> int:
        """Number of examples of all data sets together."""
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, row: int) -> Any:
        """Example number `row` of the concatenated data sets.

        Raises:
            IndexError: There are fewer examples.
        """
        for dataset in self.datasets:
            if row < len(dataset):
                return dataset[row]
            row -= len(dataset)
        raise IndexError("row beyond the end of the mixture")


def mix_streams(datasets: Sequence[Any], weights: Sequence[float] | None = None, seed: int = 0) -> Any:
    """Mix data sets for a `ViewLoader`.

    Without weights, every pass takes every example of every data set once. With weights, a pass over map-style data
    sets has as many examples as they have together. Data set i contributes exactly its share of them, and takes each of
    its examples once before it takes one again. From streams, each example is drawn from stream i with probability
    weights[i]; every stream starts its next pass on its own, and the mixture has no end of pass.

    Args:
        datasets: `datasets.Dataset` or `IterableDataset` objects; if one is a stream, all are read as streams.
        weights: One positive number per data set, scaled to sum 1; None for equal treatment of all examples.
        seed: Seed of the mixture, hashed with that of the loader.

    Returns:
        A `Mixture`; the data set itself if there is only one.

    Raises:
        UserError: There are no data sets, or not one positive weight for each.
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
    streams = [as_stream(dataset, 64) if hasattr(dataset, "__len__") else dataset for dataset in datasets]
    return Mixture(streams, weights, seed)
