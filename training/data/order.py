"""The order of the images: which example comes when, on which process, with which views.

Everything here is a pure function of (seed, pass, process, example), so that a run can be cut anywhere and continued
by arithmetic alone, and so that neither prefetching nor the number of workers can change what is trained on.
"""

import hashlib

import numpy as np


def stable_hash(*parts: int | str) -> int:
    """64-bit hash of integers and strings, the same in every process and every Python (unlike `hash`).

    Args:
        *parts: What to hash; `1` and `"1"` differ.

    Returns:
        An integer in [0, 2**63), which fits `torch.Generator.manual_seed` and JSON readers of signed integers.
    """
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def uniform(*parts: int | str) -> float:
    """A number in [0, 1) that is a function of `parts` alone."""
    return stable_hash(*parts) / 2.0**63


def generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator that is a function of `parts` alone."""
    return np.random.Generator(np.random.PCG64(stable_hash(*parts)))


def view_seed(seed: int, pass_index: int, *identity: int | str) -> int:
    """Seed of the views of one example in one pass: independent of process, worker, batch and resume."""
    return stable_hash("views", seed, pass_index, *identity)


class PassOrders:
    """The orders of a map-style data set, one permutation per pass, for all processes together.

    The last two used are kept: 4 bytes per example each, below 2**32 examples.

    Args:
        size: Number of examples n.
        *label: Seed, and what else distinguishes these orders.
    """

    def __init__(self, size: int, *label: int | str) -> None:
        self.size, self._label = size, label
        self._kept: dict[int, np.ndarray] = {}

    def of(self, pass_index: int) -> np.ndarray:
        """Integer array (n,), a permutation of 0 ... n-1."""
        if pass_index not in self._kept:
            order = np.arange(self.size, dtype=np.uint32 if self.size <= 2**32 else np.int64)
            generator("order", *self._label, pass_index).shuffle(order)
            self._kept = dict([*self._kept.items(), (pass_index, order)][-2:])
        return self._kept[pass_index]


def rank_positions(size: int, rank: int, world_size: int) -> int:
    """How many positions of a pass process `rank` owns: it takes positions rank, rank + world_size, ..."""
    return max(0, (size - rank + world_size - 1) // world_size)
