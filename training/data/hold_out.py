"""Holding out a part of a data set that has one split, by the content of its images, so that copies stay together."""

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import bytes_or_path
from .columns import check_image_column, without_decoding
from .content import content

FEWEST = 5
"""Fewest images of which some are held out."""


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
