"""The held-out images of monitoring: an evaluation set, or a fixed small part of the training images."""

import itertools
import logging
from typing import Any

import numpy as np
import torch

from ..config.image_defaults import crop_fraction
from ..data.columns import check_image_column, find_label_column, without_decoding
from ..data.held_out import LEAST, LEAST_FROM, split_monitoring
from ..data.iterable import readable_examples, unopened_shards
from ..data.left_out import is_first_process
from ..data.mixing import Mixture
from ..errors import BadImageError, did_you_mean, near_names
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
        train_dataset, source = split_monitoring(train_dataset, image_column=image_column, label_column=label_column)
        chosen_by_first(lambda: _say_if_few(source))
    else:
        source = eval_dataset
    if source is None:
        return train_dataset, None
    column = check_image_column(source, image_column if image_column in (source.column_names or []) else None)
    return train_dataset, _decode(source, column, _label_column(source, label_column), transform, maximum)


def _label_column(source: Any, asked: str | None) -> str | None:
    """The column of the labels. Training needs none, so one that does not exist is said, and does not stop it."""
    columns = source.column_names or []
    if asked is None or asked in columns:
        return asked or find_label_column(source)
    near = did_you_mean(near_names(asked, columns))
    logger.warning(
        "monitoring measures no kNN accuracy: there is no label column %r among %s%s", asked, ", ".join(columns), near
    )
    return None


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


def _decode(source: Any, column: str, label_column: str | None, transform: Any, maximum: int) -> HeldOutImages | None:
    source = without_decoding(source, column, *([label_column] if label_column else []))
    if hasattr(source, "__len__"):
        count = min(maximum, len(source))
        source = source.select(np.linspace(0, len(source) - 1, count).round().astype(int).tolist()) if count else source
    pixels, labels = [], []
    value_range = getattr(transform, "value_range", None)
    damaged = unopened_shards(source)
    rows = source if hasattr(source, "__len__") else readable_examples(source, damaged)
    bad = []
    for row in itertools.islice(rows, maximum):
        try:
            image = decode_image(row[column], value_range=value_range)
            pixels.append(center_view(image, transform.size, crop_fraction(transform.size)))
        except BadImageError as error:
            bad.append(str(error))
            continue
        if label_column is not None:
            labels.append(row[label_column])
    bad += [str(shard) for shard in damaged]
    if bad and is_first_process():
        logger.warning("monitoring: %d held-out images cannot be read (%s)", len(bad), bad[0])
    if len(pixels) < 2:
        return None
    return HeldOutImages(
        pixels=np.stack(pixels),
        labels=None if label_column is None else _class_numbers(labels, label_column),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


def _class_numbers(labels: list[Any], column: str) -> torch.Tensor | None:
    """Class numbers of the label values, int64 (n,): whole numbers as they are, texts numbered in alphabetical order.

    Labels that are missing or of another kind are said, and none is used: training does not need them.
    """
    missing = sum(label is None or label == -1 for label in labels)
    whole = all(isinstance(label, (bool, int, np.integer)) and label >= 0 for label in labels)
    if not missing and not whole and all(isinstance(label, str) for label in labels):
        numbers = {text: number for number, text in enumerate(sorted(set(labels)))}
        return torch.tensor([numbers[label] for label in labels], dtype=torch.int64)
    if missing or not whole:
        kind = next((type(label).__name__ for label in labels if not isinstance(label, (bool, int, str))), "a mixture")
        why = f"{missing} of {len(labels)} held-out images have no label" if missing else f"its values are {kind}"
        logger.warning("monitoring measures no kNN accuracy: label column %r: %s", column, why)
        return None
    return torch.tensor([int(label) for label in labels], dtype=torch.int64)
