"""Monitoring a run on held-out images: kNN accuracy of each stage where there are labels, collapse of each level."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from modeling_ladder import LadderSiameseForPreTraining, effective_rank, normalised_std

from ..models.all_stages import with_all_stages
from ..models.neighbour_votes import leave_one_out_accuracy

RANK_VECTORS = 4096
"""Most vectors from which an effective rank is computed; more would cost much and change it little."""


@dataclass
class HeldOutImages:
    """Images kept out of training, decoded once.

    Attributes:
        pixels: uint8 (count, height, width, 3).
        labels: int64 (count,), or None.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
    """

    pixels: np.ndarray
    labels: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Images `start` to `stop` (excluded), normalised: float32 (stop - start, 3, height, width)."""
        pixels = torch.from_numpy(self.pixels[start:stop]).to(device).permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor(self.mean, device=device).reshape(1, -1, 1, 1)
        std = torch.tensor(self.std, device=device).reshape(1, -1, 1, 1)
        return (pixels - mean) / std


@dataclass
class MonitorMetrics:
    """What is measured on the held-out images at one step of a run.

    Attributes:
        knn: Stage (and "all") to leave-one-out kNN accuracy in [0, 1]; empty without labels.
        std: Level to the standard deviation of its normalised projections, times sqrt(channels); 0 means collapsed.
        rank: Level to the effective rank of its projections.
    """

    knn: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)
    rank: dict[str, float] = field(default_factory=dict)

    def log_entries(self) -> dict[str, float]:
        """Names and values for the log, such as "knn/stage1", "std/stage1.local" and "rank/stage1.local"."""
        return {
            f"{group}/{name}": value for group in ("knn", "std", "rank") for name, value in getattr(self, group).items()
        }


@torch.no_grad()
def look(
    model: LadderSiameseForPreTraining,
    images: HeldOutImages,
    batch_size: int = 128,
    neighbours: int = 20,
    temperature: float = 0.1,
) -> MonitorMetrics:
    """Measure the online network on held-out images. The model's mode and all random states stay as they were.

    The kNN accuracy is that of `ladder evaluate knn`, with one difference: there are too few images to split them, so
    each image is scored by the votes of all the others. It equals the average accuracy of evaluations that each score
    one of the images and fit on the rest. Images are cropped as in evaluation.

    Args:
        model: The pretraining model, without the wrapper of a distributed run.
        images: At least two images.
        batch_size: Images per forward pass.
        neighbours: Number of neighbours that vote (k).
        temperature: Of the vote, see `models.neighbour_votes`.
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
                pooled.setdefault(stage, []).append(stage_map.float().mean(dim=(2, 3)))
            for level, vectors in model.project(batch, maps).items():
                projected.setdefault(level, []).append(vectors.float().flatten(0, -2))
    finally:
        model.train(was_training)

    metrics = MonitorMetrics()
    for level, parts in projected.items():
        vectors = torch.cat(parts)
        metrics.std[level] = normalised_std(vectors).item()
        stride = -(-len(vectors) // RANK_VECTORS)
        metrics.rank[level] = effective_rank(vectors[::stride]).item()
    if images.labels is not None:
        features = with_all_stages({stage: torch.cat(parts) for stage, parts in pooled.items()}, normalise=True)
        metrics.knn = {
            name: leave_one_out_accuracy(values, images.labels, neighbours, temperature)
            for name, values in features.items()
        }
    return metrics
