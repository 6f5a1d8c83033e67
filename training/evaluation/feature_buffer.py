"""Features as they are computed: one array per stage, which never exists twice."""

import numpy as np
import torch
from torch import Tensor

# A buffer of unknown size grows by this factor. The system moves pages instead of copying them, so this is also the
# largest share of memory that is not used in the end.
_GROWTH = 1.125
_FIRST_ROWS = 1024


class FeatureBuffer:
    """Collects float32 features batch by batch.

    Args:
        size: Number of images, if it is known. Memory that is not written to in the end was never taken.

    Attributes:
        count: Images added.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._arrays: dict[str, np.ndarray] = {}
        self.count = 0

    def add(self, features: dict[str, Tensor]) -> None:
        """Add a batch: stage name to float32 (images, channels) on the CPU."""
        images = 0
        for name, values in features.items():
            images, width = values.shape
            array = self._arrays.get(name)
            if array is None:
                array = self._arrays[name] = np.empty((self._size or _FIRST_ROWS, width), np.float32)
            needed = self.count + images
            if needed > len(array):
                array.resize((max(needed, int(len(array) * _GROWTH)), width), refcheck=False)
            array[self.count : needed] = values.numpy()
        self.count += images

    def take(self) -> dict[str, Tensor]:
        """All features, stage name to float32 (images, channels), and empty the buffer."""
        arrays, self._arrays = self._arrays, {}
        return {name: torch.from_numpy(array[: self.count]) for name, array in arrays.items()}
