"""Weighted k-nearest-neighbour classification of features (Wu et al. 2018, arXiv 1805.01978, section 3.4).

`ladder evaluate knn` and the monitoring of a run both use it, so their accuracies agree on the same images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UserError

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
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor | None,
    *,
    k: int = 20,
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> Tensor:
    """Sum the votes of the k nearest training features for each class, exactly, in bounded memory.

    Args:
        train_features: float (n, channels).
        train_labels: int64 (n,).
        test_features: float (m, channels). None classifies each training feature by all the others (m is n then).
        k: Number of neighbours that vote; at most as many as there are.
        temperature: As in `knn_accuracy`. The weights are exp((s - s_max) / temperature): they rank the classes as
            exp(s / temperature) does, and cannot overflow.
        num_classes: Default: the largest label plus 1.

    Returns:
        float32 (m, num_classes).

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
    train = F.normalize(train_features.float(), dim=1)
    labels = train_labels.to(train.device)
    scored = train if test_features is None else test_features
    votes = train.new_zeros(len(scored), num_classes)
    for first in range(0, len(scored), SCORED_BLOCK):
        test = F.normalize(scored[first : first + SCORED_BLOCK].float(), dim=1).to(train.device)
        similarity, index = _nearest(test, train, k, first if leave_one_out else None)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes[first : first + len(test)].scatter_add_(1, labels[index], weights)
    return votes


def _nearest(test: Tensor, train: Tensor, k: int, own: int | None = None) -> tuple[Tensor, Tensor]:
    """Find the k largest cosines, largest first, and their indices, each (m, k), reading `train` block by block.

    Args:
        test: Normalised features (m, channels).
        train: Normalised features (n, channels).
        k: At most n, or n - 1 with `own`.
        own: Row of `train` that `test[0]` is; `test[i]` is then row `own + i`, and is not its own neighbour.
    """
    step = max(k + 1, BLOCK // len(test))
    best_similarity = test.new_empty(len(test), 0)
    best_index = torch.empty(len(test), 0, dtype=torch.long, device=test.device)
    for first in range(0, len(train), step):
        similarity = test @ train[first : first + step].T
        if own is not None and -len(test) < own - first < similarity.shape[1]:
            # Entry (i, j) compares row own + i with row first + j: the diagonal where the two are equal.
            similarity.diagonal(own - first).fill_(-torch.inf)
        similarity, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
        similarity = torch.cat([best_similarity, similarity], dim=1)
        index = torch.cat([best_index, index + first], dim=1)
        best_similarity, order = similarity.topk(min(k, similarity.shape[1]), dim=1)
        best_index = index.gather(1, order)
    return best_similarity, best_index


def _accuracy(votes: Tensor, labels: Tensor) -> float:
    """Share of rows of votes (n, classes) whose largest entry is at the label (n,)."""
    return (votes.argmax(dim=1) == labels.to(votes.device)).float().mean().item()
