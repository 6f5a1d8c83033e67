"""A check that images are large enough for the stages of a backbone."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import UserError

CHANNELS = 3
_LARGEST = 1024


def check_image_size(model: nn.Module, maps_of: Callable[[Tensor], dict[str, Tensor]], size: int, last: str) -> None:
    """Check that no stage before the last one used reduces an image to a single cell.

    Args:
        model: The model that `maps_of` runs, once, on an empty image. Its weights, statistics and mode do not change.
        maps_of: Maps (1, 3, size, size) to {stage name: (1, channels, height, width)}, first stage first.
        size: Height and width of the images, in pixels.
        last: Name of the last stage that is used.

    Raises:
        UserError: the images are too small, or the backbone does not take 3 channels; the message names the stage and
            a size that works.
    """
    taken = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), CHANNELS)
    if taken != CHANNELS:
        raise UserError(
            f"the backbone takes {taken} channels, but images have {CHANNELS}: set num_channels to {CHANNELS}"
        )
    was_training = model.training
    model.eval()
    try:
        reason = _too_small(model, maps_of, size, last)
        if reason is None:
            return
        larger = (size * 2**power for power in range(1, 12) if size * 2**power <= _LARGEST)
        works = next((each for each in larger if _too_small(model, maps_of, each, last) is None), None)
    finally:
        model.train(was_training)
    hint = f"; {works} pixels work" if works else ""
    raise UserError(f"image_size {size} is too small for the stages of the backbone: {reason}{hint}")


@torch.no_grad()
def _too_small(model: nn.Module, maps_of: Callable[[Tensor], dict[str, Tensor]], size: int, last: str) -> str | None:
    """Say what is wrong with images of this size; None if nothing is."""
    device = next(model.parameters()).device
    try:
        maps = maps_of(torch.zeros(1, CHANNELS, size, size, device=device))
    except (RuntimeError, ValueError) as error:
        return " ".join(str(error).split())
    stages = list(maps)
    for earlier, later in itertools.pairwise(stages[: stages.index(last) + 1]):
        if maps[earlier][0, 0].numel() == 1:
            return f"{earlier} has one cell already, so {later} adds none"
    return None
