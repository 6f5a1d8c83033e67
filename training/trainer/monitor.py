"""Watching a run on held-out images: kNN accuracy of each stage where labels exist, collapse figures of each level."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from modeling_ladder import LadderSiameseForPreTraining, effective_rank, normalised_std

RANK_VECTORS = 4096
"""Most vectors an effective rank is computed from; more change the figure little and cost much."""


@dataclass
class HeldOutImages:
    """Images kept out of training, decoded once.

    Attributes:
        pixels: uint8 (count, height, width, 3).
        labels: int64 (count,), or None.
        mean: Per channel, in [0, 1].
        std: Per channel, in [0, 1].
    """

    pixels: np.ndarray
    labels: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Normalised float32 (count, 3, height, width) of a range of the images."""
        pixels = torch.from_numpy(self.pixels[start:stop]).to(device).permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor(self.mean, device=device).reshape(1, -1, 1, 1)
        std = torch.tensor(self.std, device=device).reshape(1, -1, 1, 1)
        return (pixels - mean) / std


@dataclass
class Figures:
    """What one look found.

    Attributes:
        knn: stage (and "all") to leave-one-out kNN accuracy in [0, 1]; empty without labels.
        std: level to the standard deviation of its normalised projections times sqrt(size): 0 is collapsed.
        rank: level to the effective rank of its projections.
    """

    knn: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)
    rank: dict[str, float] = field(default_factory=dict)

    def log_entries(self) -> dict[str, float]:
        """Flat names for the log: "knn/stage1", "std/stage1.local", "rank/stage1.local"."""
        return {
            f"{group}/{name}": value for group in ("knn", "std", "rank") for name, value in getattr(self, group).items()
        }


def leave_one_out_knn(features: Tensor, labels: Tensor, neighbours: int, temperature: float) -> float:
    """Accuracy of a weighted kNN vote in which every image is asked once and answers for all others.

    Args:
        features: (count, size).
        labels: int64 (count,).
        neighbours: k; at most count - 1 are used.
        temperature: Votes weigh exp(cosine / temperature).

    Returns:
        Accuracy in [0, 1].
    """
    features = torch.nn.functional.normalize(features.float(), dim=1)
    similarity = features @ features.T
    similarity.fill_diagonal_(-torch.inf)
    weights, index = similarity.topk(min(neighbours, len(features) - 1), dim=1)
    votes = torch.zeros(len(features), int(labels.max()) + 1, device=features.device)
    votes.scatter_add_(1, labels[index], (weights / temperature).exp())
    return (votes.argmax(dim=1) == labels).float().mean().item()


@torch.no_grad()
def look(
    model: LadderSiameseForPreTraining,
    images: HeldOutImages,
    batch_size: int = 128,
    neighbours: int = 20,
    temperature: float = 0.1,
) -> Figures:
    """Figures of the online network on held-out images; the model's mode and all random states stay as they were.

    Args:
        model: The unwrapped pretraining model.
        images: At least two.
        batch_size: Images a forward.
        neighbours: k of the kNN vote.
        temperature: Of the kNN vote.
    """
    was_training = model.training
    model.eval()
    try:
        pooled: dict[str, list[Tensor]] = {}
        projected: dict[str, list[Tensor]] = {}
        for start in range(0, len(images), batch_size):
            batch = images.batch(start, start + batch_size, model.device)
            maps = model.feature_maps(batch)
            for stage, stage_map in maps.items():
                pooled.setdefault(stage, []).append(stage_map.mean(dim=(2, 3)).float())
            for level, vectors in model.project(batch, maps).items():
                projected.setdefault(level, []).append(vectors.float().flatten(0, -2))
    finally:
        model.train(was_training)

    figures = Figures()
    for level, parts in projected.items():
        vectors = torch.cat(parts)
        figures.std[level] = normalised_std(vectors).item()
        stride = -(-len(vectors) // RANK_VECTORS)
        figures.rank[level] = effective_rank(vectors[::stride]).item()
    if images.labels is not None:
        labels = images.labels.to(model.device)
        features = {stage: torch.nn.functional.normalize(torch.cat(parts), dim=1) for stage, parts in pooled.items()}
        features["all"] = torch.cat(list(features.values()), dim=1)
        figures.knn = {
            name: leave_one_out_knn(vectors, labels, neighbours, temperature) for name, vectors in features.items()
        }
    return figures
