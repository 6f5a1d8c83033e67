"""Supervised training of the study's network with the study's views: the bound that peers.py puts above its methods."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from siamese_methods import FullPrecision, SiameseMethod
from torch import Tensor, nn


class Supervised(SiameseMethod):
    """Cross entropy of a linear layer on the pooled features of the last stage; each view is an example.

    Args:
        backbone: As in `SiameseMethod`.
        classes: Number of classes.
    """

    def __init__(self, backbone: nn.Module, classes: int) -> None:
        super().__init__(backbone)
        self.classifier = nn.Linear(self.width, classes)
        self.criterion = FullPrecision(nn.CrossEntropyLoss())

    def forward(self, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        losses = [self.criterion(self.classifier(self.features(view)).float(), labels) for view in (first, second)]
        return (losses[0] + losses[1]) / 2


def labelled_batches(
    dataset: Any, views: Any, batch_size: int, seed: int, image_column: str, label_column: str
) -> Iterator[dict[str, Tensor]]:
    """Yield batches without end: every image once a pass in an order of its own, the rest of a pass left out.

    Args:
        dataset: A `datasets.Dataset` whose images are not decoded.
        views: Makes the two views of an image; called with a seed.
        batch_size: Images a batch.
        seed: Of the orders and the views.
        image_column: Column of the images.
        label_column: Column of the class numbers.

    Yields:
        `pixel_values`, (batch, 2, 3, size, size), and `labels`, (batch,).
    """
    generator, passes = torch.Generator().manual_seed(seed), 0
    while True:
        order = torch.randperm(len(dataset), generator=generator).tolist()
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = dataset[order[start : start + batch_size]]
            pairs = zip(rows[image_column], order[start : start + batch_size], strict=True)
            made = [views(image, seed=_view_seed(seed, passes, row))["pixel_values"] for image, row in pairs]
            yield {"pixel_values": torch.stack(made), "labels": torch.tensor(rows[label_column])}
        passes += 1


def _view_seed(*parts: int) -> int:
    """A seed that differs for each run, pass and image."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
