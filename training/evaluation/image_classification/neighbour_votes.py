"""Weighted k-nearest-neighbour classification of features (Wu et al. 2018, arXiv 1805.01978, section 3.4)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import UserError

# The largest block of similarities held at once: 2^24 floats are 64 MB.
BLOCK = 2**24
SCORED_BLOCK = 1024


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.1,
) -> float:
    """Share of test features whose weighted nearest neighbours vote for their label.

    Args:
        train_features: float (n, channels); need not be normalised.
        train_labels: int64 (n,), from 0.
        test_features: float (m, channels).
        test_labels: int64 (m,).
        k: Neighbours that vote; at most n are used.
        temperature: A neighbour of cosine similarity s votes with weight exp(s / temperature).
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    votes = knn_votes(train_features, train_labels, test_features, k=k, temperature=temperature, num_classes=classes)
    return (votes.argmax(dim=1) == test_labels.to(votes.device)).float().mean().item()


@torch.no_grad()
def knn_votes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> Tensor:
    """Votes of the k nearest training features for each class, exactly, in bounded memory.

    Args:
        train_features: float (n, channels).
        train_labels: int64 (n,).
        test_features: float (m, channels).
        k: Neighbours that vote; at most n are used.
        temperature: As in `knn_accuracy`. Weights are exp((s - s_max) / temperature), which gives the same order of
            classes as exp(s / temperature) and does not overflow.
        num_classes: Default: the largest label plus 1.

    Returns:
        float32 (m, num_classes).

    Raises:
        UserError: shapes that do not fit, no training features, or k or temperature not positive.
    """
    if len(train_features) != len(train_labels) or len(train_features) == 0:
        raise UserError(f"kNN needs training features with labels; got {len(train_features)} and {len(train_labels)}")
    if k < 1 or temperature <= 0:
        raise UserError(f"k and temperature must be greater than 0; they are {k} and {temperature}")
    k = min(k, len(train_features))
    num_classes = num_classes or int(train_labels.max()) + 1
    train = F.normalize(train_features.float(), dim=1)
    votes = train.new_zeros(len(test_features), num_classes)
    for first in range(0, len(test_features), SCORED_BLOCK):
        test = F.normalize(test_features[first : first + SCORED_BLOCK].float(), dim=1).to(train.device)
        similarity, index = _nearest(test, train, k)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes[first : first + len(test)].scatter_add_(1, train_labels.to(train.device)[index], weights)
    return votes


def _nearest(test: Tensor, train: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines, falling, and their indices, each (m, k); training features are read block by block."""
    step = max(k, BLOCK // len(test))
    best_similarity = test.new_empty(len(test), 0)
    best_index = torch.empty(len(test), 0, dtype=torch.long, device=test.device)
    for first in range(0, len(train), step):
        similarity = test @ train[first : first + step].T
        similarity, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
        similarity = torch.cat([best_similarity, similarity], dim=1)
        index = torch.cat([best_index, index + first], dim=1)
        best_similarity, order = similarity.topk(min(k, similarity.shape[1]), dim=1)
        best_index = index.gather(1, order)
    return best_similarity, best_index
