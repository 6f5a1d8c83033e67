"""Images held out, chosen by hash, so every start chooses the same: to monitor a run with, or to score one split."""

import hashlib
import itertools
import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import bytes_or_path
from .columns import check_image_column, find_label_column, own_column, without_decoding
from .content import content, content_key
from .internals import image_paths, table_rows
from .iterable import declare_length, length_of, readable_examples
from .mixing import MapMixture, Mixture
from .order import stable_hash

logger = logging.getLogger(__name__)

# Only the beginning of a stream is read: this many examples for each one held out, at most so many in all, from so many
# shards.
_WINDOW = 10
_LARGEST_WINDOW = 20_000
_WINDOW_SHARDS = 8
FRACTION, MOST = 0.01, 2000
"""Share of the images that is held out for monitoring, and the largest number of them."""
LEAST, LEAST_FROM = 200, 4000
"""Fewest images held out of a set of `LEAST_FROM` images or more, so that kNN accuracy is not mostly chance."""

FEWEST = 5
"""Fewest images of which `hold_out` holds some out."""


def split_monitoring(
    dataset: Any,
    fraction: float = FRACTION,
    maximum: int = MOST,
    image_column: str | None = None,
    *,
    label_column: str | None = None,
    minimum: int = LEAST,
) -> tuple[Any, Any]:
    """Hold out a part of the images for monitoring, chosen by hash.

    In a map-style data set, images are chosen by their path if all paths differ, else by their row. In a stream they
    are chosen by their content, among the first examples of up to eight shards (ten for each image held out), and all
    copies of them are removed from the training stream without decoding. If the length of a stream is unknown,
    `fraction` refers to the examples that were read (at most 20,000).

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`, or a mixture of them (`mixing.mix_streams`).
        fraction: Share of the images to hold out, 0 to 1.
        maximum: Largest number of images to hold out.
        image_column: Column of the images; None detects it.
        label_column: Column of the labels; one that does not exist, or None, detects it.
        minimum: Fewest images to hold out of 4,000 or more; of fewer images, `fraction` alone decides.

    Returns:
        (training data, held-out images). The held-out images are a `datasets.Dataset` with the image column and, if
        there is one, the label column; None if they would be fewer than two. For a mixture, classes are matched by
        name, and labels are left out, with a warning, if only some parts have them.

    Raises:
        UserError: There is no image column.
    """
    if isinstance(dataset, Mixture):
        return _split_mixture(dataset, fraction, maximum, image_column, label_column, minimum)
    column = check_image_column(dataset, image_column)
    if not hasattr(dataset, "__len__"):
        return _split_stream(dataset, fraction, maximum, column, label_column, minimum)
    count = held_out_count(len(dataset), fraction, minimum, maximum)
    if count < 2:
        return dataset, None
    hashes = np.array([stable_hash("held out", key) for key in image_names(dataset, column)])
    held_out = np.sort(np.argsort(hashes, kind="stable")[:count])
    rest = np.setdiff1d(np.arange(len(dataset)), held_out, assume_unique=True)
    return dataset.select(rest), dataset.select(held_out)


def count_held_out(
    dataset: Any,
    fraction: float = FRACTION,
    maximum: int = MOST,
    image_column: str | None = None,
    *,
    minimum: int = LEAST,
    read: bool = True,
) -> int:
    """Count the images by which `split_monitoring` makes the training data fewer.

    Args:
        dataset: As for `split_monitoring`, and so are the following.
        fraction: Share of the images.
        maximum: Largest number of images.
        image_column: Column of the images; None detects it.
        minimum: Fewest images to hold out of 4,000 or more.
        read: Whether the beginning of a stream is read as `split_monitoring` does; if not, a stream with few images in
            a shard, or nearly all of them copies, may lose fewer.

    Returns:
        The number; 0 for a stream of unknown length.
    """
    if isinstance(dataset, Mixture):
        most, least = maximum // len(dataset.datasets), minimum // len(dataset.datasets)
        return sum(
            count_held_out(part, fraction, most, own_column(part, image_column), minimum=least, read=read)
            for part in dataset.datasets
        )
    size = length_of(dataset)
    if size is None:
        return 0
    if read and not hasattr(dataset, "__len__"):
        column = check_image_column(dataset, image_column)
        rest, _ = _split_stream(dataset, fraction, maximum, column, None, minimum)
        return size - (length_of(rest) or 0)
    count = held_out_count(size, fraction, minimum, maximum)
    return 0 if count < 2 else count


def held_out_count(images: int, fraction: float = FRACTION, minimum: int = LEAST, maximum: int = MOST) -> int:
    """How many of so many images `split_monitoring` holds out."""
    return min(maximum, max(minimum if images >= LEAST_FROM else 0, round(fraction * images)))


def image_names(dataset: Any, column: str) -> list[str]:
    """A name for each image of a `datasets.Dataset`, all of them different.

    It is the path if all images have paths and all paths differ, which does not depend on the order; else "row 17".
    """
    paths = image_paths(dataset, column)
    if paths is not None:
        known = [path for path in paths if path is not None]
        if len(known) == len(paths) == len(set(known)):
            # Without the folder that all share: the same data set may lie elsewhere, or be spelt otherwise.
            first, last = min(known), max(known)
            same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
            shared = first[:same].rfind("/") + 1
            return [path[shared:] for path in known]
    rows = table_rows(dataset)
    return [f"row {row}" for row in (range(len(dataset)) if rows is None else rows.to_pylist())]


class _NotHeldOut:
    """Whether an undecoded image is not one of those held out; a class because worker processes pickle it."""

    def __init__(self, keys: set[bytes]) -> None:
        self.keys = keys

    def __call__(self, image: Any) -> bool:
        return content_key(image) not in self.keys


def _label_of(dataset: Any, asked: str | None) -> str | None:
    """The column of the labels: the one that was asked for, if there is one of the name, else the one that is found."""
    return asked if asked in (dataset.column_names or []) else find_label_column(dataset)


def _split_stream(
    dataset: Any, fraction: float, maximum: int, column: str, label: str | None, minimum: int
) -> tuple[Any, Any]:
    import datasets

    from .origin import origin_of

    label = _label_of(dataset, label)
    undecoded = without_decoding(dataset, column, *([label] if label else []))
    size = length_of(dataset)
    wanted = maximum if size is None else held_out_count(size, fraction, minimum, maximum)
    window = min(_LARGEST_WINDOW, wanted * _WINDOW)
    shards = min(_WINDOW_SHARDS, dataset.num_shards)
    chosen = np.linspace(0, dataset.num_shards - 1, shards).round().astype(int)
    rows: list[dict[str, Any]] = []
    for shard in chosen:
        part = undecoded.shard(num_shards=dataset.num_shards, index=int(shard))
        rows.extend(itertools.islice(readable_examples(part, [], confine=False), -(-window // shards)))
    count = min(held_out_count(len(rows) if size is None else size, fraction, minimum, maximum), len(rows))
    if count < 2:
        return dataset, None
    by_key = {content_key(row[column]): row for row in rows}
    keys = sorted(by_key, key=lambda key: hashlib.blake2b(key, person=b"held out").digest())[:count]
    chosen_rows = [by_key[key] for key in keys]
    rule = origin_of(dataset).path_rule
    if rule is not None:
        chosen_rows = [rule.mark_row(row) for row in chosen_rows]
    held_out = datasets.Dataset.from_list(chosen_rows, features=undecoded.features)
    rest = without_decoding(dataset, column).filter(_NotHeldOut(set(keys)), input_columns=[column])
    rest = rest.cast_column(column, datasets.Image(decode=False))
    rest.info.dataset_name = dataset.info.dataset_name
    if size is not None:
        declare_length(rest, size - len(keys))
    return rest, held_out.cast_column(column, datasets.Image())


def _split_mixture(
    mixture: Mixture, fraction: float, maximum: int, image_column: str | None, label: str | None, minimum: int
) -> tuple[Any, Any]:
    import datasets

    most, least = maximum // len(mixture.datasets), minimum // len(mixture.datasets)
    split = [
        split_monitoring(part, fraction, most, own_column(part, image_column), label_column=label, minimum=least)
        for part in mixture.datasets
    ]
    made = MapMixture if isinstance(mixture, MapMixture) else Mixture
    rest = made([part for part, _ in split], mixture.weights, mixture.seed)
    held_out = [part for _, part in split if part is not None]
    if not held_out:
        return mixture, None
    labels = _common_labels(held_out, label)
    renamed = []
    for number, part in enumerate(held_out):
        column = check_image_column(part, own_column(part, image_column))
        part = part.select_columns([column])
        part = part if column == "image" else part.rename_column(column, "image")
        if labels is not None:
            values, feature = labels[number]
            part = part.add_column(label or "label", values, feature=feature)
        renamed.append(part)
    return rest, datasets.concatenate_datasets([part.cast_column("image", datasets.Image()) for part in renamed])


def _common_labels(parts: list[Any], asked: str | None) -> list[tuple[list[Any], Any]] | None:
    """Label values of each part, numbered alike, and their feature; None if the parts have no classes in common.

    Classes with names are matched by name; integers without names are taken as they are. A mixture of the two cannot be
    matched, which is said.
    """
    import datasets

    columns = [_label_of(part, asked) for part in parts]
    if not any(columns):
        return None
    found: list[Any] = [part.features[column] if column else None for part, column in zip(parts, columns, strict=True)]
    if all(isinstance(feature, datasets.ClassLabel) for feature in found):
        names = list(dict.fromkeys(name for feature in found for name in feature.names))
        number = {name: index for index, name in enumerate(names)}
        common = datasets.ClassLabel(names=names)
    elif len({repr(feature) for feature in found}) == 1:
        number, common = None, found[0]
    else:
        logger.warning("monitoring of the mixture measures no kNN accuracy: not all its data sets have labels alike")
        return None
    labels = []
    for part, column, feature in zip(parts, columns, found, strict=True):
        values = part[column][:]
        if number is not None:
            values = [None if value is None or value < 0 else number[feature.names[value]] for value in values]
        labels.append((values, common))
    return labels


def hold_out(
    dataset: Any, fraction: float, seed: int, image_column: str | None = None, label_column: str | None = None
) -> tuple[Any, Any]:
    """Split a data set in two by a hash of the content of its images.

    Images of the same content are on one side, and the order of the images does not matter. With labels, the same share
    of every class is held out, and at least one image of each class is left. Of a stream the share is approximate.

    Args:
        dataset: `datasets.Dataset` or `IterableDataset`.
        fraction: Share of the images to hold out.
        seed: Another seed holds out other images.
        image_column: Column of the images; None detects it.
        label_column: Column of one label per image; None holds out regardless of classes.

    Returns:
        (the rest, the part held out), both of the kind of `dataset`.

    Raises:
        UserError: There are too few images.
    """
    column = check_image_column(dataset, image_column)
    if not hasattr(dataset, "__len__"):
        return _filtered(dataset, column, fraction, seed, held=False), _filtered(
            dataset, column, fraction, seed, held=True
        )
    if len(dataset) < FEWEST:
        raise UserError(f"{len(dataset)} images are too few to hold some out")
    keys = [_position(row[column], seed) for row in without_decoding(dataset, column)]
    labels = [None] * len(keys) if label_column is None else dataset.with_format(None)[label_column]
    of_class: dict[Any, set[bytes]] = defaultdict(set)
    for key, label in zip(keys, labels, strict=True):
        of_class[label].add(key)
    chosen: set[bytes] = set()
    for members in of_class.values():
        wanted = max(1, round(fraction * len(members)))
        chosen.update(sorted(members)[: min(wanted, len(members) - 1)])
    # The same image may be in several classes; at least one image of each stays all the same.
    chosen -= {max(members) for members in of_class.values() if members <= chosen}
    held = [index for index, key in enumerate(keys) if key in chosen]
    rest = [index for index, key in enumerate(keys) if key not in chosen]
    if not held or not rest:
        raise UserError("no image can be held out: every class has one image only, or all images are the same")
    return dataset.select(rest), dataset.select(held)


class _Side:
    """Whether an undecoded image of a stream is on one side of the split; a class because workers pickle it."""

    def __init__(self, fraction: float, seed: int, held: bool) -> None:
        self.limit, self.seed, self.held = int(fraction * 2**64), seed, held

    def __call__(self, image: Any) -> bool:
        return (int.from_bytes(_position(image, self.seed)[:8], "big") < self.limit) == self.held


def _filtered(dataset: Any, column: str, fraction: float, seed: int, held: bool) -> Any:
    side = without_decoding(dataset).filter(_Side(fraction, seed, held), input_columns=[column])
    side.info.dataset_name = dataset.info.dataset_name
    return side


def _position(image: Any, seed: int) -> bytes:
    """Hash of an image's content, in whose order images are held out; a file is read, and its path does not matter."""
    stored = bytes_or_path(image)
    if isinstance(stored, (str, os.PathLike)) and Path(stored).is_file():
        try:
            stored = Path(stored).read_bytes()
        except OSError:  # it cannot be read, which is reported when it is used
            stored = str(stored)
    return hashlib.blake2b(content(stored), digest_size=16, person=b"hold out", salt=seed.to_bytes(8, "big")).digest()
