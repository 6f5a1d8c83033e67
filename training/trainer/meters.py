"""Averages that stay on the device until they are logged, and the search for values that are not finite."""

from typing import Any

import torch
from torch import Tensor, nn


class LevelMeters:
    """Averages each level's loss and spread over a logging window, without reading from the device at each step."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, outputs: Any) -> None:
        """Add the `level_losses`, `projection_std` and `matched_fraction` of one micro-batch."""
        values = {f"loss/{level}": value for level, value in outputs.level_losses.items()}
        values.update({f"batch_std/{level}": value for level, value in outputs.projection_std.items()})
        if outputs.matched_fraction is not None:
            values["matched_fraction"] = outputs.matched_fraction
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1

    def averages(self, accelerator: Any) -> dict[str, float]:
        """Return the averages over all micro-batches since the last call and over all processes, and reset them."""
        if not self._count:
            return {}
        names = list(self._sums)
        means = torch.stack([self._sums[name] for name in names]) / self._count
        means = accelerator.reduce(means, reduction="mean")
        self._sums, self._count = {}, 0
        return dict(zip(names, means.tolist(), strict=True))


@torch.no_grad()
def first_non_finite(model: nn.Module) -> str | None:
    """Return the name of the first parameter or buffer with a NaN or an infinity, or None.

    If all values are finite, the device is read only once.
    """
    named = [
        (name, tensor)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.is_floating_point()
    ]
    finite = torch.stack([torch.isfinite(tensor).all() for _, tensor in named])
    if finite.all():
        return None
    return named[int((~finite).nonzero()[0])][0]
