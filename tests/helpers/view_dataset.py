"""A small data set of ready view pairs, for tests of the trainer."""

import torch
from torch import Tensor
from torch.utils.data import Dataset


class ViewPairs(Dataset):
    """`count` random view pairs of smooth images; index `bad` holds NaNs."""

    def __init__(self, count: int = 24, size: int = 32, bad: int | None = None) -> None:
        generator = torch.Generator().manual_seed(3)
        base = torch.randn(count, 1, 3, 4, 4, generator=generator)
        noise = 0.3 * torch.randn(count, 2, 3, size, size, generator=generator)
        self.pixels = torch.nn.functional.interpolate(base.flatten(0, 1), size).unsqueeze(1) + noise
        if bad is not None:
            self.pixels[bad] = float("nan")
        low = torch.rand(count, 2, 2, generator=generator) * 0.4
        high = 0.6 + torch.rand(count, 2, 2, generator=generator) * 0.4
        self.boxes = torch.cat([low, high], dim=-1)
        self.flips = torch.rand(count, 2, generator=generator) < 0.5

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "pixel_values": self.pixels[index],
            "view_boxes": self.boxes[index],
            "view_flips": self.flips[index],
        }
