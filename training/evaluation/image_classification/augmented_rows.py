"""The images of a split for the augmented linear probe: streamed, shared by processes and workers, in batches."""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ...data.content import content
from ...data.iterable import DamagedShard, readable_examples
from ...data.order import generator
from ...errors import BadImageError
from ..features import named_reason
from ..image_transforms import CenterTransform, RandomCropTransform
from ..splits import is_streaming, undecoded
from .task import ClassificationTask

SHARDS_PER_READER = 8
OPEN_SHARDS = 8
"""Shards, or groups of one shard per worker, that are read in turn while training."""

Example = tuple[Tensor | None, int, str | None]
Batch = tuple[Tensor | None, Tensor, list[str], int]


def is_held_out(image: Any, fraction: float, seed: int) -> bool:
    """Whether an image is held out of training. It depends on the image's content and the seed alone."""
    return zlib.crc32(content(image), seed) < fraction * 2**32


class AugmentedRows:
    """The images of a split for one process and worker, as (pixels, class number, None) or (None, -1, reason).

    For training, they are repeated without end, shuffled, and cropped at random; the crop depends on the image, the
    pass and the seed. What cannot be read comes in the first pass only. For scoring, each centre crop comes once.

    Attributes:
        passes: Finished passes. An image that comes while there is none comes for the first time.
    """

    passes = 0

    def __init__(
        self,
        task: ClassificationTask,
        which: str,
        *,
        part: str | None = None,
        fraction: float = 0.0,
        train: bool = False,
    ) -> None:
        run, splits = task.run, task.run.splits
        dataset, split = (splits.fit, splits.fit_split) if which == "fit" else (splits.score, splits.score_split)
        self.name = f"{part or 'all'} of {split}"
        self.image, self.label = task.image_column, task.label_column
        self.numbers = task.index.fit_numbers if which == "fit" else task.index.score_numbers
        self.part, self.fraction, self.seed, self.train = part, fraction, run.seed, train
        self.buffer = run.options.shuffle_buffer
        self.transform = RandomCropTransform(task.settings) if train else CenterTransform(task.settings)
        self.place = {"rank": run.accelerator.process_index, "processes": run.accelerator.num_processes}
        self.dataset = undecoded(dataset, self.image, self.label)
        if not is_streaming(self.dataset):
            shards = self.place["processes"] * max(1, run.options.num_workers) * SHARDS_PER_READER
            self.dataset = self.dataset.to_iterable_dataset(num_shards=min(len(dataset), shards))

    def __iter__(self) -> Iterator[Example]:
        self.passes = 0
        while True:
            used = 0
            for example in self._one_pass(self.passes):
                used += example[0] is not None
                if example[0] is not None or self.passes == 0:
                    yield example
            self.passes += 1
            if not self.train or used == 0:
                return

    def _one_pass(self, passes: int) -> Iterator[Example]:
        damaged: list[DamagedShard] = []
        if self.train:
            rng = generator("linear", self.seed, passes)
            rows = readable_examples(
                self.dataset,
                damaged,
                order=lambda count: rng.permutation(count).tolist(),
                open_groups=OPEN_SHARDS,
                **self.place,
            )
            rows = shuffled(rows, self.buffer, rng)
        else:
            rows = readable_examples(self.dataset, damaged, **self.place)
        for row in rows:
            if self.part and is_held_out(row[self.image], self.fraction, self.seed) != (self.part == "held"):
                continue
            yield self._example(row, passes)
        if not self.train:  # all shards are read for the held-out images too, and training may end before
            yield from ((None, -1, str(shard)) for shard in damaged)

    def _example(self, row: dict[str, Any], passes: int) -> Example:
        seed = zlib.crc32(content(row[self.image]), zlib.crc32(f"{self.seed}/{passes}".encode()))
        label = self.numbers([row[self.label]])[0]
        try:
            return self.transform(row[self.image], seed), label, None
        except BadImageError as error:
            return None, -1, named_reason(row[self.image], error)


class _Batches(IterableDataset):
    def __init__(self, rows: AugmentedRows, size: int) -> None:
        self.rows, self.size = rows, size

    def __iter__(self) -> Iterator[Batch]:
        pixels: list[Tensor] = []
        labels: list[int] = []
        bad: list[str] = []
        new = 0
        for image, label, reason in self.rows:
            if image is None:
                bad.append(str(reason))
                continue
            pixels.append(image)
            labels.append(label)
            new += self.rows.passes == 0
            if len(pixels) == self.size:
                yield torch.stack(pixels), torch.tensor(labels), bad, new
                pixels, labels, bad, new = [], [], [], 0
        if bad or (pixels and not self.rows.train):
            yield torch.stack(pixels) if pixels else None, torch.tensor(labels), bad, new


def batches(rows: AugmentedRows, size: int, workers: int) -> DataLoader:
    """Batches of rows, (pixels, class numbers, reasons of unreadable images, number of images of the first pass).

    For training all batches are full; of the others, the last one of each worker may be smaller, or have no pixels.

    Args:
        rows: The rows.
        size: Images per batch.
        workers: Worker processes; 0 reads in this one.
    """
    return DataLoader(_Batches(rows, size), batch_size=None, num_workers=workers)


def shuffled(examples: Iterator[Any], size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Shuffle a stream with a buffer: each example changes places with one drawn from the last `size`."""
    buffer: list[Any] = []
    for example in examples:
        if len(buffer) < size:
            buffer.append(example)
            continue
        place = int(rng.integers(size))
        yield buffer[place]
        buffer[place] = example
    for place in rng.permutation(len(buffer)):
        yield buffer[place]
