"""Pooled features of every stage, of all images, in one pass over the data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..data.iterable import DamagedShard, length_of, readable_examples
from ..errors import BadImageError, UserError
from ..loading.progress import progress
from ..models.feature_rows import BLOCK_VALUES
from .backbone import StageFeatures
from .feature_buffer import FeatureBuffer
from .splits import is_streaming, undecoded

MAX_BAD_FRACTION = 0.01


@dataclass
class FeatureSet:
    """Features of the readable images of a split.

    Attributes:
        features: Stage name to float32 (images, channels) on the CPU: the average over the stage's feature map.
        labels: The label value of each image, as stored.
        bad: For each image that could not be read, the reason.
    """

    features: dict[str, Tensor]
    labels: list[Any]
    bad: list[str]

    def __len__(self) -> int:
        return len(self.labels)


@torch.inference_mode()
def extract_features(
    backbone: StageFeatures,
    dataset: Any,
    transform: Callable[..., Tensor],
    *,
    image_column: str,
    label_column: str | None,
    split: str,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> FeatureSet:
    """Run the backbone once over a split and return the average-pooled features of every stage.

    Args:
        backbone: In eval mode, on `device`.
        dataset: A `datasets` object, map-style or streaming.
        transform: Converts an encoded image to float32 (3, size, size).
        image_column: Column that holds the images.
        label_column: Column that holds the labels; None keeps none.
        split: The split's name, for messages.
        batch_size: Images per forward pass.
        num_workers: Processes that decode images.
        device: Where the backbone is.

    Raises:
        UserError: no image can be read, more than 1 % cannot, or features are not finite.
    """
    source = undecoded(dataset, image_column, label_column)
    kind = _StreamedImages if is_streaming(source) else _StoredImages
    loader = DataLoader(
        kind(source, transform, image_column, label_column),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_collate,
    )
    pooled = FeatureBuffer(length_of(source))
    labels: list[Any] = []
    bad: list[str] = []
    for pixels, batch_labels, batch_bad in progress(loader, f"features of {split}"):
        bad += batch_bad
        if pixels is None:
            continue
        labels += batch_labels
        pooled.add(pooled_features(backbone, pixels, device))
    check_readable(len(labels), bad, split)
    features = pooled.take()
    check_finite(features)
    return FeatureSet(features, labels, bad)


def pooled_features(backbone: StageFeatures, pixels: Tensor, device: torch.device | str) -> dict[str, Tensor]:
    """Run the backbone on a batch: stage name to float32 (images, channels) on the CPU, averages over feature maps.

    Args:
        backbone: In eval mode, on `device`.
        pixels: (images, 3, height, width).
        device: Where the backbone is.
    """
    maps = backbone(pixels.to(device, non_blocking=True))
    return {name: feature_map.float().mean(dim=(2, 3)).cpu() for name, feature_map in maps.items()}


def check_finite(features: dict[str, Tensor]) -> None:
    """Raise a UserError if a feature is NaN or infinite."""
    for name, values in features.items():
        blocks = values.split(max(1, BLOCK_VALUES // values.shape[1]))  # a mask of all would be a quarter of their size
        if not all(torch.isfinite(block).all() for block in blocks):
            raise UserError(f"features of {name} are not finite: the model is broken (did its training diverge?)")


def check_readable(readable: int, bad: list[str], split: str) -> None:
    """Raise a UserError if no image of a split could be read, or more than 1 % could not."""
    if readable == 0 or len(bad) > MAX_BAD_FRACTION * (readable + len(bad)):
        example = f" ({bad[0]})" if bad else ""
        raise UserError(f"split {split}: {len(bad)} of {readable + len(bad)} images cannot be read{example}")


def bad_image_notes(count: int) -> list[str]:
    """A note for the report if `count` images could not be read, else none."""
    return [f"{count} images could not be read and were left out"] if count else []


def _example(row: dict[str, Any], transform: Callable[..., Tensor], image: str, label: str | None) -> tuple:
    try:
        return transform(row[image]), row[label] if label else None, None
    except BadImageError as error:
        return None, None, str(error)


class _StoredImages(Dataset):
    """A map-style data set as (pixels, label, None) or (None, None, reason)."""

    def __init__(self, dataset: Any, transform: Callable[..., Tensor], image: str, label: str | None) -> None:
        self.dataset, self.transform, self.image, self.label = dataset, transform, image, label

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple:
        return _example(self.dataset[index], self.transform, self.image, self.label)


class _StreamedImages(IterableDataset):
    """A streaming data set as (pixels, label, None) or (None, None, reason); workers share its shards."""

    def __init__(self, dataset: Any, transform: Callable[..., Tensor], image: str, label: str | None) -> None:
        self.dataset, self.transform, self.image, self.label = dataset, transform, image, label

    def __iter__(self) -> Iterator[tuple]:
        damaged: list[DamagedShard] = []
        for row in readable_examples(self.dataset, damaged):
            yield _example(row, self.transform, self.image, self.label)
        for shard in damaged:
            yield None, None, f"the rest of {shard.file or 'a shard'} cannot be read: {shard.reason}"


def _collate(examples: list[tuple]) -> tuple[Tensor | None, list[Any], list[str]]:
    pixels = [entry[0] for entry in examples if entry[2] is None]
    labels = [entry[1] for entry in examples if entry[2] is None]
    bad = [entry[2] for entry in examples if entry[2] is not None]
    return torch.stack(pixels) if pixels else None, labels, bad
