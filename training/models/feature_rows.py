"""Features of one or several stages as one vector per image, read block by block, so that nothing is copied whole."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .all_stages import ALL_STAGES

BLOCK_VALUES = 2**21
"""Most values of a block: 2^21 floats are 8 MB. Several steps of a computation hold a block each."""


class FeatureRows:
    """The joined features of some stages.

    Args:
        parts: Per stage float (images, channels); they stay where they are.
        normalise: Scale the features of each stage, and then the joined ones, to length 1.
    """

    def __init__(self, parts: Sequence[Tensor], *, normalise: bool) -> None:
        self.parts, self.normalise = list(parts), normalise

    def __len__(self) -> int:
        return len(self.parts[0])

    @property
    def width(self) -> int:
        """Channels of the joined vector."""
        return sum(part.shape[1] for part in self.parts)

    def block(self, rows: slice | Tensor, device: torch.device | str) -> Tensor:
        """The features of some images, float32 (rows, width) on a device.

        Args:
            rows: A slice, or int64 indices.
            device: Where the block is wanted; only the block is moved.
        """
        taken = [part[rows if isinstance(rows, slice) else rows.to(part.device)] for part in self.parts]
        moved = [part.to(device).float() for part in taken]
        if not self.normalise:
            return torch.cat(moved, dim=1) if len(moved) > 1 else moved[0]
        lengths_one = [F.normalize(part, dim=1) for part in moved]
        return F.normalize(torch.cat(lengths_one, dim=1), dim=1) if len(moved) > 1 else lengths_one[0]

    def blocks(self, rows: Tensor | None, device: torch.device | str) -> Iterator[Tensor]:
        """The features of all images, or of those at int64 indices, in blocks of at most `BLOCK_VALUES` values."""
        step = max(1, BLOCK_VALUES // self.width)
        for first in range(0, len(self) if rows is None else len(rows), step):
            part = slice(first, first + step)
            yield self.block(part if rows is None else rows[part], device)


def feature_sets(features: dict[str, Tensor], *, normalise: bool) -> dict[str, FeatureRows]:
    """Each stage's features and, if there are several stages, all of them joined under the name "all".

    `with_all_stages` gives the same values, and copies them.

    Args:
        features: Stage name to float (images, channels).
        normalise: See `FeatureRows`.
    """
    sets = {name: FeatureRows([values], normalise=normalise) for name, values in features.items()}
    if len(features) > 1:
        sets[ALL_STAGES] = FeatureRows(list(features.values()), normalise=normalise)
    return sets
