"""RoIAlign of small feature maps by two small matrix products per box, which a CPU does many times faster backward."""

import math

import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

CANONICAL_LEVEL = 4
LARGEST_MAP = 4096  # cells; above it torchvision's kernel, which touches only the cells below a sample, is faster


class FastRoIAlign(MultiScaleRoIAlign):
    """torchvision's `MultiScaleRoIAlign`, with the same result.

    Samples of a box lie on a grid, so pooling is separable: a matrix of rows times the map times a matrix of columns.
    torchvision's own kernel is used on other devices than the CPU, on large maps, and for strides that are not rising
    powers of two.

    Args:
        names: Of the feature maps.
        strides: Image pixels per cell of each.
        output_size: Cells per side of a pooled box.
        sampling_ratio: Samples per side of a cell.
        canonical_scale: Side of the boxes that are pooled from level 4.
    """

    def __init__(
        self, names: list[str], strides: list[int], output_size: int, sampling_ratio: int, canonical_scale: int
    ) -> None:
        super().__init__(names, output_size, sampling_ratio, canonical_scale=canonical_scale)
        self.strides = strides
        self.cells, self.samples = output_size, sampling_ratio
        first = round(math.log2(strides[0]))
        self.separable = [2 ** (first + place) for place in range(len(strides))] == list(strides)
        self.level_of = LevelMapper(first, first + len(strides) - 1, canonical_scale, CANONICAL_LEVEL)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool boxes x0, y0, x1, y1 of each image: (boxes, channels, output_size, output_size)."""
        maps = [x[name] for name in self.featmap_names]
        if not self.separable or any(m.device.type != "cpu" or m[0, 0].numel() > LARGEST_MAP for m in maps):
            return super().forward(x, boxes, image_shapes)
        joined = torch.cat(boxes)
        image = torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(entry) for entry in boxes]))
        levels = self.level_of(boxes) if len(maps) > 1 else torch.zeros(len(joined), dtype=torch.int64)
        order, pooled = [], []
        for level, (features, stride) in enumerate(zip(maps, self.strides, strict=True)):
            chosen = torch.where(levels == level)[0]
            order.append(chosen)
            # Autocast would round positions to a few bits.
            with torch.autocast("cpu", enabled=False):
                scaled = joined[chosen].float() / stride
                pooled.append(pool(features.float(), scaled, image[chosen], self.cells, self.samples))
        return torch.cat(pooled)[torch.argsort(torch.cat(order))].to(maps[0].dtype)


def pool(features: Tensor, boxes: Tensor, image: Tensor, cells: int, samples: int) -> Tensor:
    """Pool boxes of one feature map.

    Args:
        features: (images, channels, height, width).
        boxes: (n, 4) x0, y0, x1, y1 in cells of the map.
        image: (n,) number of each box's image, rising.
        cells: Per side of the output.
        samples: Per side of a cell.

    Returns:
        (n, channels, cells, cells).
    """
    images, channels, height, width = features.shape
    x0, y0, x1, y1 = boxes.unbind(1)
    rows = _weights(y0, y1, height, cells, samples)
    columns = _weights(x0, x1, width, cells, samples)
    flat = features.permute(0, 2, 3, 1).reshape(images, height, width * channels)
    counts = torch.bincount(image, minlength=images).tolist()
    found = []
    # One image after the other, because what lies between the two products is larger than the cache.
    for picture, row, column in zip(flat, rows.split(counts), columns.split(counts), strict=True):
        across = (row.reshape(-1, height) @ picture).view(len(row), cells, width, channels)
        found.append(column[:, None] @ across)
    return torch.cat(found).permute(0, 3, 1, 2)


def _weights(start: Tensor, end: Tensor, size: int, cells: int, samples: int) -> Tensor:
    """Share of each of `size` cells of the map in each output cell, (n, cells, size), by linear interpolation."""
    step = (end - start).clamp(min=1) / (cells * samples)
    places = start[:, None] + step[:, None] * (torch.arange(cells * samples, device=start.device) + 0.5)
    inside = (places >= -1) & (places <= size)
    distance = places.clamp(0, size - 1)[:, :, None] - torch.arange(size, device=start.device)
    weights = (1 - distance.abs()).clamp(min=0) * inside[:, :, None]
    return weights.view(len(start), cells, samples, size).mean(2)
