"""The loss of a Siamese pair, as pure functions in float32 (BYOL, arXiv 2006.07733, eq. 2)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pair_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos(prediction, target), the squared distance of the two normalised vectors.

    Args:
        prediction: (..., size), any floating type; gradients flow here.
        target: (..., size); detached here, so no gradient can reach it.

    Returns:
        (...), float32, from 0 (same direction) to 4 (opposite).
    """
    prediction = F.normalize(prediction.float(), dim=-1)
    target = F.normalize(target.detach().float(), dim=-1)
    return 2 - 2 * (prediction * target).sum(dim=-1)


def masked_mean(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of `values` over the images whose `valid` is true; 0 (with a gradient of 0) where there is none.

    Args:
        values: (batch,) or (batch, points).
        valid: bool (batch,); None counts every image.

    Returns:
        Scalar.
    """
    if valid is None:
        return values.mean()
    weight = valid.to(values.dtype).reshape(-1, *(1,) * (values.dim() - 1)).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def symmetric_loss(
    predictions: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], valid: Tensor | None = None
) -> Tensor:
    """Both directions, crossed and summed: view 1 predicts the target of view 2 and view 2 that of view 1.

    Averaging the two instead halves the loss, which costs LARS-excluded parameters and weight decay their balance
    (lightly pull request 1286: 11 points of linear accuracy).

    Args:
        predictions: of view 1 and view 2, each (batch, [points,] size).
        targets: of view 1 and view 2, of the same shapes.
        valid: bool (batch,), images that count.

    Returns:
        Scalar, float32, from 0 to 8.
    """
    first = masked_mean(pair_loss(predictions[0], targets[1]), valid)
    second = masked_mean(pair_loss(predictions[1], targets[0]), valid)
    return first + second


def normalised_std(projections: Tensor) -> Tensor:
    """Standard deviation of the normalised vectors, averaged over dimensions, times sqrt(size): 1 is healthy, 0
    collapsed.

    Args:
        projections: (..., size).

    Returns:
        Scalar, float32, no gradient.
    """
    flat = F.normalize(projections.detach().float().flatten(0, -2), dim=-1)
    # Mean of squares less square of the mean: twice as fast as torch's std, and exact enough for vectors of length 1.
    variance = flat.square().mean(dim=0) - flat.mean(dim=0).square()
    return variance.clamp(min=0).sqrt().mean() * flat.shape[-1] ** 0.5


def effective_rank(vectors: Tensor) -> Tensor:
    """Effective rank of a set of vectors: exp of the entropy of the normalised singular values (Roy and Vetterli
    2007; RankMe).

    Args:
        vectors: (count, size).

    Returns:
        Scalar, float32, from 1 to min(count, size); 0 where all vectors are zero.
    """
    values = torch.linalg.svdvals(vectors.detach().float())
    total = values.sum()
    share = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -(share * share.clamp(min=torch.finfo(values.dtype).tiny).log()).sum()
    return torch.where(total > 0, entropy.exp(), torch.zeros_like(entropy))
