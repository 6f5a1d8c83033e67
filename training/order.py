"""The order of the images: which example comes when, on which process, with which views.

Everything here is a pure function of (seed, pass, process, example), so that a run can be cut anywhere and continued
by arithmetic alone, and so that neither prefetching nor the number of workers can change what is trained on.
"""

import hashlib
from functools import lru_cache

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


@lru_cache(maxsize=2)
def pass_order(size: int, seed: int, pass_index: int) -> np.ndarray:
    """The order of a map-style data set in one pass, for all processes together.

    Args:
        size: Number of examples n.
        seed: Seed of the run.
        pass_index: Number of the pass, from 0.

    Returns:
        Read-only integer array (n,), a permutation of 0 ... n-1; 4 bytes per example below 2**32 examples.
    """
    order = np.arange(size, dtype=np.uint32 if size <= 2**32 else np.int64)
    generator("order", seed, pass_index).shuffle(order)
    order.flags.writeable = False
    return order


def rank_positions(size: int, rank: int, world_size: int) -> int:
    """How many positions of a pass process `rank` owns: it takes positions rank, rank + world_size, ..."""
    return max(0, (size - rank + world_size - 1) // world_size)
