"""A few images to watch a run with, kept out of its training: chosen by hash, so every start chooses the same."""

from typing import Any

import numpy as np

from .columns import find_image_column, without_decoding
from .order import stable_hash


def split_monitoring(dataset: Any, fraction: float = 0.01, maximum: int = 2000) -> tuple[Any, Any]:
    """Set a hash-chosen part of the images aside.

    Args:
        dataset: `datasets.Dataset`.
        fraction: Share set aside.
        maximum: Most images set aside.

    Returns:
        (training data, held-out images as a `datasets.Dataset`), or (dataset, None) where the part is under two images.
    """
    count = min(maximum, round(fraction * len(dataset)))
    if count < 2:
        return dataset, None
    hashes = np.array([stable_hash("held out", key) for key in _keys(dataset)])
    held_out = np.sort(np.argsort(hashes, kind="stable")[:count])
    rest = np.setdiff1d(np.arange(len(dataset)), held_out, assume_unique=True)
    return dataset.select(rest), dataset.select(held_out)


def _keys(dataset: Any) -> list[str]:
    """A name of every image that does not depend on its row where the data set has one: its path, if all differ."""
    import pyarrow.compute

    column = find_image_column(dataset)
    paths: list[str | None] = []
    for batch in without_decoding(dataset, column).with_format("arrow").iter(batch_size=1000):
        images = batch.column(column).combine_chunks()
        if not hasattr(images.type, "get_field_index") or images.type.get_field_index("path") < 0:
            break
        paths.extend(pyarrow.compute.struct_field(images, "path").to_pylist())
    if len(paths) == len(dataset) and None not in paths and len(set(paths)) == len(paths):
        return [str(path) for path in paths]
    return [f"row {row}" for row in range(len(dataset))]
