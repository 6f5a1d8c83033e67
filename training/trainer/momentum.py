"""The schedule of the target's momentum (BYOL, arXiv 2006.07733, section 3.3)."""

import math


def target_momentum(step: int, total_steps: int, base: float) -> float:
    """Return tau of update `step`: 1 - (1 - base) * (1 + cos(pi * step / total_steps)) / 2.

    Args:
        step: Number of optimizer steps before this one, 0 to total_steps - 1. Micro-batches do not count.
        total_steps: Optimizer steps of the whole run. tau(total_steps) = 1 is the limit and is never used.
        base: tau at step 0.
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * step / total_steps)) / 2
