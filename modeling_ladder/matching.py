"""Matching of positions between the feature maps of two views.

Location matching samples both maps at the same points of the source image: a K x K grid over the overlap of the two
crop boxes. Feature matching pairs each cell with the most similar cell of the other view (DenseCL, arXiv 2011.09157,
section 3.3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_OVERLAP = 0.01
"""Two views count as overlapping if their overlap covers at least this fraction of the smaller crop."""


@dataclass
class LocationMatch:
    """Matched points of a batch of view pairs.

    Attributes:
        points: For view 1 and view 2, float32 (batch, K * K, 2): x and y in [0, 1] of the view, after its flip.
        valid: bool (batch,), whether the two views overlap.
    """

    points: tuple[Tensor, Tensor]
    valid: Tensor


def match_locations(view_boxes: Tensor, view_flips: Tensor, grid_size: int) -> LocationMatch:
    """Compute the points of both views that show the same places of the source image.

    A pair without overlap is marked as invalid and gets a grid over each whole view instead. Its vectors still pass
    through the heads' batch norm, which must not see the border values that sampling outside a view would give.

    Args:
        view_boxes: (batch, 2, 4), x0, y0, x1, y1 in [0, 1] of the source image.
        view_flips: bool (batch, 2), whether the view was flipped left to right after cropping.
        grid_size: K, points per side.

    Returns:
        The points of both views and the mask of overlapping pairs.
    """
    boxes = view_boxes.float()
    low = boxes[..., :2].amax(dim=1)
    high = boxes[..., 2:].amin(dim=1)
    extent = (high - low).clamp(min=0)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
    smaller = areas.amin(dim=1)
    valid = (extent.prod(dim=-1) >= MIN_OVERLAP * smaller) & (smaller > 0)

    steps = (torch.arange(grid_size, device=boxes.device, dtype=torch.float32) + 0.5) / grid_size
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    unit = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2)
    source = low.unsqueeze(1) + unit * extent.unsqueeze(1)

    points = []
    for view in range(2):
        origin, corner = boxes[:, view, :2].unsqueeze(1), boxes[:, view, 2:].unsqueeze(1)
        inside = (source - origin) / (corner - origin).clamp(min=torch.finfo(torch.float32).tiny)
        inside = torch.where(valid.reshape(-1, 1, 1), inside, unit)
        x, y = inside.unbind(dim=-1)
        x = torch.where(view_flips[:, view].bool().unsqueeze(1), 1 - x, x)
        points.append(torch.stack([x, y], dim=-1))
    return LocationMatch(points=(points[0], points[1]), valid=valid)


def sample_points(feature_map: Tensor, points: Tensor) -> Tensor:
    """Sample a feature map bilinearly at the given points.

    A cell's value belongs to the centre of the cell. Points nearer to the edge than half a cell take the value of the
    border cell.

    Args:
        feature_map: (batch, channels, height, width).
        points: (batch, count, 2), x and y in [0, 1] of the map.

    Returns:
        (batch, count, channels), in the dtype of the map.
    """
    grid = (points.float() * 2 - 1).unsqueeze(2)
    sampled = F.grid_sample(feature_map.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.squeeze(-1).transpose(1, 2).to(feature_map.dtype)


def grid_cells(feature_map: Tensor, grid_size: int) -> Tensor:
    """Average-pool a feature map to at most `grid_size` cells per side, and list the cells.

    Args:
        feature_map: (batch, channels, height, width).
        grid_size: Most cells per side; a smaller map keeps its size.

    Returns:
        (batch, cells, channels), row by row.
    """
    height, width = feature_map.shape[-2:]
    size = (min(grid_size, height), min(grid_size, width))
    if size != (height, width):
        feature_map = F.adaptive_avg_pool2d(feature_map, size)
    return feature_map.flatten(2).transpose(1, 2)


def match_features(cells: Tensor, other_cells: Tensor) -> Tensor:
    """Find for each cell the most similar cell of the other view, by cosine similarity and without gradient.

    Args:
        cells: (batch, count, channels), features before the projector.
        other_cells: (batch, other count, channels), the other view's.

    Returns:
        int64 (batch, count), indices of the other view's cells.
    """
    with torch.no_grad():
        first = F.normalize(cells.float(), dim=-1)
        second = F.normalize(other_cells.float(), dim=-1)
        return torch.bmm(first, second.transpose(1, 2)).argmax(dim=-1)


def take_cells(vectors: Tensor, index: Tensor) -> Tensor:
    """Pick vectors by index, separately for each image.

    Args:
        vectors: (batch, count, size).
        index: int64 (batch, picks), from 0 to count - 1.

    Returns:
        (batch, picks, size).
    """
    return vectors.gather(1, index.unsqueeze(-1).expand(-1, -1, vectors.shape[-1]))
