"""The order of the images: when each example is used, by which process, and with which views.

Everything here is a pure function of (seed, pass, process, example). A run can therefore be resumed at any step without
saved random states, and neither prefetching nor the number of workers changes what is trained on.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stable_hash(*parts: int | str) -> int:
    """64-bit hash of integers and strings, the same in every process and every Python (unlike `hash`).

    Args:
        *parts: What to hash; `1` and `"1"` have different hashes.

    Returns:
        An integer in [0, 2**63), which is valid for `torch.Generator.manual_seed` and as a signed 64-bit integer.
    """
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def uniform(*parts: int | str) -> float:
    """A uniformly distributed number in [0, 1), a function of `parts` only."""
    return stable_hash(*parts) / 2.0**63


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator whose seed is a hash of `parts`."""
    return np.random.Generator(np.random.PCG64(stable_hash(*parts)))


def view_seed(seed: int, pass_index: int, *identity: int | str) -> int:
    """Seed of the views of one example in one pass. It does not depend on process, worker, batch or resuming."""
    return stable_hash("views", seed, pass_index, *identity)


class PassOrders:
    """The orders of a map-style data set: one permutation per pass, the same in all processes.

    The last two orders are kept in memory, each with 4 bytes per example (8 above 2**32 examples).

    Args:
        size: Number of examples n.
        *label: The seed, and what distinguishes these orders from others with the same seed.
    """

    def __init__(self, size: int, *label: int | str) -> None:
        self.size, self._label = size, label
        self._kept: dict[int, NDArray[Any]] = {}

    def of(self, pass_index: int) -> NDArray[Any]:
        """Integer array (n,), a permutation of 0 ... n-1."""
        if pass_index not in self._kept:
            order = np.arange(self.size, dtype=np.uint32 if self.size <= 2**32 else np.int64)
            generator("order", *self._label, pass_index).shuffle(order)
            self._kept = dict([*self._kept.items(), (pass_index, order)][-2:])
        return self._kept[pass_index]


def rank_positions(size: int, rank: int, world_size: int) -> int:
    """Number of positions of a pass that process `rank` owns, which are rank, rank + world_size, ..."""
    return max(0, (size - rank + world_size - 1) // world_size)
