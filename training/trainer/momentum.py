"""The schedule of the target's momentum (BYOL, arXiv 2006.07733, section 3.3)."""

import math


def target_momentum(step: int, total_steps: int, base: float) -> float:
    """tau of update number `step`: 1 - (1 - base) * (1 + cos(pi * step / total_steps)) / 2.

    Args:
        step: Optimizer steps done before this one, from 0 to total_steps - 1; micro-batches do not count.
        total_steps: Optimizer steps of the whole run; tau(total_steps) = 1 is the limit and never applied.
        base: tau at step 0.
    """
    return 1 - (1 - base) * (1 + math.cos(math.pi * step / total_steps)) / 2
