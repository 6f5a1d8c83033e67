"""When a run must not go on: no loss, a loss that is not finite, or a level that has collapsed."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import LevelCollapsed, NotFinite, UserError

BATCH_NORM_SETTLED = 50
"""Steps after which the initial value has vanished from batch norm's running statistics (two updates per step, momentum
0.1). Before that, the spread of held-out projections depends on this value, so only the spread within training batches
tells whether a level has collapsed."""


def check_has_loss(outputs: Any, compiled: bool) -> None:
    """Check that the model returned a loss.

    The compiler of torch 2.6 drops it from the model's output.

    Args:
        outputs: Of the pretraining model.
        compiled: Whether `torch_compile` was asked for.

    Raises:
        UserError: there is none, so that there is nothing to learn from.
    """
    if getattr(outputs, "loss", None) is not None:
        return
    if compiled:
        raise UserError(
            f"torch_compile: compiled by torch {torch.__version__}, the model returns no loss: leave torch_compile "
            "out, or install a newer torch (pip install --upgrade torch torchvision)"
        )
    raise UserError(
        f"{type(outputs).__name__} holds no loss, so there is nothing to learn from: train a model whose forward "
        "returns one, as LadderSiameseForPreTraining does"
    )


def check_losses(logs: Mapping[str, float], step: int) -> None:
    """Check the logged losses.

    Args:
        logs: A log entry with "loss" and, for each level, "loss/LEVEL".
        step: Number of optimizer steps so far.

    Raises:
        NotFinite: a loss is NaN or infinite. The levels are checked first, so that the message names the level.
    """
    levels = [name for name in logs if name.startswith("loss/")]
    for name in [*levels, "loss"]:
        value = logs[name]
        if not math.isfinite(value):
            level = name.removeprefix("loss/") if name in levels else "the total"
            raise NotFinite(
                f"the loss of {level} is {value} at step {step}: "
                "lower the learning rate or lengthen the warm-up; checkpoints written so far are good"
            )


def check_spread(spread: Mapping[str, float], step: int, limit: float) -> None:
    """Check the spread of the projections.

    Args:
        spread: Level to the standard deviation of its projections, as a fraction of a healthy one.
        step: Number of optimizer steps so far.
        limit: Least spread of a level that has not collapsed.

    Raises:
        LevelCollapsed: a level's spread is below the limit or is not a number.
    """
    for level, value in spread.items():
        if not value >= limit:
            raise LevelCollapsed(level, step, value, limit)
