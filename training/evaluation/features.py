"""Pooled features of every stage, of all images, in one pass over the data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..data.iterable import DamagedShard, length_of, readable_examples, unopened_shards
from ..errors import BadImageError, UserError
from ..loading.progress import progress
from ..models.feature_rows import BLOCK_VALUES
from .backbone import StageFeatures
from .feature_buffer import FeatureBuffer
from .splits import is_streaming, undecoded

MAX_BAD_FRACTION = 0.01
_NAMED = 3


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


@dataclass
class FeaturePart:
    """Features of the images that one process has read.

    Attributes:
        features: Stage name to float32 (images, channels) on the CPU; empty if no image could be read.
        labels: For each batch that was read, the labels of its images.
        bad: For each batch that was read, the reasons of its images that could not be read.
    """

    features: dict[str, Tensor]
    labels: list[list[Any]]
    bad: list[list[str]]

    def checked(self, split: str) -> FeatureSet:
        """All batches as one set.

        Args:
            split: The split's name, for messages.

        Raises:
            UserError: no image can be read, more than 1 % cannot, or features are not finite.
        """
        labels = [label for batch in self.labels for label in batch]
        bad = [reason for batch in self.bad for reason in batch]
        check_readable(len(labels), bad, split)
        check_finite(self.features)
        return FeatureSet(self.features, labels, bad)


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
    part = extract_part(
        backbone,
        dataset,
        transform,
        image_column=image_column,
        label_column=label_column,
        split=split,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
    )
    return part.checked(split)


@torch.inference_mode()
def extract_part(
    backbone: StageFeatures,
    dataset: Any,
    transform: Callable[..., Tensor],
    *,
    image_column: str,
    label_column: str | None,
    split: str,
    batch_size: int,
    num_workers: int,
    device: torch.device | str,
    process: int = 0,
    processes: int = 1,
) -> FeaturePart:
    """Extract the features of one process's share of the batches; the arguments are those of `extract_features`.

    The batches are those of a single process, dealt out in turn: a kernel may round otherwise for another batch.

    Args:
        process: Number of this process.
        processes: How many share a map-style data set.
    """
    source = undecoded(dataset, image_column, label_column)
    if is_streaming(source):
        assert processes == 1, "a stream is read by one process"
        images: Any = _StreamedImages(source, transform, image_column, label_column)
        loader = DataLoader(images, batch_size=batch_size, num_workers=num_workers, collate_fn=_collate)
        size = length_of(source)
    else:
        starts = range(process * batch_size, len(source), processes * batch_size)
        batches = [list(range(first, min(first + batch_size, len(source)))) for first in starts]
        images = _StoredImages(source, transform, image_column, label_column)
        loader = DataLoader(images, batch_sampler=batches, num_workers=num_workers, collate_fn=_collate)
        size = sum(map(len, batches))
    pooled = FeatureBuffer(size)
    part = FeaturePart({}, [], [])
    if unopened := [str(shard) for shard in unopened_shards(source)]:  # only streams have such shards
        part.labels.append([])
        part.bad.append(unopened)
    for pixels, labels, bad in progress(loader, f"features of {split}"):
        part.labels.append(labels)
        part.bad.append(bad)
        if pixels is not None:
            pooled.add(pooled_features(backbone, pixels, device))
    part.features = pooled.take()
    return part


def pooled_features(backbone: StageFeatures, pixels: Tensor, device: torch.device | str) -> dict[str, Tensor]:
    """Run the backbone on a batch: stage name to float32 (images, channels) on the CPU, averages over feature maps.

    Args:
        backbone: In eval mode, on `device`.
        pixels: (images, 3, height, width).
        device: Where the backbone is.
    """
    # Convolutions take a quarter less time on a processor, and use tensor cores on a GPU, with the channels last.
    maps = backbone(pixels.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last))
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
        raise UserError(
            f"split {split}: {len(bad)} of {readable + len(bad)} images cannot be read{example}; write them again, or "
            "leave them out with `ladder prepare`, which lists them"
        )


def bad_image_notes(count: int, bad: Sequence[str]) -> list[str]:
    """A note for the report if `count` images could not be read, with some of the reasons; else none."""
    if not count:
        return []
    reasons = list(dict.fromkeys(filter(None, bad)))
    more = "; ..." if len(reasons) > _NAMED else ""
    return [f"{count} images could not be read and were left out: {'; '.join(reasons[:_NAMED])}{more}"]


def _example(row: dict[str, Any], transform: Callable[..., Tensor], image: str, label: str | None) -> tuple:
    try:
        return transform(row[image]), row[label] if label else None, None
    except BadImageError as error:
        return None, None, named_reason(row[image], error)


def named_reason(image: Any, error: BadImageError) -> str:
    """Why an undecoded image cannot be read, after its path if it has one."""
    path = image.get("path") if isinstance(image, dict) else image
    return f"{path}: {error}" if isinstance(path, str) and path and path not in str(error) else str(error)


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
            yield None, None, str(shard)


def _collate(examples: list[tuple]) -> tuple[Tensor | None, list[Any], list[str]]:
    pixels = [entry[0] for entry in examples if entry[2] is None]
    labels = [entry[1] for entry in examples if entry[2] is None]
    bad = [entry[2] for entry in examples if entry[2] is not None]
    return torch.stack(pixels) if pixels else None, labels, bad
