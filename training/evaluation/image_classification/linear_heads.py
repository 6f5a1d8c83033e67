"""Linear classifiers for several feature sets and learning rates, trained together."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.9


class ParallelHeads(nn.Module):
    """One linear classifier per feature set and learning rate; all start at zero.

    The classifiers share no parameters. A step of SGD without weight decay is linear in the gradient, so a classifier
    whose loss is multiplied by r trains at rate 1 as it would at rate r. `loss` does this, and one optimizer suffices.

    Args:
        channels: Feature name to its number of channels.
        num_classes: Number of classes.
        learning_rates: Feature name to the rates of its classifiers, the same number for each.
        batch_norm: Standardise features by batch norm without learned scale, as the linear probes of MAE do, and divide
            them by the square root of the number of channels.
    """

    def __init__(
        self,
        channels: dict[str, int],
        num_classes: int,
        learning_rates: Mapping[str, Sequence[float]],
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.names = list(channels)  # a ParameterDict does not keep the order
        self.num_classes = num_classes
        for name, rates in learning_rates.items():
            self.register_buffer(f"rates_{name}", torch.tensor(rates, dtype=torch.float32), persistent=False)
        columns = len(next(iter(learning_rates.values()))) * num_classes
        self.weights = nn.ParameterDict({name: torch.zeros(width, columns) for name, width in channels.items()})
        self.biases = nn.ParameterDict({name: torch.zeros(columns) for name in channels})
        norms = {name: nn.BatchNorm1d(width, affine=False) for name, width in channels.items() if batch_norm}
        self.norms = nn.ModuleDict(norms)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map features (batch, channels) by name to scores (batch, learning rates, classes) by name."""
        scores = {}
        for name in self.names:
            values, weight = features[name], self.weights[name]
            if name in self.norms:
                values = self.norms[name](values) / math.sqrt(values.shape[1])
            scores[name] = torch.addmm(self.biases[name], values, weight).unflatten(1, (-1, self.num_classes))
        return scores

    def loss(self, scores: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Sum average cross-entropy times rate over feature sets and learning rates; `labels` is int64 (batch,)."""
        losses = [
            (_cross_entropies(part, labels) * self.get_buffer(f"rates_{name}")).sum() for name, part in scores.items()
        ]
        return torch.stack(losses).sum()


def make_optimizer(heads: nn.Module) -> torch.optim.SGD:
    """Make Nesterov SGD for `ParallelHeads`; its learning rate is the factor of the schedule, from 1 to 0."""
    return torch.optim.SGD(heads.parameters(), lr=1.0, momentum=MOMENTUM, nesterov=True)


def set_cosine(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Set the factor of the schedule at step 0 ... steps - 1: half a cosine from 1 to 0."""
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * (1 + math.cos(math.pi * step / steps))


def best_rates(accuracies: dict[str, Tensor], learning_rates: Sequence[float]) -> tuple[dict[str, int], list[str]]:
    """Choose the index of the best learning rate of each feature set.

    Args:
        accuracies: Feature name to held-out accuracy (learning rates,), NaN if a classifier diverged.
        learning_rates: The sweep. Of equally good rates the smallest is chosen.

    Returns:
        Feature name to index, and notes for the report.
    """
    order = sorted(range(len(learning_rates)), key=lambda index: learning_rates[index])
    chosen = {}
    for name, values in accuracies.items():
        known = torch.nan_to_num(values, nan=-1.0).tolist()
        chosen[name] = max(order, key=lambda index: (known[index], -learning_rates[index]))
    edges = [name for name, index in chosen.items() if index in (order[0], order[-1])]
    if len(order) > 2 and edges:
        return chosen, [f"the best learning rate lies at the edge of the sweep for {', '.join(edges)}"]
    return chosen, []


def accuracy_per_rate(scores: Tensor, labels: Tensor) -> Tensor:
    """Count the correctly classified images of each learning rate, (learning rates,); NaN if scores are not finite.

    Args:
        scores: (images, learning rates, classes).
        labels: int64 (images,).
    """
    right = (scores.argmax(dim=2) == labels[:, None]).sum(dim=0).float()
    finite = torch.isfinite(scores).all(dim=2).all(dim=0)
    return torch.where(finite, right, torch.full_like(right, torch.nan))


def _cross_entropies(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (learning rates,) of scores (batch, learning rates, classes)."""
    spread = labels[:, None].expand(-1, scores.shape[1])
    return F.cross_entropy(scores.float().transpose(1, 2), spread, reduction="none").mean(dim=0)
