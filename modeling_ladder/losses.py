"""The loss of a Siamese pair (BYOL, arXiv 2006.07733, eq. 2) and two measures of collapse, computed in float32."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def pair_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute 2 - 2 cos(prediction, target), the squared distance between the two normalised vectors.

    Args:
        prediction: (..., size), any floating-point dtype. It receives the gradient.
        target: (..., size). It is detached, so it receives no gradient.

    Returns:
        (...), float32, from 0 (same direction) to 4 (opposite directions).
    """
    prediction = F.normalize(prediction.float(), dim=-1)
    target = F.normalize(target.detach().float(), dim=-1)
    return 2 - 2 * (prediction * target).sum(dim=-1)


def symmetric_loss(predictions: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Sum the losses of both directions: view 1 predicts the target of view 2, and view 2 the target of view 1.

    The sum matters. Averaging the two directions halves the loss, and with it the gradient of the parameters that LARS
    excludes, relative to weight decay; lightly's pull request 1286 reports a cost of 11 points of linear accuracy.

    Levels are computed together, because on a GPU the number of kernels counts and not their size.

    Args:
        predictions: (levels, 2, batch, [points,] size), the predictions of view 1 and of view 2.
        targets: Target projections, of the same shape.
        valid: bool (batch,), which images to average over. None means all; without any, the loss and its gradient are
            0.

    Returns:
        (levels,), float32, from 0 to 8.
    """
    distances = pair_loss(predictions, targets.flip(1))
    if valid is None:
        return distances.flatten(2).mean(dim=2).sum(dim=1)
    images = distances.flatten(3).mean(dim=3) if distances.dim() > 3 else distances
    weight = valid.to(images.dtype)
    return ((images * weight).sum(dim=2) / weight.sum().clamp(min=1)).sum(dim=1)


def normalised_std(projections: Tensor) -> Tensor:
    """Measure the spread of normalised vectors: the standard deviation per dimension, averaged, times sqrt(size).

    A value near 1 is healthy; 0 means that all vectors point in one direction (collapse).

    Args:
        projections: (..., size).

    Returns:
        Scalar, float32, without gradient.
    """
    return normalised_stds(projections.unsqueeze(0))[0]


def normalised_stds(projections: Tensor) -> Tensor:
    """Measure the spread of several sets of vectors, as `normalised_std` does for one.

    Args:
        projections: (sets, ..., size).

    Returns:
        (sets,), float32, without gradient.
    """
    flat = F.normalize(projections.detach().float().flatten(1, -2), dim=-1)
    # Mean of squares minus square of the mean is twice as fast as torch's std and exact enough for unit vectors.
    variance = flat.square().mean(dim=1) - flat.mean(dim=1).square()
    return variance.clamp(min=0).sqrt().mean(dim=-1) * math.pow(flat.shape[-1], 0.5)


def effective_rank(vectors: Tensor) -> Tensor:
    """Compute the effective rank of a set of vectors (Roy and Vetterli, 2007; RankMe).

    It is the exponential of the entropy of the normalised singular values.

    Args:
        vectors: (count, size).

    Returns:
        Scalar, float32, from 1 to min(count, size); 0 if all vectors are zero.
    """
    values: Tensor = torch.linalg.svdvals(vectors.detach().float())
    total = values.sum()
    share = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -(share * share.clamp(min=torch.finfo(values.dtype).tiny).log()).sum()
    return torch.where(total > 0, entropy.exp(), torch.zeros_like(entropy))
