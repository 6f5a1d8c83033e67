"""A few images to watch a run with, kept out of its training: chosen by hash, so every start chooses the same."""

import hashlib
import itertools
from typing import Any

import numpy as np

from .columns import check_image_column, find_label_column, own_column, without_decoding
from .iterable import set_stream_size, stream_size
from .mixing import MapMixture, Mixture
from .order import stable_hash

# Of a stream only its beginning is looked at: this many examples for each one held out, and at most so many in all.
_WINDOW = 10
_LARGEST_WINDOW = 20_000
_WINDOW_SHARDS = 8


def split_monitoring(
    dataset: Any, fraction: float = 0.01, maximum: int = 2000, image_column: str | None = None
) -> tuple[Any, Any]:
    """Set a hash-chosen part of the images aside.

    Map-style, an image is chosen by its path if all have different paths, else by its row. In a stream it is chosen by
    its content, among the first examples of up to eight shards (ten for each image held out), and everything equal
    to it is left out of the training stream, without decoding. Of a stream that does not tell its length, `fraction`
    is taken of what was looked at (at most 20,000).

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`, or a mixture of them (`mixing.mix_streams`).
        fraction: Share set aside.
        maximum: Most images set aside.
        image_column: Column of the images; None finds it.

    Returns:
        (training data, held-out images as a `datasets.Dataset` with the image column and, where there are labels, the
        label column), or (dataset, None) where fewer than two images would be set aside. Of a mixture, labels are kept
        only if all parts name the same classes.
    """
    if isinstance(dataset, Mixture):
        return _split_mixture(dataset, fraction, maximum, image_column)
    column = check_image_column(dataset, image_column)
    if not hasattr(dataset, "__len__"):
        return _split_stream(dataset, fraction, maximum, column)
    count = min(maximum, round(fraction * len(dataset)))
    if count < 2:
        return dataset, None
    hashes = np.array([stable_hash("held out", key) for key in _keys(dataset, column)])
    held_out = np.sort(np.argsort(hashes, kind="stable")[:count])
    rest = np.setdiff1d(np.arange(len(dataset)), held_out, assume_unique=True)
    return dataset.select(rest), dataset.select(held_out)


def _keys(dataset: Any, column: str) -> list[str]:
    """A name of every image that does not depend on its row where the data set has one: its path, if all differ."""
    import pyarrow.compute

    images = dataset.data.column(column)
    rows = None if dataset._indices is None else dataset._indices.column(0)
    if hasattr(images.type, "get_field_index") and images.type.get_field_index("path") >= 0:
        paths = pyarrow.compute.struct_field(images, "path")
        paths = (paths if rows is None else paths.take(rows)).to_pylist()
        if None not in paths and len(set(paths)) == len(paths):
            return paths
    return [f"row {row}" for row in (range(len(dataset)) if rows is None else rows.to_pylist())]


def content_key(image: Any) -> bytes:
    """Hash of an undecoded image: of its bytes, or of its path where it is a file."""
    if isinstance(image, dict):
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    data = image if isinstance(image, bytes) else str(image).encode()
    return hashlib.blake2b(data, digest_size=16).digest()


class _NotHeldOut:
    """Whether an undecoded image is none of those held out."""

    def __init__(self, keys: set[bytes]) -> None:
        self.keys = keys

    def __call__(self, image: Any) -> bool:
        return content_key(image) not in self.keys


def _split_stream(dataset: Any, fraction: float, maximum: int, column: str) -> tuple[Any, Any]:
    import datasets

    label = find_label_column(dataset)
    looked_at = without_decoding(dataset, column, *([label] if label else []))
    size = stream_size(dataset)
    wanted = maximum if size is None else min(maximum, round(fraction * size))
    window = min(_LARGEST_WINDOW, wanted * _WINDOW)
    shards = min(_WINDOW_SHARDS, dataset.num_shards)
    chosen = np.linspace(0, dataset.num_shards - 1, shards).round().astype(int)
    rows = []
    for shard in chosen:
        part = looked_at.shard(num_shards=dataset.num_shards, index=int(shard))
        rows.extend(itertools.islice(part, -(-window // shards)))
    count = min(maximum, round(fraction * (len(rows) if size is None else size)), len(rows))
    if count < 2:
        return dataset, None
    by_key = {content_key(row[column]): row for row in rows}
    keys = sorted(by_key, key=lambda key: hashlib.blake2b(key, person=b"held out").digest())[:count]
    features = looked_at.features
    held_out = datasets.Dataset.from_list([by_key[key] for key in keys], features=features)
    undecoded = without_decoding(dataset, column)
    rest = undecoded.filter(_NotHeldOut(set(keys)), input_columns=[column])
    rest = rest.cast_column(column, datasets.Image(decode=False))
    rest.info.dataset_name = dataset.info.dataset_name
    if size is not None:
        set_stream_size(rest, size - len(keys))
    return rest, held_out.cast_column(column, datasets.Image())


def _split_mixture(mixture: Mixture, fraction: float, maximum: int, image_column: str | None) -> tuple[Any, Any]:
    import datasets

    share = maximum // len(mixture.datasets)
    split = [split_monitoring(part, fraction, share, own_column(part, image_column)) for part in mixture.datasets]
    made = MapMixture if isinstance(mixture, MapMixture) else Mixture
    rest = made([part for part, _ in split], mixture.weights, mixture.seed)
    held_out = [part for _, part in split if part is not None]
    if not held_out:
        return mixture, None
    labels = [find_label_column(part) for part in held_out]
    same = (
        None not in labels
        and len({repr(part.features[label]) for part, label in zip(held_out, labels, strict=True)}) == 1
    )
    plain = []
    for part, label in zip(held_out, labels, strict=True):
        column = check_image_column(part, own_column(part, image_column))
        names = {column: "image", label: "label"} if same else {column: "image"}
        part = part.select_columns(list(names))
        plain.append(part.rename_columns({old: new for old, new in names.items() if old != new}))
    return rest, datasets.concatenate_datasets([part.cast_column("image", datasets.Image()) for part in plain])
