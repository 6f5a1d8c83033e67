"""Weighted k-nearest-neighbour classification of features (Wu et al. 2018, arXiv 1805.01978, section 3.4).

`ladder evaluate knn` and the monitoring of a run both use it, so their accuracies agree on the same images.
"""

import torch
from torch import Tensor

from ..errors import UserError
from .feature_rows import BLOCK_VALUES, FeatureRows

BLOCK = 2**24
"""Most similarities held at once: 2^24 floats are 64 MB."""

SCORED_BLOCK = 1024
"""Test features whose neighbours are searched at once."""


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.1,
) -> float:
    """Share of test features that the weighted vote of their nearest training features classifies correctly.

    Args:
        train_features: float (n, channels); need not be normalised.
        train_labels: int64 (n,), from 0.
        test_features: float (m, channels).
        test_labels: int64 (m,).
        k: Number of neighbours that vote; at most n are used.
        temperature: A neighbour of cosine similarity s votes with weight exp(s / temperature).
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    votes = knn_votes(train_features, train_labels, test_features, k=k, temperature=temperature, num_classes=classes)
    return _accuracy(votes, test_labels)


def leave_one_out_accuracy(features: Tensor, labels: Tensor, k: int = 20, temperature: float = 0.1) -> float:
    """Share of features that the vote of all *other* features classifies correctly.

    This is the average of n evaluations, each of which scores one image and fits on the other n - 1.

    Args:
        features: float (n, channels), n at least 2.
        labels: int64 (n,), from 0.
        k: Number of neighbours that vote; at most n - 1 are used.
        temperature: As in `knn_accuracy`.
    """
    return _accuracy(knn_votes(features, labels, None, k=k, temperature=temperature), labels)


@torch.no_grad()
def knn_votes(
    train_features: Tensor | FeatureRows,
    train_labels: Tensor,
    test_features: Tensor | FeatureRows | None,
    *,
    k: int = 20,
    temperature: float = 0.1,
    num_classes: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Sum the votes of the k nearest training features for each class, exactly, in bounded memory.

    Features are read in blocks, which alone are moved to the device and normalised.

    Args:
        train_features: float (n, channels), or `FeatureRows` that are normalised.
        train_labels: int64 (n,).
        test_features: float (m, channels). None classifies each training feature by all the others (m is n then).
        k: Number of neighbours that vote; at most as many as there are.
        temperature: As in `knn_accuracy`. The weights are exp((s - s_max) / temperature): they rank the classes as
            exp(s / temperature) does, and cannot overflow.
        num_classes: Default: the largest label plus 1.
        device: Where neighbours are searched; default: where the training features are.

    Returns:
        float32 (m, num_classes), on the device.

    Raises:
        UserError: the shapes do not fit, there is no neighbour, or k or temperature is not positive.
    """
    if len(train_features) != len(train_labels) or len(train_features) == 0:
        raise UserError(f"kNN needs training features with labels; got {len(train_features)} and {len(train_labels)}")
    if k < 1 or temperature <= 0:
        raise UserError(f"k and temperature must be greater than 0; they are {k} and {temperature}")
    leave_one_out = test_features is None
    k = min(k, len(train_features) - leave_one_out)
    if k < 1:
        raise UserError("leave-one-out kNN needs at least two features")
    num_classes = num_classes or int(train_labels.max()) + 1
    train = _as_rows(train_features)
    test = train if test_features is None else _as_rows(test_features)
    device = train.parts[0].device if device is None else device
    similarity, index = _nearest(test, train, k, device, leave_one_out)
    labels = train_labels.to(device)
    votes = torch.zeros(len(test), num_classes, device=device)
    for first in range(0, len(test), SCORED_BLOCK):
        part = slice(first, first + SCORED_BLOCK)
        weights = ((similarity[part] - similarity[part, :1]) / temperature).exp()
        votes[part].scatter_add_(1, labels[index[part]], weights)
    return votes


def _as_rows(features: Tensor | FeatureRows) -> FeatureRows:
    return FeatureRows([features], normalise=True) if isinstance(features, Tensor) else features


def _nearest(
    test: FeatureRows, train: FeatureRows, k: int, device: torch.device | str, leave_one_out: bool
) -> tuple[Tensor, Tensor]:
    """Find the k largest cosines, largest first, and their indices, each (m, k), reading `train` once, in blocks.

    Args:
        test: Normalised features of m images.
        train: Normalised features of n images.
        k: At most n, or n - 1 with `leave_one_out`.
        device: Where blocks are compared.
        leave_one_out: Whether `test` is `train`, and no row is its own neighbour.
    """
    step = max(k + 1, min(BLOCK // min(SCORED_BLOCK, max(1, len(test))), BLOCK_VALUES // train.width))
    best: list[tuple[Tensor, Tensor]] = []
    for first in range(0, len(train), step):
        block = train.block(slice(first, first + step), device)
        for number, own in enumerate(range(0, len(test), SCORED_BLOCK)):
            similarity = test.block(slice(own, own + SCORED_BLOCK), device) @ block.T
            if leave_one_out and -len(similarity) < own - first < similarity.shape[1]:
                # Entry (i, j) compares row own + i with row first + j: the diagonal where the two are equal.
                similarity.diagonal(own - first).fill_(-torch.inf)
            similarity, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
            index = index + first
            if first:
                similarity = torch.cat([best[number][0], similarity], dim=1)
                index = torch.cat([best[number][1], index], dim=1)
                similarity, order = similarity.topk(min(k, similarity.shape[1]), dim=1)
                index = index.gather(1, order)
                best[number] = (similarity, index)
            else:
                best.append((similarity, index))
    return torch.cat([part[0] for part in best]), torch.cat([part[1] for part in best])


def _accuracy(votes: Tensor, labels: Tensor) -> float:
    """Share of rows of votes (n, classes) whose largest entry is at the label (n,)."""
    return (votes.argmax(dim=1) == labels.to(votes.device)).float().mean().item()
