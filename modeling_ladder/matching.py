"""Matching of positions between the feature maps of two views.

Location matching samples both maps at the same points of the source image: a K x K grid over the overlap of the two
crop boxes. Region matching averages both maps over the same boxes of the source image, as SCRL does (Roh and others,
CVPR 2021); here the boxes divide the overlap into 1, 4 and 9 parts. Feature matching pairs each cell with the most
similar cell of the other view (DenseCL, arXiv 2011.09157, section 3.3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .autocast import without_autocast

MIN_OVERLAP = 0.01
"""Two views count as overlapping if their overlap covers at least this fraction of the smaller crop."""


REGION_PARTS = (1, 2, 3)
"""The overlap is divided into so many parts a side; each division gives its square of regions, 14 in all."""
REGION_SAMPLES = 4
"""Samples a side of a region."""


@dataclass
class LocationMatch:
    """Matched points of a batch of view pairs.

    Attributes:
        points: For view 1 and view 2, float32 (2, batch, K * K, 2): x and y in [0, 1] of the view, after its flip.
        corners: For view 1 and view 2, float32 (2, batch, 2, 2): where the top left and the bottom right of the overlap
            lie in the view, x and y in [0, 1]. In a flipped view the first x is the larger one.
        valid: bool (batch,), whether the two views overlap.
    """

    points: Tensor
    corners: Tensor
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
    unit = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    ends = torch.arange(2, device=boxes.device, dtype=torch.float32)
    unit = torch.cat([unit, torch.stack([ends, ends], dim=-1)]).unsqueeze(0)
    source = low.unsqueeze(1) + unit * extent.unsqueeze(1)

    by_view = boxes.transpose(0, 1).unsqueeze(2)
    origin, corner = by_view[..., :2], by_view[..., 2:]
    inside = (source - origin) / (corner - origin).clamp(min=torch.finfo(torch.float32).tiny)
    x, y = torch.where(valid.reshape(-1, 1, 1), inside, unit).unbind(dim=-1)
    x = torch.where(view_flips.bool().transpose(0, 1).unsqueeze(2), 1 - x, x)
    found = torch.stack([x, y], dim=-1)
    return LocationMatch(points=found[:, :, :-2], corners=found[:, :, -2:], valid=valid)


def sampling_weights(points: Tensor, height: int, width: int) -> Tensor:
    """Compute how much each cell of a feature map counts in a bilinear sample at each point.

    A cell's value belongs to the centre of the cell. Points nearer to the edge than half a cell take the value of the
    border cell.

    Args:
        points: (..., 2), x and y in [0, 1] of the map.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        float32 (..., height * width), cells row by row; the weights of a point sum to 1.
    """
    points = points.float()
    if height == width:
        columns, rows = _hats(points, width).unbind(dim=-2)
    else:
        columns, rows = _hats(points[..., 0], width), _hats(points[..., 1], height)
    return (rows.unsqueeze(-1) * columns.unsqueeze(-2)).flatten(-2)


def _hats(coordinates: Tensor, size: int) -> Tensor:
    """Share of each of `size` cells in linear interpolation at `coordinates` (...) in [0, 1]: (..., size)."""
    cells = torch.arange(size, device=coordinates.device, dtype=coordinates.dtype)
    place = (coordinates * size - 0.5).clamp(0, size - 1)
    return (1 - (place.unsqueeze(-1) - cells).abs()).clamp(min=0)


def region_weights(corners: Tensor, height: int, width: int) -> Tensor:
    """Compute how much each cell of a feature map counts in the mean over each region of the overlap.

    The regions divide the overlap into 1 x 1, 2 x 2 and 3 x 3 boxes. A region's value is the mean of `REGION_SAMPLES` x
    `REGION_SAMPLES` bilinear samples in it, so it is RoIAlign's (Mask R-CNN, arXiv 1703.06870), as weights.

    Args:
        corners: (..., 2, 2), top left and bottom right of the overlap, x and y in [0, 1] of the map.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        float32 (..., 14, height * width), the largest region first, row by row; the weights of a region sum to 1.
    """
    corners = corners.float()
    first, last = corners[..., 0, :].unsqueeze(-1), corners[..., 1, :].unsqueeze(-1)
    regions = []
    for parts in REGION_PARTS:
        count = parts * REGION_SAMPLES
        along = (torch.arange(count, device=corners.device, dtype=torch.float32) + 0.5) / count
        columns, rows = (first + (last - first) * along).unbind(dim=-2)
        shares = [
            _hats(places.reshape(*places.shape[:-1], parts, REGION_SAMPLES), size).mean(dim=-2)
            for places, size in ((rows, height), (columns, width))
        ]
        regions.append(
            (shares[0][..., :, None, :, None] * shares[1][..., None, :, None, :]).flatten(-4, -3).flatten(-2)
        )
    return torch.cat(regions, dim=-2)


def pooling_weights(height: int, width: int, grid_size: int, device: torch.device) -> Tensor:
    """Compute how much each cell of a feature map counts in each cell of a smaller grid, as adaptive pooling does.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        grid_size: Most cells per side; a smaller map keeps its size.
        device: Where the weights are needed.

    Returns:
        float32 (1, cells, height * width), row by row.
    """

    def shares(size: int) -> Tensor:
        count = min(grid_size, size)
        number, place = torch.arange(count, device=device).unsqueeze(1), torch.arange(size, device=device)
        first, end = number * size // count, -(-(number + 1) * size // count)
        inside = ((place >= first) & (place < end)).float()
        return inside / (end - first)

    rows, columns = shares(height), shares(width)
    return (rows[:, None, :, None] * columns[None, :, None, :]).reshape(1, -1, height * width)


def weigh_cells(feature_map: Tensor, weights: Tensor) -> Tensor:
    """Take weighted sums of the cells of a feature map, as one matrix product.

    It reads and differentiates channels-last maps where they lie, in their own type, and always in the same order of
    additions; torch's `grid_sample` does none of the three.

    Args:
        feature_map: (batch, channels, height, width).
        weights: (batch or 1, count, height * width).

    Returns:
        (batch, count, channels), in the dtype of the map.
    """
    cells = feature_map.permute(0, 2, 3, 1).flatten(1, 2)
    with without_autocast(feature_map.device):
        return torch.bmm(weights.to(cells.dtype).expand(cells.shape[0], -1, -1), cells)


def sample_points(feature_map: Tensor, points: Tensor) -> Tensor:
    """Sample a feature map bilinearly at the given points, see `sampling_weights`.

    Args:
        feature_map: (batch, channels, height, width).
        points: (batch, count, 2), x and y in [0, 1] of the map.

    Returns:
        (batch, count, channels), in the dtype of the map.
    """
    return weigh_cells(feature_map, sampling_weights(points, *feature_map.shape[-2:]))


def grid_cells(feature_map: Tensor, grid_size: int) -> Tensor:
    """Average-pool a feature map to at most `grid_size` cells per side, and list the cells.

    Args:
        feature_map: (batch, channels, height, width).
        grid_size: Most cells per side; a smaller map keeps its size.

    Returns:
        (batch, cells, channels), row by row.
    """
    height, width = feature_map.shape[-2:]
    if max(height, width) <= grid_size:
        return feature_map.permute(0, 2, 3, 1).flatten(1, 2)
    return weigh_cells(feature_map, pooling_weights(height, width, grid_size, feature_map.device))


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
