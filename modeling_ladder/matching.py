"""Which positions of two views' feature maps belong together.

Location matching samples both maps at the same points of the source image: a K x K grid over the overlap of the two
crop boxes. Feature matching pairs each cell with the most similar cell of the other view (DenseCL, arXiv 2011.09157,
section 3.3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_OVERLAP = 0.01
"""Share of the smaller crop's area below which two views count as not overlapping."""


@dataclass
class LocationMatch:
    """Matched points of a batch of view pairs.

    Attributes:
        points: for view 1 and view 2, float32 (batch, K * K, 2): x, y in [0, 1] of the view as the network sees it.
        valid: bool (batch,): the pair overlaps.
    """

    points: tuple[Tensor, Tensor]
    valid: Tensor


def match_locations(view_boxes: Tensor, view_flips: Tensor, grid_size: int) -> LocationMatch:
    """Points of both views that show the same places of the source image.

    A pair without overlap is marked invalid and gets the grid of each whole view instead: its vectors still pass the
    heads' batch norm, which must not see the smeared features of points outside a view.

    Args:
        view_boxes: (batch, 2, 4), x0, y0, x1, y1 in [0, 1] of the source image.
        view_flips: bool (batch, 2), the view is mirrored left to right after cropping.
        grid_size: K.
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
    """Bilinear samples of a feature map; a cell's value stands at its centre, and the border cells reach to the edge.

    Args:
        feature_map: (batch, channels, height, width).
        points: (batch, count, 2), x, y in [0, 1] of the map.

    Returns:
        (batch, count, channels), in the map's type.
    """
    grid = (points.float() * 2 - 1).unsqueeze(2)
    sampled = F.grid_sample(feature_map.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.squeeze(-1).transpose(1, 2).to(feature_map.dtype)


def grid_cells(feature_map: Tensor, grid_size: int) -> Tensor:
    """Cells of a feature map, average-pooled to at most `grid_size` a side.

    Args:
        feature_map: (batch, channels, height, width).

    Returns:
        (batch, cells, channels), row by row.
    """
    height, width = feature_map.shape[-2:]
    size = (min(grid_size, height), min(grid_size, width))
    if size != (height, width):
        feature_map = F.adaptive_avg_pool2d(feature_map, size)
    return feature_map.flatten(2).transpose(1, 2)


def match_features(cells: Tensor, other_cells: Tensor) -> Tensor:
    """For each cell the most similar cell of the other view, by the cosine of unprojected features; no gradient.

    Args:
        cells: (batch, count, channels).
        other_cells: (batch, other count, channels).

    Returns:
        int64 (batch, count), an index into the other view's cells.
    """
    with torch.no_grad():
        first = F.normalize(cells.float(), dim=-1)
        second = F.normalize(other_cells.float(), dim=-1)
        return torch.bmm(first, second.transpose(1, 2)).argmax(dim=-1)


def take_cells(vectors: Tensor, index: Tensor) -> Tensor:
    """(batch, count, size) vectors at (batch, picks) indices: (batch, picks, size)."""
    return vectors.gather(1, index.unsqueeze(-1).expand(-1, -1, vectors.shape[-1]))
