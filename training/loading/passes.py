"""How many batches and optimizer steps a pass over the data has; as loader, trainer and planner count them."""

import math


def batches_of_pass(images: int, *, batch_size: int, accumulation: int, world_size: int, streaming: bool) -> int:
    """Batches of one process in a pass without unreadable images.

    A pass over map-style data ends with a whole optimizer step of all processes, one over a stream with a whole batch.

    Args:
        images: Images of the pass, of all processes.
        batch_size: Images per batch.
        accumulation: Batches per optimizer step.
        world_size: Number of processes.
        streaming: Whether the images are a stream.
    """
    if streaming:
        return images // world_size // batch_size
    return images // (batch_size * accumulation * world_size) * accumulation


def steps_of_passes(passes: float, batches: int, accumulation: int) -> int:
    """Optimizer steps of so many passes, the last of them whole.

    Args:
        passes: Number of passes.
        batches: Batches of one process in a pass.
        accumulation: Batches per optimizer step.
    """
    return math.ceil(passes * (batches / accumulation))
