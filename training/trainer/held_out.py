"""The held-out images of monitoring: an evaluation set, or a fixed small part of the training images."""

import itertools
import logging
from typing import Any

import numpy as np
import torch

from ..config.image_defaults import crop_fraction
from ..data.columns import find_image_column, find_label_column
from ..data.held_out import LEAST, LEAST_FROM, split_monitoring
from ..data.mixing import Mixture
from ..errors import BadImageError
from ..images.center import center_view
from ..images.decode import decode_image
from ..runs.agreement import chosen_by_first
from .monitor import HeldOutImages

logger = logging.getLogger(__name__)


def is_image_dataset(dataset: Any) -> bool:
    """Whether a data set holds images, of which views are made, and not tensors that already are views."""
    import datasets

    if isinstance(dataset, Mixture):
        return all(is_image_dataset(part) for part in dataset.datasets)
    if not isinstance(dataset, (datasets.Dataset, datasets.IterableDataset)):
        return False
    return "pixel_values" not in (dataset.column_names or [])


def held_out_images(
    train_dataset: Any,
    eval_dataset: Any,
    transform: Any,
    image_column: str | None,
    label_column: str | None,
    maximum: int,
) -> tuple[Any, HeldOutImages | None]:
    """Separate the held-out images from the training data and decode them, cropped as evaluation does.

    Args:
        train_dataset: A `datasets` object with images.
        eval_dataset: Data set with the held-out images. None holds out 1 % of the training images, but at least 200 of
            4,000 or more and at most 2,000, chosen by hash.
        transform: The two-view transform, which has the size, mean and std.
        image_column: As given by the user, or None.
        label_column: As given by the user, or None.
        maximum: Most images to use; a larger set is sampled at even steps.

    Returns:
        (training data, held-out images), with None if fewer than two held-out images can be read.
    """
    if eval_dataset is None:
        train_dataset, source = split_monitoring(train_dataset, image_column=image_column)
        chosen_by_first(lambda: _say_if_few(source))
    else:
        source = eval_dataset
    if source is None:
        return train_dataset, None
    column = image_column if image_column in (source.column_names or []) else find_image_column(source)
    labels = label_column or find_label_column(source)
    return train_dataset, _decode(source, column, labels, transform, maximum)


def _say_if_few(held_out: Any) -> None:
    """Say it if so few images were held out that the numbers of monitoring are rough."""
    count = 0 if held_out is None else len(held_out)
    if count == 0:
        logger.warning(
            "monitoring: too few images to hold some out; give eval_dataset to see kNN accuracy and collapse"
        )
    elif count < LEAST:
        logger.warning(
            "monitoring holds out %d images only (1 %%; at least %d of %d images or more): its kNN accuracy is rough; "
            "give eval_dataset for more",
            count,
            LEAST,
            LEAST_FROM,
        )


def _decode(
    source: Any, column: str | None, label_column: str | None, transform: Any, maximum: int
) -> HeldOutImages | None:
    import datasets

    source = source.cast_column(column, datasets.Image(decode=False))
    if hasattr(source, "__len__"):
        count = min(maximum, len(source))
        source = source.select(np.linspace(0, len(source) - 1, count).round().astype(int).tolist()) if count else source
    pixels, labels = [], []
    for row in itertools.islice(source, maximum):
        try:
            pixels.append(center_view(decode_image(row[column]), transform.size, crop_fraction(transform.size)))
        except BadImageError:
            continue
        if label_column is not None:
            labels.append(row[label_column])
    if len(pixels) < 2:
        return None
    known = label_column is not None and min(labels) >= 0
    return HeldOutImages(
        pixels=np.stack(pixels),
        labels=torch.tensor(labels, dtype=torch.int64) if known else None,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )
